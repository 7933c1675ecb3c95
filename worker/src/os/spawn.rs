//! Starting a process for what its start costs, and no more.
//!
//! `fork` copies the page tables of this process for the new one, and each page again that this process writes to
//! meanwhile: a tenth of what a command costs that does nothing. std does without it, but not where something of
//! one's own is to be done in the new process before it becomes the program (`pre_exec`), and here its lifeline
//! is armed. So this does as C's `posix_spawn` does: the new process borrows this one's memory, and the
//! thread that starts it waits until it has given it back, by becoming the program or by ending.
//!
//! Coordinators start workers with it, and workers start commands.
#![expect(unsafe_code, reason = "a process that borrows another's memory")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

/// The stack of the new process until it has one of its own, in words of 16 bytes: no signal is handled on it.
const STACK_WORDS: usize = (64 << 10) / 16;
/// Who reads a script that does not say so.
const SHELL: &CStr = c"/bin/sh";

/// What a new process is to run.
#[derive(Debug)]
pub enum Image {
    /// What stands under this path when it starts.
    Path(CString),
    /// This file, whatever has become of its path.
    File(OwnedFd),
}

impl Image {
    /// What stands under a path.
    ///
    /// # Errors
    ///
    /// There is a zero byte in it.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Image::Path(CString::new(path.as_os_str().as_bytes())?))
    }
}

/// A program that is to become a process, with its words and its environment.
#[derive(Debug)]
pub struct Spawn<'i> {
    image: &'i Image,
    words: Vec<CString>,
    /// `NAME=value`.
    env: Vec<CString>,
}

/// What the new process does before it becomes the program.
pub struct Plan<'p> {
    /// What it reads.
    pub stdin: BorrowedFd<'p>,
    /// Where it writes.
    pub stdout: BorrowedFd<'p>,
    /// The same for stderr, if not where this process does.
    pub stderr: Option<BorrowedFd<'p>>,
    /// It may call the system, and do nothing else: this process's other threads go on in the same memory, so it
    /// must not write to any of it, allocate, take a lock or panic.
    pub prepare: &'p dyn Fn() -> io::Result<()>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// Its number.
    pub pid: Pid,
    /// It, whoever has the number by then. Readable from its death on.
    pub pidfd: OwnedFd,
}

impl<'i> Spawn<'i> {
    /// Of words, the first of which is what the program calls itself, and an environment.
    ///
    /// # Errors
    ///
    /// One of them has a zero byte in it.
    pub fn new<'w>(
        image: &'i Image,
        words: impl Iterator<Item = &'w [u8]>,
        env: impl Iterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let setting = |(name, value): (OsString, OsString)| setting(&name, &value);
        Ok(Spawn {
            image,
            words: words.map(CString::new).collect::<Result<_, _>>()?,
            env: env.map(setting).collect::<Result<_, _>>()?,
        })
    }

    /// Starts it, with all signals unblocked, and each doing what it does by default.
    ///
    /// # Errors
    ///
    /// What the system says, or `prepare`.
    pub fn start(&self, plan: &Plan<'_>) -> io::Result<Started> {
        let words: Vec<_> = self.words.iter().map(CString::as_c_str).collect();
        match (self.try_start(self.image, &words, plan), self.image) {
            (Err(error), Image::Path(program)) if error.raw_os_error() == Some(libc::ENOEXEC) => {
                let script = [SHELL, program].into_iter();
                let words: Vec<_> = script.chain(words.into_iter().skip(1)).collect();
                self.try_start(&Image::Path(SHELL.to_owned()), &words, plan)
            }
            (started, _) => started,
        }
    }

    fn try_start(&self, image: &Image, words: &[&CStr], plan: &Plan<'_>) -> io::Result<Started> {
        let words = pointers(words.iter().copied());
        let env = pointers(self.env.iter().map(CString::as_c_str));
        let signals = Blocked::all();
        let mut birth = Birth {
            plan,
            image,
            words: &words,
            env: &env,
            error: None,
        };
        let mut stack = Vec::<MaybeUninit<u128>>::with_capacity(STACK_WORDS);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
        let mut pidfd: c_int = -1;
        // SAFETY: the stack is large enough and its end aligned. When `clone` returns here the new process has
        // given back what it borrows, by `execve` or by ending, so none of it is gone or used by two at once: not
        // `birth`, the stack, or what belongs to this thread. No signal is handled in between, in this process's
        // memory, except the two that C keeps for itself and sends to threads of its own process only. There is
        // room for the descriptor that the system writes.
        let pid = unsafe {
            let birth = (&raw mut birth).cast();
            libc::clone(born, top.cast(), flags, birth, &raw mut pidfd)
        };
        let error = io::Error::last_os_error();
        drop(signals);
        // It is -1 if there is no new process, and never 0 here.
        let pid = Pid::from_raw(pid.max(0)).ok_or(error)?;
        // SAFETY: the system has just opened it for this.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        match birth.error {
            None => Ok(Started {
                pid,
                pidfd: above_stdio(pidfd)?,
            }),
            Some(error) => {
                // If it can't be reaped, somebody else has done it.
                let _ = reap(pid);
                Err(error)
            }
        }
    }
}

/// The same open file under a number that is none of the standard streams'. A process may have closed those, and
/// then every new file takes the place of one.
///
/// # Errors
///
/// There are too many open files.
pub fn above_stdio(fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let fd = fd.into();
    match fd.as_raw_fd() {
        0..=2 => Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?),
        _ => Ok(fd),
    }
}

/// Has all files that are open in a new process, but for its standard streams, closed when it becomes the program.
/// For [`Plan::prepare`].
///
/// # Errors
///
/// The system is older than Linux 5.11, and does not know how to.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: a plain call. It concerns this new process's descriptors alone.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, c_int::MAX, CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const CLOSE_RANGE_CLOEXEC: c_int = 4;

/// Waits for a child's end, after which its number may be another's.
pub(crate) fn reap(pid: Pid) -> io::Result<WaitStatus> {
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

/// What the new process needs to become the program, and what it leaves if that fails.
struct Birth<'b> {
    plan: &'b Plan<'b>,
    image: &'b Image,
    words: &'b [*const c_char],
    env: &'b [*const c_char],
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
        // None of these is below 3: whoever opened them saw to that.
        rustix::stdio::dup2_stdin(self.plan.stdin)?;
        rustix::stdio::dup2_stdout(self.plan.stdout)?;
        if let Some(stderr) = self.plan.stderr {
            rustix::stdio::dup2_stderr(stderr)?;
        }
        // SAFETY: an empty set of this function's own; and the lists end with a null, as `execve` wants.
        unsafe {
            let mut none: libc::sigset_t = zeroed();
            libc::sigemptyset(&raw mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            let (words, env) = (self.words.as_ptr(), self.env.as_ptr());
            match self.image {
                Image::Path(path) => _ = libc::execve(path.as_ptr(), words, env),
                Image::File(file) => {
                    let (file, empty) = (file.as_raw_fd(), c"".as_ptr());
                    libc::syscall(
                        libc::SYS_execveat,
                        file,
                        empty,
                        words,
                        env,
                        libc::AT_EMPTY_PATH,
                    );
                }
            }
        }
        Err(io::Error::last_os_error())
    }
}

/// Signals do what they do by default: neither this process's handlers nor what it ignores are the program's
/// affair.
fn reset_signals() {
    // SAFETY: plain calls; what is zero is the default, without flags.
    unsafe {
        let default: libc::sigaction = zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            let mut now: libc::sigaction = zeroed();
            // It refuses the two that C keeps for itself.
            let is_known = libc::sigaction(signal, ptr::null(), &raw mut now) == 0;
            if is_known && now.sa_sigaction != libc::SIG_DFL {
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

/// While it lives this thread hears no signal; those that come wait.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    pub(crate) fn all() -> Self {
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
