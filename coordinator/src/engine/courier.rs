//! A thread for what may block or panic, because code of the host is in it, or the host's stdout: the pool
//! itself waits for neither.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the thread stays when there is nothing to do: starting one costs more than keeping it.
const STAYS: Duration = Duration::from_secs(1);

type Errand = Box<dyn FnOnce() + Send>;

/// Runs errands one after another, on a thread that it starts when there is one to run. Nobody joins that
/// thread: after the courier is dropped, it runs the errands that are left, and ends.
#[derive(Debug)]
pub(crate) struct Courier {
    desk: Arc<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    /// The courier's name.
    name: &'static str,
    errands: Mutex<Errands>,
    changed: Condvar,
}

#[derive(Default)]
struct Errands {
    waiting: VecDeque<Errand>,
    /// A thread exists, and will look at the errands that wait.
    has_thread: bool,
    /// The thread is running an errand.
    busy: bool,
    /// The courier is gone.
    closed: bool,
}

impl std::fmt::Debug for Errands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errands")
            .field("waiting", &self.waiting.len())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl Courier {
    pub(crate) fn new(name: &'static str) -> Self {
        Courier {
            desk: Arc::new(Desk {
                name,
                ..Desk::default()
            }),
        }
    }

    /// Has an errand run soon, after those that were sent before.
    pub(crate) fn send(&self, errand: impl FnOnce() + Send + 'static) {
        self.hold(errand);
        self.go();
    }

    /// Takes an errand, which is run after the next [`go`](Self::go) at the latest. This waits for nothing.
    pub(crate) fn hold(&self, errand: impl FnOnce() + Send + 'static) {
        self.desk.errands().waiting.push_back(Box::new(errand));
    }

    /// Sees to it that the errands are run.
    pub(crate) fn go(&self) {
        let mut errands = self.desk.errands();
        if errands.has_thread {
            drop(errands);
            return self.desk.changed.notify_all();
        }
        errands.has_thread = true;
        drop(errands);
        let desk = Arc::clone(&self.desk);
        let thread = thread::Builder::new().name(self.desk.name.to_owned());
        if let Err(error) = thread.spawn(move || desk.run(STAYS)) {
            log::warn!(
                "there is no thread to be the pool's {}: {error}",
                self.desk.name
            );
            self.desk.run(Duration::ZERO);
        }
    }

    /// Waits until all errands have been run, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let began = Instant::now();
        let mut errands = self.desk.errands();
        while errands.busy || !errands.waiting.is_empty() {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            errands = self.desk.wait(errands, left);
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.desk.errands().closed = true;
        self.desk.changed.notify_all();
    }
}

impl Desk {
    fn errands(&self) -> MutexGuard<'_, Errands> {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(
        &self,
        errands: MutexGuard<'s, Errands>,
        limit: Duration,
    ) -> MutexGuard<'s, Errands> {
        let waited = self.changed.wait_timeout(errands, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Runs errands until there has been none for as long as the thread stays.
    fn run(&self, stays: Duration) {
        while let Some(errand) = self.next(stays) {
            run(errand, self.name);
        }
    }

    /// The next errand; `None` ends the thread.
    fn next(&self, stays: Duration) -> Option<Errand> {
        let mut errands = self.errands();
        errands.busy = false;
        if errands.waiting.is_empty() {
            self.changed.notify_all();
        }
        let idle_since = Instant::now();
        loop {
            if let Some(errand) = errands.waiting.pop_front() {
                errands.busy = true;
                return Some(errand);
            }
            let left = stays.saturating_sub(idle_since.elapsed());
            if errands.closed || left.is_zero() {
                errands.has_thread = false;
                return None;
            }
            errands = self.wait(errands, left);
        }
    }
}

/// Runs one errand, which may panic.
fn run(errand: Errand, name: &str) {
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(errand)) {
        // Its destructor is the host's code, too.
        std::mem::forget(panic);
        // So is the logger.
        let _ = panic::catch_unwind(|| log::error!("an errand of the pool's {name} panicked"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn errands_run_in_order_also_behind_one_that_panics_and_after_the_courier() {
        let courier = Courier::new("test");
        let (sender, receiver) = mpsc::channel();
        let (gate, closed) = mpsc::channel::<()>();
        courier.send(move || _ = closed.recv());
        courier.send(|| panic!("an errand panics, as the test wants"));
        for number in 0..3 {
            let sender = sender.clone();
            courier.send(move || _ = sender.send(number));
        }
        // The first errand holds the thread up.
        courier.wait(Duration::from_millis(1));
        drop(sender);
        drop(courier);
        drop(gate);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn whoever_waits_hears_when_all_are_done() {
        let courier = Courier::new("test");
        let (sender, receiver) = mpsc::channel();
        courier.send(move || _ = sender.send(()));
        courier.wait(Duration::from_secs(60));
        assert_eq!(receiver.try_recv(), Ok(()));
    }
}
