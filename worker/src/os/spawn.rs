//! Starting a process without the cost of `fork`.
//!
//! `fork` copies the page tables of this process, and then each page that this process writes to
//! meanwhile. That is a tenth of the cost of a command that does nothing. std avoids `fork`, but not with
//! `pre_exec`, and the new process has to arm its lifeline before it becomes the program.
//! So this module does what C's `posix_spawn` does: the new process borrows this one's memory, and the
//! starting thread waits until the new process has become the program or has ended.
//!
//! Coordinators start workers with it, and workers start commands.
#![expect(unsafe_code, reason = "a process that borrows another's memory")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

pub use super::vfork::Ignored;
use super::vfork::vfork;

/// The interpreter of a script without a `#!` line.
const SHELL: &CStr = c"/bin/sh";

/// The program that a new process becomes.
#[derive(Debug)]
pub enum Image {
    /// The file under this path at the time of the start.
    Path(CString),
    /// This open file, even if its path now leads elsewhere.
    File(OwnedFd),
}

impl Image {
    /// The program under a path.
    ///
    /// # Errors
    ///
    /// The path has a zero byte in it.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Image::Path(CString::new(path.as_os_str().as_bytes())?))
    }
}

/// A program with the arguments and the environment for its start.
#[derive(Debug)]
pub struct Spawn<'i> {
    image: &'i Image,
    words: Vec<CString>,
    /// `NAME=value`.
    env: Vec<CString>,
}

/// The setup of a new process before it becomes the program.
pub struct Plan<'p> {
    /// The descriptor that becomes its stdin.
    pub stdin: BorrowedFd<'p>,
    /// The descriptor that becomes its stdout.
    pub stdout: BorrowedFd<'p>,
    /// The descriptor that becomes its stderr. Without one, it keeps this process's.
    pub stderr: Option<BorrowedFd<'p>>,
    /// All signals that this process ignores.
    pub ignored: Ignored,
    /// Runs in the new process. It may make system calls, and nothing else: this process's other threads go on in the
    /// same memory, so it must not write to memory, allocate, take a lock or panic.
    pub prepare: &'p dyn Fn() -> io::Result<()>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: Pid,
    /// A pidfd, which never refers to another process. It is readable once the process has died.
    pub pidfd: OwnedFd,
}

impl<'i> Spawn<'i> {
    /// Makes a plan from the arguments, of which the first is the program's name for itself, and the environment.
    ///
    /// # Errors
    ///
    /// One of these strings has a zero byte in it.
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

    /// Starts the program with all signals unblocked and at their default actions.
    ///
    /// # Errors
    ///
    /// The errors of the system calls, and of `prepare`.
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
        // SAFETY: all signals are blocked. `born` only makes system calls, and a `Birth` is what it expects.
        let made = unsafe { vfork(born, (&raw mut birth).cast(), plan.ignored) };
        drop(signals);
        let (pid, pidfd) = made?;
        match birth.error {
            None => Ok(Started {
                pid,
                pidfd: above_stdio(pidfd)?,
            }),
            Some(error) => {
                // If reaping fails, somebody else has reaped it.
                let _ = reap(pid);
                Err(error)
            }
        }
    }
}

/// Moves a descriptor to a number above the standard streams'. If a process has closed those, every new file takes the
/// number of one of them.
///
/// # Errors
///
/// The process has too many open files.
pub fn above_stdio(fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    above(libc::STDERR_FILENO, fd)
}

/// Moves a descriptor to a number above another, if it is not.
pub(crate) fn above(other: c_int, fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let fd = fd.into();
    match fd.as_raw_fd() > other {
        true => Ok(fd),
        false => Ok(rustix::io::fcntl_dupfd_cloexec(&fd, other + 1)?),
    }
}

/// Makes the system close all descriptors of a new process, except its standard streams, when it becomes the program.
/// For [`Plan::prepare`].
///
/// # Errors
///
/// The system is older than Linux 5.11, and lacks this call.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: a plain call. It changes the descriptors of this new process alone.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, c_int::MAX, CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const CLOSE_RANGE_CLOEXEC: c_int = 4;

/// Waits for a child's end and reaps it. Afterwards another process may have its id.
pub(crate) fn reap(pid: Pid) -> io::Result<WaitStatus> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            // A signal has interrupted the wait. `None` can't come without NOHANG.
            Err(Errno::INTR) | Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn setting(name: &OsStr, value: &OsStr) -> Result<CString, std::ffi::NulError> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// Strings as C lists them: pointers with a null at the end.
fn pointers<'w>(words: impl Iterator<Item = &'w CStr>) -> Vec<*const c_char> {
    words.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// All that the new process needs to become the program, and the error that it leaves if that fails.
struct Birth<'b> {
    plan: &'b Plan<'b>,
    image: &'b Image,
    words: &'b [*const c_char],
    env: &'b [*const c_char],
    error: Option<io::Error>,
}

/// The new process begins here. It returns an exit code, which nobody reads.
extern "C" fn born(birth: *mut c_void) -> c_int {
    // SAFETY: this is the `Birth` of the thread that called `clone`, which waits there.
    let birth = unsafe { &mut *birth.cast::<Birth<'_>>() };
    let Err(error) = birth.become_command();
    birth.error = Some(error);
    127
}

impl Birth<'_> {
    fn become_command(&self) -> io::Result<Infallible> {
        (self.plan.prepare)()?;
        // None of these descriptors is below 3, because their openers call `above_stdio`.
        rustix::stdio::dup2_stdin(self.plan.stdin)?;
        rustix::stdio::dup2_stdout(self.plan.stdout)?;
        if let Some(stderr) = self.plan.stderr {
            rustix::stdio::dup2_stderr(stderr)?;
        }
        // SAFETY: the set is this function's own, and the lists end with a null, as `execve` requires.
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

/// Blocks all signals of this thread until it is dropped. Signals that arrive meanwhile wait.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    pub(crate) fn all() -> Self {
        // SAFETY: both sets belong to this function.
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
        // SAFETY: this restores the set that was there before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut());
        }
    }
}
