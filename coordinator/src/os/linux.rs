//! Linux.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use interprocess::local_socket::traits::Listener as _;
use interprocess::local_socket::{Listener, Stream};
use protocol::link;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{FallocateFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::CpuSet;
use worker::private::spawn::above_stdio;

/// How many files this process may have open, if that is limited.
pub(crate) fn most_open_files() -> Option<usize> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok())
}

/// How many bytes this process may still map, if that is limited (`ulimit -v`).
pub(crate) fn address_space_left() -> Option<usize> {
    let limit = rustix::process::getrlimit(Resource::As).current?;
    // See proc_pid_statm(5): all that is mapped, in pages.
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').next().and_then(|pages| pages.parse().ok());
    let mapped = pages.unwrap_or(0) * rustix::param::page_size() as u64;
    usize::try_from(limit.saturating_sub(mapped)).ok()
}

/// The signal of a process that has given up.
pub(crate) const ABORTED: i32 = libc::SIGABRT;

/// Waits until one of the descriptors is readable, or has been closed from the other side, or the
/// limit has passed; says of each whether it is.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> Vec<bool> {
    let began = Instant::now();
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        // A limit beyond what the system can hold is none.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) => return polled.iter().map(|fd| !fd.revents().is_empty()).collect(),
            // A signal to this thread, as a profiler's, says nothing of the descriptors.
            Err(Errno::INTR) => {}
            // No memory for it, or more of them than this process may have open by now.
            Err(_) => {
                let found: Vec<_> = fds.iter().map(is_readable).collect();
                if found.contains(&true) || left.is_some_and(|left| left.is_zero()) {
                    return found;
                }
                std::thread::sleep(left.map_or(AGAIN, |left| left.min(AGAIN)));
            }
        }
    }
}

/// How soon to look again at descriptors that one can't wait for.
const AGAIN: Duration = Duration::from_millis(5);

/// Whether a descriptor is readable now.
fn is_readable(fd: &BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// A pipe. As with all files that a pool opens, neither end takes the place of a standard stream that this program
/// has closed.
pub(crate) fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((above_stdio(reader)?.into(), above_stdio(writer)?.into()))
}

/// Wakes a thread that waits for it to be readable. It never blocks.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell(above_stdio(bell)?))
    }

    pub(crate) fn ring(&self) {
        // It only fails when it has been rung very often, and nobody has heard it yet. Whatever else a system may say: one
        // that is not heard would be waited for, for ever.
        for _ in 0..3 {
            match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
                Ok(_) | Err(Errno::AGAIN) => return,
                Err(_) => {}
            }
        }
    }

    /// It is silent until it rings again.
    pub(crate) fn silence(&self) {
        // It only fails when it has not rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
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

/// Readable when the other side has said something, or is gone.
pub(crate) fn socket_fd(socket: &Stream) -> BorrowedFd<'_> {
    let Stream::UdSocket(socket) = socket;
    socket.as_fd()
}

/// Two sockets that are connected.
pub(crate) fn socket_pair() -> io::Result<(Stream, Stream)> {
    let (one, other) = UnixStream::pair()?;
    Ok((
        link::socket(above_stdio(one)?),
        link::socket(above_stdio(other)?),
    ))
}

/// Listens on a socket with this path. Who has made it removes it.
pub(crate) fn listen(path: &Path) -> io::Result<Listener> {
    let Listener::UdSocket(mut listener) = link::listen(path.as_os_str())?;
    listener.do_not_reclaim_name_on_drop();
    Ok(Listener::UdSocket(above_stdio(listener)?.into()))
}

/// Takes one connection.
pub(crate) fn accept(listener: &Listener) -> io::Result<Stream> {
    let Stream::UdSocket(stream) = listener.accept()?;
    Ok(Stream::UdSocket(above_stdio(stream)?.into()))
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
///
/// # Errors
///
/// What the system says, with what it was about.
pub(crate) fn append_only_file() -> io::Result<File> {
    check_file_size(EMPTY_FILE)?;
    let file = tempfile::tempfile().map_err(|error| {
        let directory = std::env::temp_dir();
        let what = format!(
            "{error} (the directory for temporary files is {}, by TMPDIR)",
            directory.display()
        );
        io::Error::new(error.kind(), what)
    })?;
    let mut file = File::from(above_stdio(file)?);
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
/// about a hundred bytes. Somebody hears of it before it is there.
pub(crate) fn private_directory(announce: impl Fn(&Path)) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let preferred = std::env::temp_dir();
    let parent = match preferred.as_os_str().len() {
        ..=64 => &preferred,
        _ => Path::new("/tmp"),
    };
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix("coordinator-").make_in(parent, |path| {
        announce(path);
        let created = fs::DirBuilder::new().mode(0o700).create(path);
        let at = |error: io::Error| {
            io::Error::new(error.kind(), format!("{error} at {}", path.display()))
        };
        created.map_err(at)
    })?;
    Ok(made.into_parts().1.keep()?)
}

/// A handle of a socket's place, which stays when its name is removed, and the name by which a process finds it that
/// inherits the handle. `None` where there is no such thing.
pub(crate) fn door(path: &Path) -> Option<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let door = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()?;
    // Above the numbers that programs like to count on.
    let door = rustix::io::fcntl_dupfd_cloexec(&door, 10).ok()?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", door.as_raw_fd()));
    fs::metadata(&name).is_ok().then_some((door, name))
}

/// The nanoseconds of the system's monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // It counts from the system's start.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Memory to share with another process, which is given the file. It can't be made smaller: who has mapped it may
/// rely on that.
pub(crate) fn shared_memory(size: usize) -> io::Result<File> {
    let file = unsealed_memory(size)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL)?;
    Ok(file)
}

/// The same, before it is decided who may write there: see [`seal_writer`].
pub(crate) fn unsealed_memory(size: usize) -> io::Result<File> {
    use rustix::fs::MemfdFlags;
    check_file_size(size as u64)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("coordinator", flags).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(
            error.kind(),
            format!("shared memory (memfd_create): {error}"),
        )
    })?;
    let file = File::from(above_stdio(file)?);
    file.set_len(size as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

/// To make a file larger than this process may is no error, but a signal that kills.
fn check_file_size(size: u64) -> io::Result<()> {
    match rustix::process::getrlimit(Resource::Fsize).current {
        Some(most) if most < size => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "it takes a file of {} KiB, and this process may not make any larger than {} KiB (ulimit -f)",
                size.div_ceil(1 << 10),
                most >> 10
            ),
        )),
        _ => Ok(()),
    }
}

/// From now on shared memory can be written only by who has mapped it already.
pub(crate) fn seal_writer(file: &File) -> io::Result<()> {
    let seals = SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, seals)?)
}

/// Where to what nobody reads is written.
pub(crate) fn nowhere() -> io::Result<File> {
    let null = File::options().write(true).open("/dev/null")?;
    Ok(File::from(above_stdio(null)?))
}

/// The directory that this process is in, whatever becomes of its path. `None` if it may not even be held.
pub(crate) fn current_directory() -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(".", flags, rustix::fs::Mode::empty()).ok()?;
    above_stdio(directory).ok()
}

/// The user this program acts as.
pub(crate) fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// How many processors this process may use.
pub(crate) fn processors() -> usize {
    // The standard library reads the control groups' files, which takes as long as a thirtieth of a pool's start. A quota
    // hardly ever changes while a program runs. What a program changes itself is its affinity.
    static SEEN: Mutex<Option<(CpuSet, usize)>> = Mutex::new(None);
    let count = || std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(affinity) = rustix::thread::sched_getaffinity(None) else {
        return count();
    };
    // Nobody waits here: in a copy of this process, a thread that does not exist may hold it.
    let Ok(mut seen) = SEEN.try_lock() else {
        return count();
    };
    match *seen {
        Some((same, many)) if same == affinity => many,
        _ => seen.insert((affinity, count())).1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    /// The kernel refuses to wait for more descriptors than a process may have open.
    #[test]
    fn a_death_is_seen_among_more_descriptors_than_one_may_wait_for() {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        // Some systems allow a thousand million, which would fill the memory.
        let most = limit.current.filter(|most| *most <= 1 << 20);
        let Some(many) = most.map(|most| usize::try_from(most).unwrap() + 1) else {
            return;
        };
        let (silent, _open) = pipe().unwrap();
        let (closed, writer) = pipe().unwrap();
        drop(writer);
        let mut fds = vec![silent.as_fd(); many];
        fds[many - 1] = closed.as_fd();
        let readable = wait_readable(&fds, None);
        assert_eq!(
            readable.iter().position(|readable| *readable),
            Some(many - 1)
        );
        let limit = Duration::from_millis(1);
        assert!(!wait_readable(&fds[..many - 1], Some(limit)).contains(&true));
    }
}
