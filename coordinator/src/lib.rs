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
//! [`Pool`] runs calls in a fixed number of worker processes, [`Process`] runs one function in a
//! process of its own. What each module is for stands in `ARCHITECTURE.md`.

#[cfg(any(test, feature = "agents"))]
#[cfg_attr(not(test), expect(dead_code, reason = "nobody speaks to a broker"))]
mod agents;
mod engine;
mod error;
mod os;
mod payload;
mod pool;
mod scheduler;
mod workers;

pub use engine::running::RunningCall;
pub use engine::stray::{Stray, StraySource};
pub use error::{CallError, Death, PoolError, Why};
pub use payload::printed::{Captured, Output};
pub use pool::{
    Builder, Child, Inputs, NotYet, Order, Pending, Pool, Process, Refused, Report, Reports, Stats,
    Stream, StreamUnordered, Text, ThreadedStream, Typed, With, Worker, available_workers,
};
pub use protocol::message::TaskInfo;
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
