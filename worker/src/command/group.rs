//! A process with a group of its own. Nothing of the group is left when its worker is gone.
#![expect(
    unsafe_code,
    reason = "settings of the lifeline that no safe wrapper offers"
)]

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;

use super::pump::Pump;
use crate::os::lifeline::leave;
use crate::os::spawn::{Ignored, Plan, Spawn, above, reap};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// The standard streams of a process.
#[derive(Clone, Copy)]
pub(crate) enum Streams {
    /// Its stdin is empty, and its output goes to the worker's.
    Pumped(&'static Pump),
    /// Its stdin and stdout are pipes, whose other ends the worker holds. Its stderr goes to the worker's.
    Pipes,
}

/// The outcome of waiting for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Ended,
    /// The process has stopped because it wants the terminal, which it can never get.
    WantsTerminal,
}

/// The signals that this process ignores. Nothing of a worker that runs commands changes them afterwards.
static IGNORED: OnceLock<Ignored> = OnceLock::new();

/// A process and its group. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Group {
    pid: Pid,
    /// Readable from the leader's death on.
    pidfd: OwnedFd,
    /// Whether the group was killed. That happens once: after the leader is reaped, the number may be another group's.
    killed: bool,
    ended: Option<ExitStatus>,
    /// The pipes to its stdin and from its stdout.
    pipes: Option<(PipeWriter, PipeReader)>,
    /// When the writing end closes, by a `drop` or by the worker's death,
    /// the kernel kills the group, as long as somebody holds the reading end: the worker, or a process of the
    /// group.
    _lifeline: (OwnedFd, OwnedFd),
}

impl Group {
    /// Starts a command. The command never outlives its worker, however soon the worker is killed.
    ///
    /// The new process arms its own lifeline before it leaves the worker's group, whose members die with the
    /// worker. If the worker armed the lifeline, a command would stay alive whose worker is killed just before that. On a
    /// busy machine that moment is not short.
    pub(crate) fn start(
        command: &Spawn<'_>,
        streams: Streams,
        directory: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let ignored = *IGNORED.get_or_init(|| {
            heed_deaths();
            Ignored::now()
        });
        let (lifeline, writer) = lifeline()?;
        let prepare = || {
            leave(lifeline.as_fd(), writer.as_fd())?;
            if let Some(directory) = directory {
                rustix::process::fchdir(directory)?;
            }
            rustix::io::fcntl_setfd(&lifeline, FdFlags::empty()).map_err(Into::into)
        };
        let (started, pipes) = match streams {
            Streams::Pumped(pump) => {
                let (stdout, stderr) = pump.writes()?;
                let started = command.start(&Plan {
                    // Each has an open file of its own: a lock on a shared one would outlive the command that took it.
                    stdin: File::open("/dev/null")?.as_fd(),
                    stdout,
                    stderr: Some(stderr),
                    ignored,
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
                    ignored,
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

    /// The id of the group, which is that of its leader.
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

    /// Waits for the leader's death, and leaves the leader unreaped, so that its number stays that of the group. Returns
    /// early if the leader has stopped because it wants the terminal, which a group in the background can't have: it would
    /// stay stopped for ever.
    pub(crate) fn wait(&self) -> io::Result<Waited> {
        let either = WaitIdOptions::EXITED | WaitIdOptions::STOPPED;
        while self.stop(either | WaitIdOptions::NOWAIT)?.is_some() {
            // Somebody paused it, or it stopped itself.
            if let Some(libc::SIGTTIN | libc::SIGTTOU) = self.take_stop()? {
                return Ok(Waited::WantsTerminal);
            }
        }
        Ok(Waited::Ended)
    }

    /// Takes the report of a stop, so that the next wait is for another event. Which signal has stopped the leader; `None` if it
    /// has gone on since.
    fn take_stop(&self) -> io::Result<Option<i32>> {
        match self.stop(WaitIdOptions::STOPPED | WaitIdOptions::NOHANG) {
            // It has ended, too, and of what has ended the system says that there is nothing to wait for.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            taken => taken,
        }
    }

    /// Waits for an event. Which signal has stopped the leader, if it has stopped.
    fn stop(&self, options: WaitIdOptions) -> io::Result<Option<i32>> {
        loop {
            match waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) => {}
                waited => return Ok(waited?.and_then(|status| status.stopping_signal())),
            }
        }
    }

    /// Kills the rest of the group, and reaps the leader.
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

/// A lifeline: its reading end and its writing end, not to be inherited.
fn lifeline() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    // Programs expect certain low numbers to be free, so these are higher ones.
    let reader = above(9, reader)?;
    // Linux closes a dead process's files from the highest number down, although it does not promise that.
    // So the worker's own reading end is still open when the writing end closes, and the group dies even if
    // it has closed all descriptors that it inherited.
    let writer = above(reader.as_raw_fd(), writer)?;
    Ok((reader, writer))
}

/// Resets SIGCHLD, which the process that started this one may have ignored: then the system would tell nobody how a child
/// has ended.
fn heed_deaths() {
    // SAFETY: plain calls. A zeroed `sigaction` is the default action, without flags.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut now = default;
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut now);
        if now.sa_sigaction == libc::SIG_IGN {
            libc::sigaction(libc::SIGCHLD, &raw const default, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::path::Path;

    use super::*;
    use crate::os::spawn::Image;

    #[test]
    fn a_command_that_was_paused_and_ends_meanwhile_has_ended() {
        let shell = Image::at(Path::new("/bin/sh")).unwrap();
        let words: [&[u8]; 3] = [b"sh", b"-c", b"kill -STOP $$; exit 7"];
        let command = Spawn::new(&shell, words.into_iter(), std::env::vars_os()).unwrap();
        let mut group = Group::start(&command, Streams::Pipes, None).unwrap();
        let seen = group.stop(WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT);
        assert_eq!(seen.unwrap(), Some(libc::SIGSTOP));
        kill_process_group(group.pid(), Signal::CONT).unwrap();
        let ended = group.stop(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        assert_eq!(ended.unwrap(), None);
        // The stop that was seen is to be taken only now.
        assert_eq!(group.take_stop().unwrap(), None);
        assert_eq!(group.wait().unwrap(), Waited::Ended);
        assert_eq!(group.end().unwrap().code(), Some(7));
    }
}
