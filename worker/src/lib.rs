//! The worker's side of a process pool: tasks, their registry, and the loop that runs them.
//!
//! A task is an ordinary function with an attribute:
//!
//! ```
//! use worker::task;
//!
//! /// Squares a number.
//! #[task]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! assert_eq!(square(7), 49); // still a function
//! ```
//!
//! A program becomes able to run its tasks in processes of its own by calling [`init`] first thing
//! in `main`. A program that is nothing but a worker is one line: `fn main() -> std::process::ExitCode { worker::main() }`.
//!
//! What each module is for: `entry` makes a process a worker; `task` says what a task is; `registry` finds one by its name;
//! `run` runs one call and turns whatever happens into a verdict; `serve` is the conversation with
//! the coordinator; `template` is what a worker does that warm copies are made of; `output` measures what calls print; `current` is what a running call can ask; `shared` and `described` are
//! kinds of values; `text` reads and shows what people type; `by_hand` is the command line of a worker. `builtin` has the tasks
//! of the command line, `command` the processes that they run, and `os` the rest that is Linux.

// Lets `#[task]` name this crate the same way inside and outside of it.
extern crate self as worker;

#[cfg(feature = "builtin")]
pub mod builtin;
mod by_hand;
#[cfg(feature = "builtin")]
mod command;
mod current;
pub mod described;
mod entry;
mod os;
mod output;
mod registry;
mod run;
mod serve;
mod shared;
mod task;
mod template;
pub mod text;

pub use current::{Current, current};
pub use described::Described;
pub use entry::{init, is_initialized, main};
pub use shared::Shared;
pub use task::Task;
#[doc(hidden)]
pub use worker_macros::coordinator_task;
pub use worker_macros::task;

/// Items for the expansion of `#[task]` and for the coordinator. Do not use them by hand.
#[doc(hidden)]
pub mod private {
    pub use crate::__a_free_function as a_task_is_a_free_function_so_move_it_out_of_the_impl;
    pub use crate::entry::{before_main, is_summoned};
    pub use crate::os::{home, image, lifeline, path, patient, spawn};
    pub use crate::registry::{Entry, TASKS, name_of};
    pub use crate::shared::{Given, Kept, take_kept};
    pub use crate::task::{
        BoxedText, DisplayText, ErrorText, Fallible, NoResult, NoText, Returned, Told, crate_of,
    };
    pub use linkme;
}

/// Makes a test program its own worker, so that code that uses a pool can be tested. Write it once in each file of
/// `tests/`, and once in a crate's unit tests. It replaces [`init`], because a test's `main` belongs to the harness.
///
/// ```standalone_crate
/// worker::enable_in_tests!();
///
/// #[worker::task]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// assert!(worker::is_initialized());
/// ```
///
/// A process that a pool has started as a worker never reaches the harness. In such a worker a task that overflows its
/// stack ends with signal 11, without Rust's message.
#[macro_export]
macro_rules! enable_in_tests {
    () => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".init_array")]
            static BEFORE_MAIN: extern "C" fn() = $crate::private::before_main;
        };
    };
}

/// The items under their real paths. Use them through [`private`], whose name says that they are not public.
#[doc(hidden)]
#[macro_export]
macro_rules! __a_free_function {
    ($(#[$attribute:meta])* $visibility:vis $ident:ident) => {
        $(#[$attribute])*
        $visibility struct $ident;
    };
}
