//! The workers of a run, before they are ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pool::Pool;

/// Workers that are being started, on a thread of their own: whoever waits for them can end them. An initializer may hang.
#[derive(Default, Clone)]
pub(super) struct Building(Arc<Mutex<Workers>>);

#[derive(Default)]
enum Workers {
    #[default]
    None,
    Starting(Arc<Pool>),
    Unwanted,
}

impl Building {
    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// There is a pool that starts them.
    pub(super) fn has(&self, pool: &Arc<Pool>) {
        let mut workers = self.workers();
        match *workers {
            Workers::Unwanted => {
                drop(workers);
                pool.terminate();
            }
            Workers::None | Workers::Starting(_) => *workers = Workers::Starting(Arc::clone(pool)),
        }
    }

    pub(super) fn end(&self) {
        let workers = std::mem::replace(&mut *self.workers(), Workers::Unwanted);
        if let Workers::Starting(pool) = workers {
            pool.terminate();
        }
    }
}
