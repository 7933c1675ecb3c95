//! What a running call can learn of itself.

use std::cell::Cell;

/// The call that is running on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Current {
    /// The slot of the pool this worker fills, counted from 1.
    pub worker: u32,
    /// The call's index in its map, from 0.
    pub index: u64,
    /// Which try of the call this is, from 1.
    pub attempt: u32,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// The call that this thread is running; `None` outside of a worker, and on other threads of one.
///
/// ```
/// assert_eq!(worker::current(), None); // this is no worker
/// ```
#[must_use]
pub fn current() -> Option<Current> {
    CURRENT.get()
}

pub(crate) fn set(current: Option<Current>) {
    CURRENT.set(current);
}
