//! Signal handlers that work for one thread.
#![expect(unsafe_code, reason = "signals to a thread")]

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// The thread that runs calls. The signal handlers read its state and interrupt its waits.
///
/// The system delivers a signal to any thread that does not block it. On another thread, a handler could use a
/// descriptor or group that this thread is giving up at that moment, and it would not interrupt this thread's wait.
#[derive(Debug)]
pub(super) struct CallThread(AtomicI32);

impl CallThread {
    pub(super) const fn new() -> Self {
        CallThread(AtomicI32::new(0))
    }

    /// Makes the calling thread the one that handlers work for.
    pub(super) fn is_this(&self) {
        self.0.store(this(), SeqCst);
    }

    /// For use in a handler. Returns whether the handler runs on that thread. If it does not, this passes the signal on to
    /// that thread.
    pub(super) fn is_here(&self, signal: libc::c_int) -> bool {
        let thread = self.0.load(SeqCst);
        // SAFETY: plain calls, allowed in a handler. If the thread is gone, the current thread does the work.
        thread == this()
            || unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) } != 0
    }
}

fn this() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}
