//! What a process writes, read for as long as it lives.
//!
//! A pipe ends when nobody can write to it any more. What the process has started may hold it for ever, so
//! the end of the process has to end the reading, too. Waiting for both, pipe and death, takes a system
//! call more for each line, a tenth of what a short line costs. So a plain read waits, and the
//! signal that tells of the death makes it return.
#![expect(unsafe_code, reason = "a signal handler")]

use std::io::PipeReader;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::handler::CallThread;
use super::pipes::{Moved, moved, unread};

/// The descriptor that is not to block any more when a child has died.
static READ: AtomicI32 = AtomicI32::new(NONE);
const NONE: i32 = -1;
/// Who reads it.
static THREAD: CallThread = CallThread::new();

/// The stdout of a process. There is one of it at a time: calls run on one thread.
#[derive(Debug)]
pub(crate) struct Answers {
    stdout: PipeReader,
    /// Readable from the process's death on.
    pidfd: OwnedFd,
}

impl Answers {
    pub(crate) fn new(stdout: PipeReader, pidfd: OwnedFd) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        THREAD.is_this();
        READ.store(stdout.as_raw_fd(), SeqCst);
        let answers = Answers { stdout, pidfd };
        if answers.is_over() {
            // It died before the signal could have been for it.
            block(answers.stdout.as_fd(), false);
        }
        answers
    }

    /// Whether the process has died.
    pub(crate) fn is_over(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Waits for the process's death; whether it came within the limit.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        is_readable(self.pidfd.as_fd(), limit)
    }

    /// Whether there is something to read, or never will be.
    pub(crate) fn is_readable(&self) -> bool {
        is_readable(self.stdout.as_fd(), Duration::ZERO)
    }

    /// Whether something comes to be read within a limit.
    pub(crate) fn has_more_within(&self, limit: Duration) -> bool {
        is_readable(self.stdout.as_fd(), limit)
            && unread(&self.stdout).is_some_and(|bytes| bytes > 0)
    }

    /// Waits until there is something to read, or never will be, or there is room to write: for what the
    /// process reads while it answers. Says whether it is the former.
    pub(crate) fn wait_or(&self, writable: BorrowedFd<'_>) -> bool {
        let mut polled = [
            PollFd::new(&self.stdout, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(writable, PollFlags::OUT),
        ];
        // An interrupted wait reads as nothing: callers look again.
        rustix::event::poll(&mut polled, None).is_ok()
            && polled[..2].iter().any(|fd| !fd.revents().is_empty())
    }

    /// Waits for something to read, and reads it. [`Moved::NotNow`] if there is nothing, and the process is
    /// dead.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Moved {
        loop {
            let read = moved(rustix::io::read(&self.stdout, &mut *buffer));
            if read != Moved::NotNow || self.is_over() {
                return read;
            }
            // It was another child's death, or some other signal. If the process dies from here on
            // until the read waits, the read does not wait.
            block(self.stdout.as_fd(), true);
            if self.is_over() {
                block(self.stdout.as_fd(), false);
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // Its number will be another file's.
        READ.store(NONE, SeqCst);
    }
}

/// Whether a descriptor can be read, or is closed, within the limit.
fn is_readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        // A limit beyond what the system can hold is none.
        let left = Timespec::try_from(limit.saturating_sub(began.elapsed())).ok();
        match rustix::event::poll(&mut polled, left.as_ref()) {
            Err(Errno::INTR) => {}
            polled => return polled.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Of a pipe's reading end: it has no other flags that could be set.
fn block(fd: BorrowedFd<'_>, on: bool) {
    let flags = match on {
        true => OFlags::empty(),
        false => OFlags::NONBLOCK,
    };
    // It can't fail for an open file.
    let _ = rustix::fs::fcntl_setfl(fd, flags);
}

fn install() {
    // SAFETY: plain calls; the handler only does what is allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_death as *const () as usize;
        // A read that is restarted does not wait either.
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
        // Whoever started this process may have blocked it.
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut());
    }
}

/// Only atomics and system calls, and none that leaves an `errno` behind in the code it interrupts:
/// rustix makes its calls without one.
extern "C" fn on_death(signal: libc::c_int) {
    let fd = READ.load(SeqCst);
    if fd != NONE && THREAD.is_here(signal) {
        // SAFETY: it is open as long as it stands there, and this thread is the one that would close it.
        block(unsafe { BorrowedFd::borrow_raw(fd) }, false);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::thread;

    use rustix::process::{Pid, PidfdFlags, Signal};

    use super::*;

    /// The thread that reads is not the main one, which gets a process's signals before all others.
    #[test]
    fn a_death_ends_the_reading_whichever_thread_hears_of_it() {
        // It dies when its stdin ends, and leaves behind who holds its stdout.
        let mut child = Command::new("sh")
            .args(["-c", "sleep 1000 & echo begun; cat > /dev/null"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = OwnedFd::from(child.stdout.take().unwrap());
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (says, said) = mpsc::channel();
        let reader = thread::spawn(move || {
            let answers = Answers::new(stdout.into(), pidfd);
            let mut buffer = [0; 16];
            for _ in 0..2 {
                says.send((answers.read(&mut buffer), rustix::thread::gettid()))
                    .unwrap();
            }
        });
        let (begun, reading) = said.recv().unwrap();
        assert_eq!(begun, Moved::Some(6));
        // Asleep in the read, or about to be: the latter it does not do when the death comes first.
        let state = || {
            let stat = format!("/proc/self/task/{}/stat", reading.as_raw_nonzero());
            let stat = std::fs::read_to_string(stat).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('S')
        };
        while !state() {
            thread::yield_now();
        }
        drop(stdin);
        let ended = said.recv_timeout(Duration::from_secs(10));
        rustix::process::kill_process_group(pid, Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(ended.unwrap().0, Moved::NotNow);
        reader.join().unwrap();
    }
}
