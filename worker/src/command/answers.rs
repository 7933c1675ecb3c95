//! Reads a process's output for as long as the process lives.
//!
//! A pipe ends when nobody can write to it any more. A child of the process may hold the pipe for ever, so
//! the death of the process has to end the reading, too. Waiting for both with `poll` costs one more system
//! call for each line, which is a tenth of the cost of a short line. So a plain read waits, and SIGCHLD makes that read
//! return.
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

/// The descriptor that the handler makes non-blocking when a child has died.
static READ: AtomicI32 = AtomicI32::new(NONE);
const NONE: i32 = -1;
/// The thread that reads from it.
static THREAD: CallThread = CallThread::new();

/// The stdout of a process. Only one exists at a time, because calls run on one thread.
#[derive(Debug)]
pub(crate) struct Answers {
    stdout: PipeReader,
    /// The process's pidfd, readable from its death on.
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
            // The process died before the handler knew this descriptor.
            block(answers.stdout.as_fd(), false);
        }
        answers
    }

    /// Whether the process has died.
    pub(crate) fn is_over(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Waits for the process's death. Returns whether it came within the limit.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        is_readable(self.pidfd.as_fd(), limit)
    }

    /// Whether there is something to read, or the pipe has ended.
    pub(crate) fn is_readable(&self) -> bool {
        is_readable(self.stdout.as_fd(), Duration::ZERO)
    }

    /// Waits for something to read. Returns whether it came within the limit.
    pub(crate) fn has_more_within(&self, limit: Duration) -> bool {
        is_readable(self.stdout.as_fd(), limit)
            && unread(&self.stdout).is_some_and(|bytes| bytes > 0)
    }

    /// Waits until there is something to read, the pipe has ended, or `writable` has room to write, because a process may read
    /// while it answers. Returns `false` if there is only room to write.
    pub(crate) fn wait_or(&self, writable: BorrowedFd<'_>) -> bool {
        let mut polled = [
            PollFd::new(&self.stdout, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(writable, PollFlags::OUT),
        ];
        // After an interrupted wait there may be nothing to read: callers look again.
        rustix::event::poll(&mut polled, None).is_ok()
            && polled[..2].iter().any(|fd| !fd.revents().is_empty())
    }

    /// Waits for something to read, and reads it. [`Moved::NotNow`] if there is nothing and the process is
    /// dead.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Moved {
        loop {
            let read = moved(rustix::io::read(&self.stdout, &mut *buffer));
            if read != Moved::NotNow || self.is_over() {
                return read;
            }
            // The signal was another child's death, or something else. If the process dies between here and the read,
            // the read does not wait.
            block(self.stdout.as_fd(), true);
            if self.is_over() {
                block(self.stdout.as_fd(), false);
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // After this its number may be another file's.
        READ.store(NONE, SeqCst);
    }
}

/// Waits until a descriptor can be read or is closed. Returns whether that came within the limit.
fn is_readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let began = Instant::now();
    loop {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        // A limit that the system can't represent means to wait without one.
        let left = Timespec::try_from(limit.saturating_sub(began.elapsed())).ok();
        match rustix::event::poll(&mut polled, left.as_ref()) {
            Err(Errno::INTR) => {}
            polled => return polled.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Sets a flag of a pipe's reading end, which has no other flags that this could overwrite.
fn block(fd: BorrowedFd<'_>, on: bool) {
    let flags = match on {
        true => OFlags::empty(),
        false => OFlags::NONBLOCK,
    };
    // This can't fail for an open file.
    let _ = rustix::fs::fcntl_setfl(fd, flags);
}

fn install() {
    // SAFETY: plain calls; the handler only does what is allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_death as *const () as usize;
        // With SA_RESTART the kernel restarts the read, which then does not wait either.
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
        // The process that started this one may have blocked SIGCHLD.
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut());
    }
}

/// The handler uses only atomics and system calls. It must not change `errno` in the interrupted code, so it uses rustix,
/// whose calls do not touch `errno`.
extern "C" fn on_death(signal: libc::c_int) {
    let fd = READ.load(SeqCst);
    if fd != NONE && THREAD.is_here(signal) {
        // SAFETY: the descriptor is open for as long as it stands there, and only this thread closes it.
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

    /// The reading thread is not the main one, which the system prefers for a process's signals.
    #[test]
    fn a_death_ends_the_reading_whichever_thread_hears_of_it() {
        // The process dies when its stdin ends, and leaves a child behind that holds its stdout.
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
        // The thread sleeps in the read, or is about to. If the death comes first, the read does not wait.
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
