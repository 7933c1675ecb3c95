//! What workers' process groups are told: decided while the state is held, and done when it is not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::os::{GroupSignal, WorkerProcess};
use crate::scheduler::Stage;

/// Signals that were decided and not sent yet.
///
/// To stop or kill all that a worker has started means to look through `/proc`, which takes milliseconds on a busy
/// machine: nobody else is to wait for that. They are sent in the order in which they were decided, so that a worker
/// that is stopped and continued ends as one that runs.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    decided: Mutex<VecDeque<(Arc<WorkerProcess>, GroupSignal)>>,
    /// Held by whoever sends.
    sending: Mutex<()>,
}

impl Signals {
    /// Decides that a worker is told something. Whoever decides has to [send](Self::send) as soon as he has let go of
    /// the state. To ask it to end is done at once: it may be done with its call a moment later, and run another.
    pub(crate) fn decide(&self, process: &Arc<WorkerProcess>, stage: Stage) {
        let signal = match stage {
            Stage::Term => return process.signal(GroupSignal::Term),
            Stage::Kill => GroupSignal::Kill,
            Stage::Stop => GroupSignal::Stop,
            Stage::Continue => GroupSignal::Continue,
        };
        lock(&self.decided).push_back((Arc::clone(process), signal));
    }

    /// Sends what was decided. When it returns, all that was decided before has been sent.
    pub(crate) fn send(&self) {
        let _sending = lock(&self.sending);
        loop {
            // In a statement of its own: the lock is not held meanwhile.
            let next = lock(&self.decided).pop_front();
            match next {
                Some((process, signal)) => process.signal(signal),
                None => return,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
