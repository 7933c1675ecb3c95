//! SIGTERM, while a command runs that has a process group of its own.
//!
//! A coordinator ends a worker by SIGTERM to the worker's group. A command is not in it, so the worker
//! passes the signal on, waits for what the command makes of it, and only then dies of it itself.
#![expect(unsafe_code, reason = "a signal handler")]

use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use rustix::process::{Pid, Signal, kill_process_group};

use super::handler::CallThread;
use super::orphans;

/// SIGTERM ends the worker, as by default.
const IDLE: i32 = 0;
/// It is kept until there is a group to pass it on to, or until the end.
const HELD: i32 = -1;

/// One of the above, or the group that SIGTERM is passed on to.
static GROUP: AtomicI32 = AtomicI32::new(IDLE);
/// A SIGTERM came, and is not passed on yet.
static PENDING: AtomicBool = AtomicBool::new(false);
/// Whose group it is.
static THREAD: CallThread = CallThread::new();
/// A SIGTERM came: the worker dies of it when it is let go.
static CAME: AtomicBool = AtomicBool::new(false);

/// As long as it lives SIGTERM does not end the worker; it does when this is dropped, if it came. There
/// is one of it at a time: calls run on one thread.
#[derive(Debug)]
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn new() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        THREAD.is_this();
        GROUP.store(HELD, SeqCst);
        Hold(())
    }

    /// Passes SIGTERM on to a group from now on, and what came before.
    pub(crate) fn pass_on_to(&self, group: Pid) {
        GROUP.store(group.as_raw_nonzero().get(), SeqCst);
        pass_on_pending();
    }

    /// Keeps it from now on. Before the group's leader is reaped: then its number is free for others.
    pub(crate) fn keep(&self) {
        GROUP.store(HELD, SeqCst);
    }

    /// Whether a SIGTERM came.
    pub(crate) fn came(&self) -> bool {
        CAME.load(SeqCst)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A signal that comes after this line ends the worker from within the handler.
        GROUP.store(IDLE, SeqCst);
        if CAME.load(SeqCst) {
            orphans::end();
            die();
        }
    }
}

fn install() {
    // SAFETY: plain calls; the handler only does what is allowed in one.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGTERM, ptr::null(), &raw mut before) != 0
            || before.sa_sigaction == libc::SIG_IGN
        {
            return; // whoever started this process wishes it to be ignored, by commands, too
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_term as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGTERM, &raw const action, ptr::null_mut());
    }
}

/// Only atomics and system calls, and none that leaves an `errno` behind in the code it interrupts:
/// rustix makes its calls without one.
extern "C" fn on_term(signal: libc::c_int) {
    match GROUP.load(SeqCst) {
        IDLE => die(),
        // Otherwise the group could be another's by the time it is told.
        _ if !THREAD.is_here(signal) => {}
        HELD => {
            CAME.store(true, SeqCst);
            PENDING.store(true, SeqCst);
        }
        _ => {
            CAME.store(true, SeqCst);
            pass_on();
        }
    }
}

fn pass_on_pending() {
    if PENDING.swap(false, SeqCst) {
        pass_on();
    }
}

fn pass_on() {
    if let Some(group) = Pid::from_raw(GROUP.load(SeqCst).max(0)) {
        orphans::adopt();
        let _ = kill_process_group(group, Signal::TERM);
        // A stopped process would only hear of it when it is continued.
        let _ = kill_process_group(group, Signal::CONT);
    }
}

/// Dies of SIGTERM: within its handler, at the handler's end.
fn die() {
    // SAFETY: plain calls, allowed in a handler.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        libc::raise(libc::SIGTERM);
    }
}
