//! A pool of worker processes: call a function in another process as easily as in a thread, get the
//! results back in order, and lose nothing when a process dies.
//!
//! ```standalone_crate
//! use coordinator::Pool;
//! use worker::task;
//!
//! /// Squares a number.
//! #[task]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     worker::init(); // lets one program be both sides
//!     let pool = Pool::new(2)?;
//!     assert_eq!(pool.map(square, 1..=4)?, [1, 4, 9, 16]);
//!     Ok(())
//! }
//! ```
//!
//! [`Pool`] runs calls in a fixed number of worker processes, [`Process`] runs one function in a
//! process of its own. What each module is for stands in `ARCHITECTURE.md`.

mod board;
mod buffers;
mod condition;
mod courier;
mod data;
mod error;
mod launch;
#[cfg(test)]
mod model;
mod os;
mod output;
mod pool;
mod process;
mod program;
mod scheduler;
mod seat;
mod shared;
mod signals;
mod slot;
mod socket;
mod start;
mod stray;
mod supervisor;
/// What [`condition`] is made of.
mod sync {
    pub(crate) use std::sync::atomic::AtomicUsize;
    pub(crate) use std::sync::{Condvar, MutexGuard};
}
mod talk;
mod turn;
mod visitors;

pub use error::{CallError, Death, PoolError, Why};
pub use launch::ByHand;
pub use output::{Captured, Output};
pub use pool::{
    Builder, Inputs, NotYet, Order, Pending, Pool, Refused, Report, Reports, RunningCall, Stats,
    Stream, StreamUnordered, Text, ThreadedStream, Typed, With, Worker,
};
pub use process::{Child, Process};
pub use protocol::message::TaskInfo;
pub use stray::{Stray, StraySource};
pub use worker::{Described, Shared};

/// How many workers a pool has by default: as many as there are processors that this process may use, by its
/// affinity and its control group's quota, if it may open enough files.
///
/// ```
/// assert!(coordinator::available_workers() >= 1);
/// ```
#[must_use]
pub fn available_workers() -> usize {
    processors().min(pool::most_workers()).max(1)
}

/// How many processors this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
