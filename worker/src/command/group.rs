//! A process with a group of its own, of which nothing is left when its worker is gone.
#![expect(
    unsafe_code,
    reason = "settings of the lifeline that no safe wrapper offers"
)]

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Once;

use super::pump::Pump;
use crate::os::lifeline::leave;
use crate::os::spawn::{Plan, Spawn, reap};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// What a process reads from, and writes to.
#[derive(Clone, Copy)]
pub(crate) enum Streams {
    /// It has nothing to read, and what it writes comes to where the worker writes.
    Pumped(&'static Pump),
    /// Both are pipes, whose other ends the worker has. Its stderr is the worker's.
    Pipes,
}

/// What waiting for a process came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Ended,
    /// It waits for the terminal, and will for ever.
    WantsTerminal,
}

/// A process and its group. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Group {
    pid: Pid,
    /// Readable from the leader's death on.
    pidfd: OwnedFd,
    /// It is killed once: when it is reaped its number may be another's.
    killed: bool,
    ended: Option<ExitStatus>,
    /// To its stdin, and from its stdout.
    pipes: Option<(PipeWriter, PipeReader)>,
    /// When its writing end closes, because of a `drop` or because the worker has died in whatever way,
    /// the kernel kills the group, as long as someone holds the reading end: the worker, or one of the
    /// group.
    _lifeline: (OwnedFd, OwnedFd),
}

impl Group {
    /// Starts a command. However soon its worker is killed, it does not run on alone.
    ///
    /// The new process arms its own lifeline, before it leaves the worker's group, whose members die with the
    /// worker. If the worker armed it, a command whose worker is killed meanwhile would stay. On a busy machine
    /// that is no short time.
    pub(crate) fn start(command: &Spawn<'_>, streams: Streams) -> io::Result<Self> {
        static HEEDS: Once = Once::new();
        HEEDS.call_once(heed_deaths);
        let (reader, first_writer) = io::pipe()?;
        // Above the numbers that programs like to count on.
        let lifeline = rustix::io::fcntl_dupfd_cloexec(&reader, 10)?;
        drop(reader);
        // Linux closes a dead process's files from the highest number down, though it does not promise to:
        // so the worker's own reading end is still open when this one closes, and the group dies even if
        // it has closed all that it inherited.
        let above = lifeline.as_raw_fd() + 1;
        let writer = rustix::io::fcntl_dupfd_cloexec(&first_writer, above)?;
        // The new process is to have one to close.
        drop(first_writer);
        let prepare = || {
            leave(lifeline.as_fd(), writer.as_fd())?;
            rustix::io::fcntl_setfd(&lifeline, FdFlags::empty()).map_err(Into::into)
        };
        let (started, pipes) = match streams {
            Streams::Pumped(pump) => {
                let (stdout, stderr) = pump.writes()?;
                let started = command.start(&Plan {
                    stdin: File::open("/dev/null")?.as_fd(),
                    stdout,
                    stderr: Some(stderr),
                    prepare: &prepare,
                })?;
                (started, None)
            }
            Streams::Pipes => {
                let ((reads, stdin), (stdout, writes)) = (io::pipe()?, io::pipe()?);
                let started = command.start(&Plan {
                    stdin: reads.as_fd(),
                    stdout: writes.as_fd(),
                    stderr: None,
                    prepare: &prepare,
                })?;
                (started, Some((stdin, stdout)))
            }
        };
        Ok(Group {
            pid: started.pid,
            pidfd: started.pidfd,
            killed: false,
            ended: None,
            pipes,
            _lifeline: (writer, lifeline),
        })
    }

    /// The number of the group, and of its leader.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable from the leader's death on.
    pub(crate) fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// The worker's ends of its pipes, if it has any.
    pub(crate) fn take_pipes(&mut self) -> Option<(PipeWriter, PipeReader)> {
        self.pipes.take()
    }

    /// Waits for the leader's death, and leaves it unreaped: its number stays that of the group. Returns before if
    /// it is stopped because it wants the terminal, which a group in the background can't have: it would
    /// stay so for ever.
    pub(crate) fn wait(&self) -> io::Result<Waited> {
        let wait = |options| loop {
            match waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) => {}
                waited => return waited,
            }
        };
        let stop = |options| -> io::Result<_> {
            let status = wait(options)?;
            Ok(status.and_then(|status| status.stopping_signal()))
        };
        let either = WaitIdOptions::EXITED | WaitIdOptions::STOPPED;
        while stop(either | WaitIdOptions::NOWAIT)?.is_some() {
            // A pause, or its own wish. This takes note of it, so that the next wait is for something else.
            let taken = stop(WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)?;
            if let Some(libc::SIGTTIN | libc::SIGTTOU) = taken {
                return Ok(Waited::WantsTerminal);
            }
        }
        Ok(Waited::Ended)
    }

    /// Kills what there is of the group, and reaps the leader.
    pub(crate) fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        if !self.killed {
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.killed = true;
        }
        let ended = ExitStatus::from_raw(reap(self.pid)?.as_raw());
        self.ended = Some(ended);
        Ok(ended)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Where SIGCHLD is ignored, by whoever started this process, nobody can be told how a child has ended.
fn heed_deaths() {
    // SAFETY: plain calls; what is zero is the default, without flags.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut now = default;
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut now);
        if now.sa_sigaction == libc::SIG_IGN {
            libc::sigaction(libc::SIGCHLD, &raw const default, std::ptr::null_mut());
        }
    }
}
