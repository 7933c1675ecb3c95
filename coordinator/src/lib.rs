//! A pool of worker processes: call a function in another process as easily as in a thread, get the
//! results back in order, and lose nothing when a process dies.
//!
//! ```standalone_crate
//! use coordinator::{Pool, task};
//!
//! /// Squares a number.
//! #[task]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     coordinator::init(); // lets one program be both sides
//!     let pool = Pool::new(2)?;
//!     assert_eq!(pool.map(square, 1..=4)?, [1, 4, 9, 16]);
//!     Ok(())
//! }
//! ```
//!
//! # What there is
//!
//! - **A pool** of a fixed number of worker processes: [`Pool`], its settings [`Builder`], settings for some calls [`With`], a
//!   call that is waited for later [`Pending`], results as they come [`Stream`], [`StreamUnordered`], [`ThreadedStream`].
//! - **A process** of its own for one function: [`Process`], [`Child`].
//! - **Tasks**: the attribute [`task`](macro@task), the trait [`Task`], [`init`] and [`main`] for programs, [`enable_in_tests`]
//!   for tests; in a task, [`current`] and [`Current`]; [`Shared`] values, and [`Described`] for types that need names.
//! - **Errors**: [`CallError`] and why, [`Why`] and [`Death`]; [`PoolError`].
//! - **A map from both ends**, for inputs that arrive over time: [`Inputs`], [`Reports`], [`Report`], [`Order`], [`Refused`],
//!   [`NotYet`]; [`Files`] that go along with a call to another machine.
//! - **What tasks print**: [`Output`], [`Captured`], [`Stray`] and [`StraySource`].
//! - **Looking on**: [`Stats`], [`Worker`], [`RunningCall`], [`TaskInfo`], [`available_workers`], [`is_initialized`].
//! - **Tasks known only by name**, and workers started by hand: [`Text`], [`Typed`], [`ByHand`].

#[cfg(feature = "agents")]
mod agents;
mod engine;
mod error;
mod os;
mod payload;
mod pool;
mod scheduler;
#[cfg(feature = "agents")]
mod serve;
mod workers;

#[cfg(feature = "agents")]
pub use agents::{Agents, FormerRun, NewKeys, Presence, ServedRun};
#[cfg(feature = "agents")]
pub use engine::machines::Agent;
pub use engine::running::RunningCall;
pub use engine::stray::{Stray, StraySource};
pub use error::{CallError, Death, PoolError, Why};
pub use payload::Files;
pub use payload::printed::{Captured, Output};
pub use pool::{
    Builder, Child, Inputs, NotYet, Order, Pending, Pool, Process, Refused, Report, Reports, Stats,
    Stream, StreamUnordered, Text, ThreadedStream, Typed, With, Worker, available_workers,
};
pub use protocol::message::TaskInfo;
#[cfg(feature = "agents")]
pub use serve::{Leave, Service};
pub use worker::coordinator_task as task;
pub use worker::{
    Current, Described, Shared, Task, current, enable_in_tests, init, is_initialized, main,
};
pub use workers::by_hand::ByHand;

/// What the expansion of `#[task]` needs. Not for use by hand.
#[doc(hidden)]
pub mod private {
    pub use worker::private::*;
}
