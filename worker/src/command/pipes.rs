//! The pipes to and from a command, read and written without waiting.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Makes reads and writes through this descriptor non-blocking.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

/// The outcome of a read or a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// This many bytes were moved, at least one.
    Some(usize),
    /// There is nothing to read yet, or no room to write.
    NotNow,
    /// The other side is closed.
    Closed,
}

pub(crate) fn moved(result: rustix::io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Closed,
        Ok(count) => Moved::Some(count),
        Err(Errno::AGAIN | Errno::INTR) => Moved::NotNow,
        // A write to a closed pipe fails with EPIPE.
        Err(_) => Moved::Closed,
    }
}

/// How many bytes in a pipe have not been read yet.
pub(crate) fn unread(pipe: impl AsFd) -> Option<usize> {
    usize::try_from(rustix::io::ioctl_fionread(pipe).ok()?).ok()
}

/// Writes as many bytes as there is room for.
pub(crate) fn write_now(fd: impl AsFd, bytes: &[u8]) -> Moved {
    moved(rustix::io::write(fd, bytes))
}
