//! A process with a group of its own, of which nothing is left when its worker is gone.
#![expect(
    unsafe_code,
    reason = "settings of the lifeline that no safe wrapper offers, made between fork and exec"
)]

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

/// A process and its group. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    pid: Pid,
    reaped: bool,
    /// When its writing end closes, because of a `drop` or because the worker has died in whatever way,
    /// the kernel kills the group, as long as someone holds the reading end: the worker, or one of the
    /// group.
    _lifeline: (PipeWriter, OwnedFd),
}

impl Group {
    /// Starts a command. However soon its worker is killed, it does not run on alone.
    ///
    /// The new process arms its own lifeline, before it becomes the command. If the worker armed it, as
    /// std's faster way to start a process would allow, a command whose worker is killed meanwhile
    /// would stay. On a busy machine that is no short time.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // Above the numbers that programs like to count on.
        let lifeline = rustix::io::fcntl_dupfd_cloexec(&reader, 10)?;
        drop(reader);
        // Linux closes a dead process's files from the highest number down, though it does not promise to:
        // so the worker's own reading end is still open when this one closes, and the group dies even if
        // it has closed all that it inherited.
        let above = lifeline.as_raw_fd() + 1;
        let writer = PipeWriter::from(rustix::io::fcntl_dupfd_cloexec(&writer, above)?);
        let fd = lifeline.as_raw_fd();
        // SAFETY: system calls alone, between fork and exec, on a descriptor that is open there: it is
        // open here until `spawn` is back.
        unsafe { command.pre_exec(move || arm(fd)) };
        let child = command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
        Ok(Group {
            child,
            pid,
            reaped: false,
            _lifeline: (writer, lifeline),
        })
    }

    /// The number of the group, and of its leader.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable from the leader's death on.
    pub(crate) fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(self.pid, PidfdFlags::empty())?)
    }

    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the leader's death, and leaves it unreaped: its number stays that of the group.
    pub(crate) fn wait(&self) -> io::Result<()> {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) => {}
                waited => return Ok(waited.map(|_| ())?),
            }
        }
    }

    /// Kills what there is of the group, and reaps the leader.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.reaped = true;
        }
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Makes the kernel send SIGKILL to this process's group when the pipe's writing end closes, and keeps
/// the reading end open in the command and in what that starts. It holds for the open file, that is,
/// for this command alone.
///
/// If the worker is dead already this process has the last writing end, which closes on exec.
fn arm(lifeline: RawFd) -> io::Result<()> {
    const F_SETSIG: libc::c_int = 10;
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: plain settings of an open descriptor; nothing is read or written through them.
        match unsafe { libc::fcntl(lifeline, command, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    let group = rustix::process::getpid();
    set(libc::F_SETOWN, -group.as_raw_nonzero().get())?;
    set(F_SETSIG, libc::SIGKILL)?;
    // Of a new pipe's reading end: it has no other flags that could be set.
    set(libc::F_SETFL, libc::O_ASYNC)?;
    set(libc::F_SETFD, 0)
}

/// Reads and writes through this descriptor do what can be done at once.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

/// What became of a read or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// So many bytes, at least one.
    Some(usize),
    /// There is nothing to read, or no room to write, as yet.
    NotNow,
    /// The other side is closed.
    Closed,
}

pub(super) fn moved(result: rustix::io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Closed,
        Ok(count) => Moved::Some(count),
        Err(Errno::AGAIN | Errno::INTR) => Moved::NotNow,
        // Of a pipe: EPIPE.
        Err(_) => Moved::Closed,
    }
}

/// Writes what there is room for.
pub(crate) fn write_now(fd: impl AsFd, bytes: &[u8]) -> Moved {
    moved(rustix::io::write(fd, bytes))
}
