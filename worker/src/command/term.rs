//! Handles SIGTERM while a command runs that has a process group of its own.
//!
//! A coordinator ends a worker by SIGTERM to the worker's group. A command is not in that group, so the worker
//! passes the signal on, waits until the command has ended, and only then dies of the signal itself.
#![expect(unsafe_code, reason = "a signal handler")]

use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use rustix::process::{Pid, Signal, kill_process_group};

use super::handler::CallThread;
use super::orphans;

/// SIGTERM ends the worker, as by default.
const IDLE: i32 = 0;
/// SIGTERM is kept until there is a group to pass it on to, or until the end.
const HELD: i32 = -1;

/// One of the two values above, or the group that SIGTERM is passed on to.
static GROUP: AtomicI32 = AtomicI32::new(IDLE);
/// Whether a SIGTERM has arrived that was not passed on yet.
static PENDING: AtomicBool = AtomicBool::new(false);
/// The thread that the group belongs to.
static THREAD: CallThread = CallThread::new();
/// Whether a SIGTERM has arrived. The worker dies of it at the end.
static CAME: AtomicBool = AtomicBool::new(false);

/// While this value lives, SIGTERM does not end the worker. If one has arrived, the worker dies when the value is dropped.
/// Only one exists at a time, because calls run on one thread.
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

    /// Passes SIGTERM on to a group from now on, also one that has arrived before.
    pub(crate) fn pass_on_to(&self, group: Pid) {
        GROUP.store(group.as_raw_nonzero().get(), SeqCst);
        pass_on_pending();
    }

    /// Keeps SIGTERM from now on. Call it before reaping the group's leader, after which the number may be another group's.
    pub(crate) fn keep(&self) {
        GROUP.store(HELD, SeqCst);
    }

    /// Whether a SIGTERM has arrived.
    pub(crate) fn came(&self) -> bool {
        CAME.load(SeqCst)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A signal that arrives after this line ends the worker from within the handler.
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
            return; // the process that started this one ignored it, and wants commands to ignore it, too
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_term as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGTERM, &raw const action, ptr::null_mut());
    }
}

/// The handler uses only atomics and system calls. It must not change `errno` in the interrupted code, so it uses rustix,
/// whose calls do not touch `errno`.
extern "C" fn on_term(signal: libc::c_int) {
    match GROUP.load(SeqCst) {
        IDLE => die(),
        // On another thread, the group could be another's by the time the signal is passed on.
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
        // A stopped process would receive SIGTERM only when it is continued.
        let _ = kill_process_group(group, Signal::CONT);
    }
}

/// Dies of SIGTERM. Within the handler, that happens when the handler returns.
fn die() {
    // SAFETY: plain calls, allowed in a handler.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        libc::raise(libc::SIGTERM);
    }
}
