//! A condition to wait for, which costs nothing to signal while nobody waits.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

// std's, or those of the model that tries all orders: see `model.rs`.
use super::sync::{AtomicUsize, Condvar, MutexGuard};

/// A [`Condvar`] that knows whether anybody waits: std's asks the kernel each time, and a single call
/// signals half a dozen times.
///
/// All that wait at one hold the same mutex when they begin to. Whoever signals has held it since he
/// changed what they wait for.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    condvar: Condvar,
    /// Changed only by those who hold the mutex. So whoever takes it later sees who waits, and those who
    /// come later see what was changed.
    waiting: AtomicUsize,
}

impl Condition {
    /// Waits for a signal, for at most `limit`. As with any, it may return without one.
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
