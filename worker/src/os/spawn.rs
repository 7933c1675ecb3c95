//! Starting a process for what its start costs, and no more.
//!
//! `fork` copies the worker's page tables for the new process, and each page again that the worker writes to
//! meanwhile: a tenth of what a command costs that does nothing. std does without it, but not where something of
//! one's own is to be done in the new process before it becomes the command (`pre_exec`), and here its lifeline
//! is armed. So this does as C's `posix_spawn` does: the new process borrows the worker's memory, and the
//! thread that starts it waits until it has given it back, by becoming the command or by ending.
#![expect(unsafe_code, reason = "a process that borrows another's memory")]

use std::convert::Infallible;
use std::env;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

/// The stack of the new process until it has one of its own, in words of 16 bytes: no signal is handled on it.
const STACK_WORDS: usize = (64 << 10) / 16;
/// Who reads a script that does not say so.
const SHELL: &CStr = c"/bin/sh";

/// A command that is to become a process.
#[derive(Debug)]
pub(crate) struct Spawn {
    program: CString,
    words: Vec<CString>,
    /// `NAME=value`.
    env: Vec<CString>,
}

/// What the new process does before it becomes the command.
pub(super) struct Plan<'p> {
    /// What it reads.
    pub(super) stdin: BorrowedFd<'p>,
    /// Where it writes.
    pub(super) stdout: BorrowedFd<'p>,
    /// The same for stderr, if not where the worker does.
    pub(super) stderr: Option<BorrowedFd<'p>>,
    /// It may call the system, and do nothing else: the worker's other threads go on in the same memory, so it must
    /// not write to any of it, allocate, take a lock or panic.
    pub(super) prepare: &'p dyn Fn() -> io::Result<()>,
}

impl Spawn {
    /// Of words, the first of which is what the program calls itself. The environment is the worker's, with some
    /// variables set, and without one.
    ///
    /// # Errors
    ///
    /// One of them has a zero byte in it.
    pub(crate) fn new<'w>(
        program: &Path,
        words: impl Iterator<Item = &'w [u8]>,
        set: &[(&str, String)],
        without: &str,
    ) -> io::Result<Self> {
        let inherited = env::vars_os()
            .filter(|(name, _)| name != without && set.iter().all(|(other, _)| name != other))
            .map(|(name, value)| setting(&name, &value));
        let set = set
            .iter()
            .map(|(name, value)| setting(name.as_ref(), value.as_ref()));
        Ok(Spawn {
            program: CString::new(program.as_os_str().as_bytes())?,
            words: words.map(CString::new).collect::<Result<_, _>>()?,
            env: inherited.chain(set).collect::<Result<_, _>>()?,
        })
    }

    /// Starts it.
    pub(super) fn start(&self, plan: &Plan<'_>) -> io::Result<Pid> {
        let words: Vec<_> = self.words.iter().map(CString::as_c_str).collect();
        match self.try_start(&self.program, &words, plan) {
            Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                let script = [SHELL, &self.program].into_iter();
                let words: Vec<_> = script.chain(words.into_iter().skip(1)).collect();
                self.try_start(SHELL, &words, plan)
            }
            started => started,
        }
    }

    fn try_start(&self, program: &CStr, words: &[&CStr], plan: &Plan<'_>) -> io::Result<Pid> {
        let words = pointers(words.iter().copied());
        let env = pointers(self.env.iter().map(CString::as_c_str));
        let signals = Blocked::all();
        let mut birth = Birth {
            plan,
            program,
            words: &words,
            env: &env,
            mask: signals.0,
            error: None,
        };
        let mut stack = Vec::<MaybeUninit<u128>>::with_capacity(STACK_WORDS);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
        // SAFETY: the stack is large enough and its end aligned. When `clone` returns here the new process has
        // given back what it borrows, by `execve` or by ending, so none of it is gone or used by two at once: not
        // `birth`, the stack, or what belongs to this thread. No signal is handled in between, in the worker's
        // memory, except the two that C keeps for itself and sends to threads of its own process only.
        let pid = unsafe { libc::clone(born, top.cast(), flags, (&raw mut birth).cast()) };
        let error = io::Error::last_os_error();
        drop(signals);
        // It is -1 if there is no new process, and never 0 here.
        let pid = Pid::from_raw(pid.max(0)).ok_or(error)?;
        match birth.error {
            None => Ok(pid),
            Some(error) => {
                // If it can't be reaped, somebody else has done it.
                let _ = reap(pid);
                Err(error)
            }
        }
    }
}

/// Waits for a child's end, after which its number may be another's.
pub(super) fn reap(pid: Pid) -> io::Result<WaitStatus> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            // A signal came in between; and without NOHANG there is always somebody.
            Err(Errno::INTR) | Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn setting(name: &OsStr, value: &OsStr) -> Result<CString, std::ffi::NulError> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// As C has lists of words.
fn pointers<'w>(words: impl Iterator<Item = &'w CStr>) -> Vec<*const c_char> {
    words.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// What the new process needs to become the command, and what it leaves if that fails.
struct Birth<'b> {
    plan: &'b Plan<'b>,
    program: &'b CStr,
    words: &'b [*const c_char],
    env: &'b [*const c_char],
    /// Which signals the command has blocked: those that the worker has.
    mask: libc::sigset_t,
    error: Option<io::Error>,
}

/// Where the new process begins. What it returns is its exit code, which nobody looks at.
extern "C" fn born(birth: *mut c_void) -> c_int {
    // SAFETY: it is the `Birth` of whoever called `clone`, and waits there.
    let birth = unsafe { &mut *birth.cast::<Birth<'_>>() };
    let Err(error) = birth.become_command();
    birth.error = Some(error);
    127
}

impl Birth<'_> {
    fn become_command(&self) -> io::Result<Infallible> {
        reset_signals();
        (self.plan.prepare)()?;
        // None of these is below 3: whoever starts a worker gives it all three, or the runtime opens them.
        rustix::stdio::dup2_stdin(self.plan.stdin)?;
        rustix::stdio::dup2_stdout(self.plan.stdout)?;
        if let Some(stderr) = self.plan.stderr {
            rustix::stdio::dup2_stderr(stderr)?;
        }
        // SAFETY: a set that was there before; and the lists end with a null, as `execve` wants.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
            let (words, env) = (self.words.as_ptr(), self.env.as_ptr());
            libc::execve(self.program.as_ptr(), words, env);
        }
        Err(io::Error::last_os_error())
    }
}

/// Signals do what they do by default, unless they are ignored: the worker's handlers are not the command's. A
/// broken pipe ends it; that Rust's own programs ignore those is no affair of the command.
fn reset_signals() {
    // SAFETY: plain calls; what is zero is the default, without flags.
    unsafe {
        let default: libc::sigaction = zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            let mut now: libc::sigaction = zeroed();
            // It refuses the two that C keeps for itself.
            let is_known = libc::sigaction(signal, ptr::null(), &raw mut now) == 0;
            let is_ignored = now.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
            if is_known && !is_ignored && now.sa_sigaction != libc::SIG_DFL {
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

/// While it lives this thread hears no signal; those that come wait.
pub(super) struct Blocked(libc::sigset_t);

impl Blocked {
    pub(super) fn all() -> Self {
        // SAFETY: both sets are this function's own.
        unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (zeroed(), zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Blocked(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set that was there before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut());
        }
    }
}
