//! A condition to wait for, which costs nothing to signal while nobody waits.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

// std's, or those of the model that tries all orders: see `model.rs`.
use super::sync::{AtomicUsize, Condvar, MutexGuard};

/// A [`Condvar`] that knows whether anybody waits: std's asks the kernel each time, and a single call
/// signals half a dozen times.
/// All waiters of one condition use the same mutex. A thread that signals has held that mutex since it made the
/// change that the waiters wait for.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    condvar: Condvar,
    /// How many wait. Only holders of the mutex change it, so a signaller sees every waiter that came before it, and
    /// a waiter that comes later sees the change itself.
    waiting: AtomicUsize,
}

impl Condition {
    /// Waits for a signal, for at most `limit`. It may wake without one, as any condition variable may.
    pub(crate) fn wait<'s, T>(
        &self,
        guard: MutexGuard<'s, T>,
        limit: Option<Duration>,
    ) -> MutexGuard<'s, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = match limit {
            Some(limit) => {
                let waited = self.condvar.wait_timeout(guard, limit);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.condvar.wait(guard);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Wakes one of those who wait.
    pub(crate) fn notify_one(&self) {
        if self.is_awaited() {
            self.condvar.notify_one();
        }
    }

    /// Wakes all who wait.
    pub(crate) fn notify_all(&self) {
        if self.is_awaited() {
            self.condvar.notify_all();
        }
    }

    fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}
