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
//! What each module is for: `task` says what a task is; `registry` finds one by its name;
//! `run` runs one call and turns whatever happens into a verdict; `serve` is the conversation with
//! the coordinator; `output` measures what calls print; `text` reads and shows
//! what people type; `by_hand` is the command line of a worker.

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
pub mod text;

pub use current::{Current, current};
pub use described::Described;
pub use entry::{init, is_initialized, main};
pub use shared::Shared;
pub use task::Task;
pub use worker_macros::task;

/// What the expansion of `#[task]` and the coordinator need. Not for use by hand.
#[doc(hidden)]
pub mod private {
    pub use crate::__a_free_function as a_task_is_a_free_function_so_move_it_out_of_the_impl;
    pub use crate::entry::is_summoned;
    pub use crate::os::{home, image, lifeline, path, signal_name, spawn};
    pub use crate::registry::Entry;
    pub use crate::shared::{Given, Kept, take_kept};
    pub use crate::task::{
        BoxedText, DisplayText, ErrorText, Fallible, NoResult, NoText, Returned, Told,
    };
    pub use inventory;
}

/// The items as they are. See [`private`] for its name, which is what it is for.
#[doc(hidden)]
#[macro_export]
macro_rules! __a_free_function {
    ($(#[$attribute:meta])* $visibility:vis $ident:ident) => {
        $(#[$attribute])*
        $visibility struct $ident;
    };
}
