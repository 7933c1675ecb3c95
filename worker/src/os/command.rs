//! Commands that calls run: each has a process group of its own, which dies with the worker.
#![expect(
    unsafe_code,
    reason = "a signal handler, and two settings of the lifeline that no safe wrapper offers"
)]

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Once, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// The process group that SIGTERM is passed on to; 0 if there is none.
static GROUP: AtomicI32 = AtomicI32::new(0);
/// SIGTERM has come meanwhile.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// A process that has been started in a group of its own. When this worker dies, however it does, the
/// kernel kills the group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) child: Child,
    pid: Pid,
}

impl Group {
    /// Starts a command.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(handle_sigterm);
        let lifeline = lifeline()?;
        // `process_group` keeps std on its fast path (posix_spawn), where `pre_exec` would not.
        let mut child = command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // A worker that is killed between these two lines leaves the command behind: some microseconds
        // in which nobody can know the group's number.
        match pid.map(|pid| arm(&lifeline, pid).map(|()| pid)) {
            Some(Ok(pid)) => Ok(Group { child, pid }),
            other => {
                let _ = child.kill();
                let _ = child.wait();
                let error = other.and_then(Result::err);
                Err(error.unwrap_or_else(|| io::Error::other("a process without a number")))
            }
        }
    }

    /// Does something while SIGTERM is passed on to the group. Ends the worker afterwards if one came
    /// and the group's leader has ended.
    pub(crate) fn heeding<T>(&mut self, work: impl FnOnce(&mut Child) -> T) -> T {
        GROUP.store(self.pid.as_raw_nonzero().get(), Ordering::SeqCst);
        let done = work(&mut self.child);
        GROUP.store(0, Ordering::SeqCst);
        if TERMINATED.load(Ordering::SeqCst) {
            // Whoever sent it waits for this worker to end.
            die_of_sigterm();
        }
        done
    }

    /// Waits for the process to end, and kills what it leaves behind of its group.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        let pid = self.pid;
        self.heeding(|child| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            // Until it is reaped, its number belongs to nobody else.
            while rustix::process::waitid(WaitId::Pid(pid), options)
                .is_err_and(|error| error == rustix::io::Errno::INTR)
            {}
            kill(pid);
            child.wait()
        })
    }

    /// Kills the group.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        kill(self.pid);
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that has been waited for has no group any more that is ours.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.kill();
        }
    }
}

fn kill(group: Pid) {
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
}

/// A fresh open file of a pipe whose other end only this worker holds, for a child to inherit. Which group
/// it kills is a setting of the open file, so each child needs its own.
fn lifeline() -> io::Result<OwnedFd> {
    static PIPE: OnceLock<(PipeReader, PipeWriter)> = OnceLock::new();
    let pipe = match PIPE.get() {
        Some(pipe) => pipe,
        None => {
            let made = io::pipe()?;
            PIPE.get_or_init(|| made)
        }
    };
    let path = format!("/proc/self/fd/{}", pipe.0.as_raw_fd());
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Not closed on exec, and above the numbers that shells use for themselves.
    let high = rustix::io::fcntl_dupfd_cloexec(&opened, 20)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(&opened, 10))?;
    rustix::io::fcntl_setfd(&high, FdFlags::empty())?;
    Ok(high)
}

/// Makes the kernel kill a process group when the pipe's other end closes.
fn arm(lifeline: &OwnedFd, group: Pid) -> io::Result<()> {
    const F_SETSIG: libc::c_int = 10;
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: plain settings of an open descriptor; nothing is read or written through them.
        match unsafe { libc::fcntl(lifeline.as_raw_fd(), command, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    set(libc::F_SETOWN, -group.as_raw_nonzero().get())?;
    set(F_SETSIG, libc::SIGKILL)?;
    let flags = rustix::fs::fcntl_getfl(lifeline)?;
    let asynchronous = OFlags::from_bits_retain(libc::O_ASYNC as u32);
    rustix::fs::fcntl_setfl(lifeline, flags | asynchronous)?;
    Ok(())
}

/// From now on SIGTERM is passed on to the command that runs, if one does.
fn handle_sigterm() {
    let handler: extern "C" fn(libc::c_int) = on_sigterm;
    // SAFETY: the handler does nothing but what signal-safety(7) allows; the structure is all zeros but
    // for what is set, which is valid for it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_sigterm(_signal: libc::c_int) {
    let group = GROUP.load(Ordering::SeqCst);
    if group == 0 {
        return die_of_sigterm();
    }
    TERMINATED.store(true, Ordering::SeqCst);
    // SAFETY: kill(2) is safe in a handler. The group's leader is not reaped while GROUP names it, but
    // for the last step of `wait`: then it is this worker's last signal, to a number just freed.
    unsafe {
        libc::kill(-group, libc::SIGTERM);
        libc::kill(-group, libc::SIGCONT);
    }
}

/// Ends this process as SIGTERM does where nobody handles it.
fn die_of_sigterm() {
    // SAFETY: all of these are safe in a handler.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::raise(libc::SIGTERM);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// The name of a signal: `SIGKILL`.
pub(crate) fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [(i32, &str); 26] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGSYS, "SIGSYS"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGIO, "SIGIO"),
        (libc::SIGPWR, "SIGPWR"),
        (libc::SIGSTKFLT, "SIGSTKFLT"),
        (libc::SIGSTOP, "SIGSTOP"),
        (libc::SIGTSTP, "SIGTSTP"),
        (libc::SIGCONT, "SIGCONT"),
    ];
    NAMES
        .iter()
        .find(|(named, _)| *named == number)
        .map(|(_, name)| *name)
}
