//! Signal handlers that work for one thread.
#![expect(unsafe_code, reason = "signals to a thread")]

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// The thread that runs calls: the handlers look at what it does, and interrupt it.
///
/// The system gives a signal to whichever thread does not block it. On another one a handler could use what this one
/// is about to give up, a file's number or a group's, and would interrupt nothing that this one waits for.
#[derive(Debug)]
pub(super) struct CallThread(AtomicI32);

impl CallThread {
    pub(super) const fn new() -> Self {
        CallThread(AtomicI32::new(0))
    }

    /// It is this one.
    pub(super) fn is_this(&self) {
        self.0.store(this(), SeqCst);
    }

    /// Called in a handler, on any thread: whether it is this one. If not, that one gets the signal, too.
    pub(super) fn is_here(&self, signal: libc::c_int) -> bool {
        let thread = self.0.load(SeqCst);
        // SAFETY: plain calls, allowed in a handler. For a thread that is gone this one does it.
        thread == this()
            || unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) } != 0
    }
}

fn this() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}
