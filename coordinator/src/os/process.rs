//! A worker's process: how it is started, told to end, and seen to have ended.
#![expect(
    unsafe_code,
    reason = "a question to the kernel that no safe wrapper asks"
)]

use std::fs::{self, File};
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::io::{Errno, FdFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid,
};
use worker::private::home::OwnFile;
use worker::private::lifeline;
use worker::private::spawn::{self, Ignored, Plan, Spawn, Started, above_stdio};

use super::{memory, pipe, tree, wait_readable};
use crate::error::Death;

/// A worker's process and, with it, all that it starts: its process group, and the groups of
/// descendants that have their own.
///
/// Dropping it kills them.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    pid: Pid,
    /// Readable from the process's death on, reaped or not.
    pidfd: OwnedFd,
    /// Killing and reaping happen under this lock: once it has been reaped, its number may belong
    /// to another process.
    life: Mutex<Life>,
    /// Why it could not be signalled.
    refused: OnceLock<String>,
}

#[derive(Debug)]
enum Life {
    /// It runs, or is a zombie.
    Unreaped {
        /// When this end closes, the kernel kills the process group. It closes with the coordinator,
        /// however that ends. `None` if it was closed.
        lifeline: Option<OwnFile>,
        /// The groups of its descendants that were killed.
        killed: Vec<Pid>,
    },
    Reaped(Death),
}

/// What a new worker process begins with.
pub(crate) struct Beginning<'b> {
    /// The directory it is in, if not this process's.
    pub(crate) directory: Option<BorrowedFd<'b>>,
    /// What it inherits, besides its standard streams.
    pub(crate) inherits: Option<BorrowedFd<'b>>,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
}

impl WorkerProcess {
    /// Starts a program as a worker, in a process group of its own. Its stdin is the lifeline.
    pub(crate) fn start(program: &Spawn<'_>, beginning: &Beginning<'_>) -> io::Result<Self> {
        let (reader, writer) = pipe()?;
        let prepare = || {
            if let Some(directory) = beginning.directory {
                rustix::process::fchdir(directory)?;
            }
            lifeline::leave(reader.as_fd(), writer.as_fd())?;
            // An older system leaves them open, unless they were opened to be closed.
            let _ = spawn::close_on_exec();
            if let Some(inherits) = beginning.inherits {
                rustix::io::fcntl_setfd(inherits, FdFlags::empty())?;
            }
            Ok(())
        };
        let Started { pid, pidfd } = program.start(&Plan {
            stdin: reader.as_fd(),
            stdout: beginning.stdout.as_fd(),
            stderr: Some(beginning.stderr.as_fd()),
            ignored: Ignored::now(),
            prepare: &prepare,
        })?;
        Ok(Self::new(pid, pidfd, writer))
    }

    /// A process that another one has made a child of this program, with its process id and its pidfd, unless that was lost
    /// on the way. The other end of its lifeline is this one.
    pub(crate) fn adopt(
        said: u32,
        pidfd: Option<OwnedFd>,
        lifeline: PipeWriter,
    ) -> io::Result<Self> {
        let number = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        let no_process = || io::Error::other("that is no process");
        let pidfd = match pidfd {
            Some(pidfd) => above_stdio(pidfd)?,
            None => pidfd_open(number(said).ok_or_else(no_process)?, PidfdFlags::empty())?,
        };
        // Only the kernel is believed.
        let pid = process_of(pidfd.as_fd()).and_then(number);
        let pid = pid.ok_or_else(no_process)?;
        if !is_child(pidfd.as_fd()) {
            return Err(io::Error::other("that is no child of this process"));
        }
        let process = Self::new(pid, pidfd, lifeline);
        // It does this itself, too. Whoever comes first: from here on it can be told something by its group. Should it be
        // dead already, there is nobody to be told anything.
        let _ = rustix::process::setpgid(Some(process.pid), Some(process.pid));
        Ok(process)
    }

    fn new(pid: Pid, pidfd: OwnedFd, lifeline: PipeWriter) -> Self {
        WorkerProcess {
            pid,
            pidfd,
            life: Mutex::new(Life::Unreaped {
                lifeline: Some(OwnFile::new(lifeline.into())),
                killed: Vec::new(),
            }),
            refused: OnceLock::new(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Tells the process's group something and, unless that is to end in its own way, the groups of
    /// all that it has started. Does nothing once it is reaped.
    ///
    /// If this program may not signal it, because it acts as another user than when it started the process, it and its
    /// group are killed in another way, whatever they were to be told, and [`refused`](Self::refused) says why.
    pub(crate) fn signal(&self, signal: GroupSignal) {
        let mut life = self.life();
        let Life::Unreaped { lifeline, killed } = &mut *life else {
            return;
        };
        let told = match signal {
            // Somebody else has reaped it. The group is the kernel's to kill, which knows it by more than its number.
            _ if self.was_stolen() => {
                *lifeline = None;
                Ok(())
            }
            GroupSignal::Term => {
                // A stopped process would only hear of it when it is continued.
                tell(self.pid, Signal::TERM).and_then(|()| tell(self.pid, Signal::CONT))
            }
            GroupSignal::Stop => self.halt().map(drop),
            GroupSignal::Continue => {
                // A worker that goes on first could look at what is still stopped.
                for group in tree::groups_below(self.pid) {
                    let _ = tell(group, Signal::CONT);
                }
                tell(self.pid, Signal::CONT)
            }
            GroupSignal::Kill => self.kill(killed),
        };
        if let Err(error) = told {
            // Said before it dies of what follows.
            self.refused.get_or_init(|| error.to_string());
            *lifeline = None;
        }
    }

    /// Why it was killed in another way than by a signal, if it was.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }

    fn kill(&self, killed: &mut Vec<Pid>) -> io::Result<()> {
        // The others first: once the worker is dead, they are no longer found below it.
        for group in self.halt()? {
            let _ = tell(group, Signal::KILL);
            killed.push(group);
        }
        tell(self.pid, Signal::KILL)
    }

    /// Stops the process's group and those of its descendants; returns the latter.
    ///
    /// What is not stopped yet may start something in another group while one looks. What is stopped
    /// can't, so that it is over when nothing new is found.
    fn halt(&self) -> io::Result<Vec<Pid>> {
        tell(self.pid, Signal::STOP)?;
        let mut halted = Vec::new();
        for _ in 0..ROUNDS {
            let mut found = tree::groups_below(self.pid);
            found.retain(|group| !halted.contains(group));
            if found.is_empty() {
                break;
            }
            for group in &found {
                let _ = tell(*group, Signal::STOP);
            }
            halted.extend(found);
        }
        Ok(halted)
    }

    /// Whether somebody else in this program has reaped it: a thread that waits for whatever child ends, or the kernel,
    /// where SIGCHLD is ignored. Its number may be another process's then.
    fn was_stolen(&self) -> bool {
        !is_child(self.pidfd.as_fd())
    }

    /// Waits for the process to die, for at most `limit`.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        wait_readable(&[self.pidfd.as_fd()], limit).contains(&true)
    }

    /// Waits for the process to die, kills what it leaves behind of its group, and reaps it.
    pub(crate) fn reap(&self) -> Death {
        self.wait(None);
        let mut life = self.life();
        let (lifeline, killed) = match &mut *life {
            Life::Reaped(death) => return *death,
            Life::Unreaped { lifeline, killed } => (lifeline, killed),
        };
        // Its children first: the group's number is ours only until it is reaped.
        if !self.was_stolen() {
            let _ = tell(self.pid, Signal::KILL);
            killed.push(self.pid);
        }
        *lifeline = None;
        tree::reap_ours(killed, self.pid);
        let ended = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                ended => break ended.ok().flatten(),
            }
        };
        let ended = ended.and_then(|status| death_of(&status));
        // Without a status somebody else has it.
        let death = ended.or_else(|| how_it_ended(self.pidfd.as_fd()));
        let death = death.unwrap_or(Death::Unknown);
        *life = Life::Reaped(death);
        death
    }

    /// How much memory the process and all that it has started have to themselves, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        memory::of_tree(self.pid())
    }

    /// Makes allocations fail that go far beyond a limit, so that no process can take the whole
    /// machine's memory before someone looks. Holds for what the process starts from now on, too.
    pub(crate) fn limit_memory(&self, limit: Option<u64>) -> io::Result<()> {
        match *self.life() {
            Life::Unreaped { .. } => memory::limit(self.pid, limit),
            Life::Reaped(_) => Ok(()),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often one looks for further groups at most: whoever makes groups faster than that is not to hold
/// us up for ever.
const ROUNDS: usize = 16;

/// Sends a signal to a process group. One that is gone needs none.
fn tell(group: Pid, signal: Signal) -> io::Result<()> {
    match rustix::process::kill_process_group(group, signal) {
        Err(Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for WorkerProcess {
    /// Readable from the process's death on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.signal(GroupSignal::Kill);
        self.reap();
    }
}

/// What a process group can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupSignal {
    /// To end, in its own way.
    Term,
    /// To end.
    Kill,
    /// To make a pause.
    Stop,
    /// To go on after it.
    Continue,
}

fn death_of(status: &WaitIdStatus) -> Option<Death> {
    let code = status.exit_status().map(Death::Exit);
    code.or_else(|| status.terminating_signal().map(Death::Signal))
}

/// Whether a process is a child of this one, and not reaped.
fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::PidFd(pidfd), options), Err(Errno::CHILD))
}

/// The process that a pidfd refers to, if it is one: see proc_pid_fdinfo(5).
fn process_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = fs::read_to_string(info).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

/// How a process has ended that somebody else has reaped. Linux knows that since 6.15.
fn how_it_ended(pidfd: BorrowedFd<'_>) -> Option<Death> {
    /// See linux/pidfd.h.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const GET_INFO: libc::Ioctl =
        (3 << 30 | (size_of::<Info>() as libc::Ioctl) << 16) | 0xff << 8 | 11;
    const EXIT: u64 = 1 << 3;
    let mut info = Info {
        mask: EXIT,
        ..Info::default()
    };
    // SAFETY: the kernel writes as much as the request says that there is room for.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    let status =
        (asked == 0 && info.mask & EXIT != 0).then(|| ExitStatus::from_raw(info.exit_code))?;
    let code = status.code().map(Death::Exit);
    code.or_else(|| status.signal().map(Death::Signal))
}
