//! Who waits for a map, or for a single call: threads, or the waker of a task of the host's async runtime.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::condition::Condition;

/// Who waits for a map, or for a single call.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    pub(super) changed: Condition,
    waker: Mutex<Option<Waker>>,
}

impl Watcher {
    /// Waits for a change of the map, for at most `limit`.
    pub(crate) fn wait<'s, T>(
        &self,
        state: MutexGuard<'s, T>,
        limit: Option<Duration>,
    ) -> MutexGuard<'s, T> {
        self.changed.wait(state, limit)
    }

    /// Tells everyone who waits for the map to look again.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Whom to wake at the next change. The caller must not hold the state: cloning a waker and dropping
    /// one run the host's code, and that code may use the pool.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let waker = waker.clone();
        // The lock is gone at the end of this statement; the old waker is dropped after it.
        let replaced = self.waker().replace(waker);
        drop(replaced);
    }

    pub(super) fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
