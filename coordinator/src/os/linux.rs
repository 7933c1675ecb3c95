//! Linux.
#![expect(
    unsafe_code,
    reason = "two settings of the lifeline that no safe wrapper offers"
)]

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use interprocess::local_socket::{Listener, Stream};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FallocateFlags, OFlags, SealFlags};
use rustix::process::{Pid, PidfdFlags, Resource, Signal};

use super::{memory, tree};
use crate::error::Death;

/// How many files this process may have open, if that is limited.
pub(crate) fn most_open_files() -> Option<usize> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok())
}

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
    /// When this end closes, the kernel kills the process group. It closes with the coordinator,
    /// however that ends.
    _lifeline: PipeWriter,
}

#[derive(Debug)]
enum Life {
    /// It runs, or is a zombie.
    Unreaped(Child),
    Reaped(Death),
}

impl WorkerProcess {
    /// Starts a program as a worker, in a process group of its own. Its stdin is the lifeline.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // `process_group` keeps std on its fast path (posix_spawn), where `pre_exec` would not.
        command.process_group(0).stdin(reader.try_clone()?);
        let mut child = command.spawn()?;
        drop(command);
        let prepared = prepare(&child, &reader);
        match prepared {
            Ok((pid, pidfd)) => Ok(WorkerProcess {
                pid,
                pidfd,
                life: Mutex::new(Life::Unreaped(child)),
                _lifeline: writer,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Tells the process's group something and, unless that is to end in its own way, the groups of
    /// all that it has started. Does nothing once it is reaped.
    pub(crate) fn signal(&self, signal: GroupSignal) {
        let life = self.life();
        if let Life::Reaped(_) = *life {
            return;
        }
        // The worker's group exists as long as its leader is not reaped.
        match signal {
            GroupSignal::Term => {
                tell(self.pid, Signal::TERM);
                // A stopped process would only hear of it when it is continued.
                tell(self.pid, Signal::CONT);
            }
            GroupSignal::Stop => _ = self.halt(),
            GroupSignal::Continue => {
                // A worker that goes on first could look at what is still stopped.
                for group in tree::groups_below(self.pid) {
                    tell(group, Signal::CONT);
                }
                tell(self.pid, Signal::CONT);
            }
            GroupSignal::Kill => {
                // The others first: once the worker is dead, they are no longer found below it.
                for group in self.halt() {
                    tell(group, Signal::KILL);
                }
                tell(self.pid, Signal::KILL);
            }
        }
    }

    /// Stops the process's group and those of its descendants; returns the latter.
    ///
    /// What is not stopped yet may start something in another group while one looks. What is stopped
    /// can't, so that it is over when nothing new is found.
    fn halt(&self) -> Vec<Pid> {
        tell(self.pid, Signal::STOP);
        let mut halted = Vec::new();
        for _ in 0..ROUNDS {
            let mut found = tree::groups_below(self.pid);
            found.retain(|group| !halted.contains(group));
            if found.is_empty() {
                break;
            }
            found.iter().for_each(|group| tell(*group, Signal::STOP));
            halted.extend(found);
        }
        halted
    }

    /// Waits for the process to die, for at most `limit`.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        wait_readable(&[self.pidfd.as_fd()], limit).contains(&true)
    }

    /// Waits for the process to die, kills what it leaves behind of its group, and reaps it.
    pub(crate) fn reap(&self) -> Death {
        self.wait(None);
        let mut life = self.life();
        let death = match &mut *life {
            Life::Reaped(death) => return *death,
            Life::Unreaped(child) => {
                // Its children first: the group's number is ours only until it is reaped.
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
                // Someone else in this program may have reaped it: what it died of is lost then.
                child.wait().map_or(Death::Exit(-1), death_of)
            }
        };
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
            Life::Unreaped(_) => memory::limit(self.pid, limit),
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
fn tell(group: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(group, signal);
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

fn prepare(child: &Child, lifeline: &PipeReader) -> io::Result<(Pid, OwnedFd)> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    arm_lifeline(lifeline, pid)?;
    Ok((pid, pidfd))
}

/// Makes the kernel send SIGKILL to the process group when the pipe's writing end closes. The
/// setting belongs to the open file, which the worker keeps open for as long as it lives. It also
/// reaches a group that is stopped or ignores everything else.
fn arm_lifeline(lifeline: &PipeReader, group: Pid) -> io::Result<()> {
    let fd = lifeline.as_raw_fd();
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: plain settings of an open descriptor; nothing is read or written through them.
        match unsafe { libc::fcntl(fd, command, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    const F_SETSIG: libc::c_int = 10;
    set(libc::F_SETOWN, -group.as_raw_nonzero().get())?;
    set(F_SETSIG, libc::SIGKILL)?;
    let flags = rustix::fs::fcntl_getfl(lifeline)?;
    rustix::fs::fcntl_setfl(
        lifeline,
        flags | OFlags::from_bits_retain(libc::O_ASYNC as u32),
    )?;
    Ok(())
}

fn death_of(status: ExitStatus) -> Death {
    match (status.code(), status.signal()) {
        (Some(code), _) => Death::Exit(code),
        (None, Some(number)) => Death::Signal(number),
        (None, None) => Death::Exit(-1),
    }
}

/// The signal of a process that has given up.
pub(crate) const ABORTED: i32 = libc::SIGABRT;

/// Waits until one of the descriptors is readable, or has been closed from the other side, or the
/// limit has passed; says of each whether it is.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Vec<bool> {
    let timeout = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    // An interrupted wait reads as nothing readable: callers look again.
    if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
        return vec![false; fds.len()];
    }
    polled.iter().map(|fd| !fd.revents().is_empty()).collect()
}

/// A pipe whose writing end never blocks.
pub(crate) fn wake_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    Ok((reader, writer))
}

/// Ends a blocked read of a socket, after what has already arrived.
pub(crate) fn stop_reading(socket: &Stream) {
    let Stream::UdSocket(socket) = socket;
    // It may be closed from the other side already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Read);
}

/// Ends a blocked write, too: nobody reads it any more.
pub(crate) fn stop_talking(socket: &Stream) {
    let Stream::UdSocket(socket) = socket;
    // It may be closed from the other side already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Writes without a signal if the other side is gone: this program may not ignore SIGPIPE.
pub(crate) fn send(socket: &Stream, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
    let Stream::UdSocket(socket) = socket;
    let mut nothing = SendAncillaryBuffer::default();
    Ok(sendmsg(socket, buffers, &mut nothing, SendFlags::NOSIGNAL)?)
}

/// Readable when the other side has said something, or is gone.
pub(crate) fn socket_fd(socket: &Stream) -> BorrowedFd<'_> {
    let Stream::UdSocket(socket) = socket;
    socket.as_fd()
}

/// Readable when someone has connected.
pub(crate) fn listener_fd(listener: &Listener) -> BorrowedFd<'_> {
    let Listener::UdSocket(listener) = listener;
    listener.as_fd()
}

/// How long an [`append_only_file`] is at first.
pub(crate) const EMPTY_FILE: u64 = 1;

/// A file without a name that is only ever appended to. It is gone with its last descriptor. A newline
/// stands in it from the start: a worker sees a file grow best if it is not empty.
pub(crate) fn append_only_file() -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(b"\n")?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::APPEND)?;
    Ok(file)
}

/// Reads part of a file, wherever others write in it.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(buffer, offset)
}

/// Gives the space of a part of a file back to the system; the part reads as zeros then.
pub(crate) fn give_back(file: &File, start: u64, end: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // Some file systems can't: the space comes back with the file.
    let _ = rustix::fs::fallocate(file, flags, start, end - start);
}

/// Makes a directory that only this user may enter, with a short path: a socket's is limited to
/// about a hundred bytes.
pub(crate) fn private_directory() -> io::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("coordinator-")
        .permissions(fs::Permissions::from_mode(0o700));
    let preferred = std::env::temp_dir();
    if preferred.as_os_str().len() <= 64 {
        builder.tempdir_in(preferred)
    } else {
        builder.tempdir_in(Path::new("/tmp"))
    }
}

/// Another name of a file, by which processes of this user find it as long as the descriptor is open,
/// also after it was removed. `None` where there is no such thing.
pub(crate) fn hidden_name(path: &Path) -> Option<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let door = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()?;
    let name = format!("/proc/{}/fd/{}", std::process::id(), door.as_raw_fd());
    let name = PathBuf::from(name);
    fs::metadata(&name).is_ok().then_some((door, name))
}

/// The nanoseconds of the system's monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // It counts from the system's start.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Memory to share with another process, which finds it under this name for as long as the file is
/// open. It can't be made smaller: who has mapped it may rely on that.
pub(crate) fn shared_memory(size: usize) -> io::Result<(File, String)> {
    let (file, name) = unsealed_memory(size)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL)?;
    Ok((file, name))
}

/// The same, before it is decided who may write there: see [`seal_writer`].
pub(crate) fn unsealed_memory(size: usize) -> io::Result<(File, String)> {
    use rustix::fs::MemfdFlags;
    // To go beyond this limit is no error, but a signal that kills.
    let limit = rustix::process::getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|most| most < size as u64) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("coordinator", flags)?);
    file.set_len(size as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    let name = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, name))
}

/// From now on shared memory can be written only by who has mapped it already.
pub(crate) fn seal_writer(file: &File) -> io::Result<()> {
    let seals = SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, seals)?)
}

/// What a worker's standard stream leads to.
pub(crate) fn stdio_to(file: Option<&File>) -> io::Result<Stdio> {
    match file {
        Some(file) => Ok(Stdio::from(file.try_clone()?)),
        None => Ok(Stdio::null()),
    }
}

/// The user this program acts as.
pub(crate) fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}
