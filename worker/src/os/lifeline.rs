//! What ends a process group when whoever started it ends, however that happens.
//!
//! A lifeline is a pipe that nothing is written to. The new process arms its reading end. When the last writing
//! end closes, the kernel sends SIGKILL to the group, as long as someone holds the reading end.
#![expect(
    unsafe_code,
    reason = "settings of the lifeline that no safe wrapper offers"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Leaves the group of whoever started this new process for one of its own. From here on the kernel sends SIGKILL
/// when the last writing end of the lifeline closes: first to this process, then, when it has a group, to that. All
/// of it holds for the open file, that is, for this process alone.
///
/// For [`Plan::prepare`](super::spawn::Plan::prepare).
///
/// This process's own writing end goes first. If it closed on exec only, and the other process died before that, a
/// process that is stopped, or hangs in `execve`, would hold itself alive.
/// # Errors
///
/// What the system says.
pub fn leave(lifeline: BorrowedFd<'_>, writer: BorrowedFd<'_>) -> io::Result<()> {
    const F_SETSIG: libc::c_int = 10;
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: plain settings of an open descriptor; nothing is read or written through them.
        match unsafe { libc::fcntl(lifeline.as_raw_fd(), command, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    let myself = rustix::process::getpid();
    let number = myself.as_raw_nonzero().get();
    set(libc::F_SETOWN, number)?;
    set(F_SETSIG, libc::SIGKILL)?;
    // Of a new pipe's reading end: it has no other flags that could be set.
    set(libc::F_SETFL, libc::O_ASYNC)?;
    // SAFETY: this process's copy of a descriptor that nobody uses here; the other process's own stays open.
    unsafe { libc::close(writer.as_raw_fd()) };
    rustix::process::setpgid(None, None)?;
    set(libc::F_SETOWN, -number)
}
