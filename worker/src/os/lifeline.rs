//! The lifeline: it ends a process group when the process that started the group ends, in whatever way.
//!
//! A lifeline is a pipe that nothing is written to. The new process arms its reading end. When the last writing
//! end closes, the kernel sends SIGKILL to the group, as long as someone holds the reading end.
#![expect(
    unsafe_code,
    reason = "settings of the lifeline that no safe wrapper offers"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Moves this new process into a group of its own and arms the lifeline. From then on the kernel sends SIGKILL
/// when the last writing end of the lifeline closes: to this process until it has its group, and then to the group. These
/// settings belong to the open file, so they concern this process alone.
///
/// For [`Plan::prepare`](super::spawn::Plan::prepare).
///
/// It closes this process's own copy of the writing end first. If that copy closed on exec only, and the starting process
/// died before that, a process that is stopped, or hangs in `execve`, would keep itself alive.
///
/// # Errors
///
/// The errors of the system calls.
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
    // A new pipe's reading end has no other flags that this could overwrite.
    set(libc::F_SETFL, libc::O_ASYNC)?;
    // SAFETY: this closes the new process's copy of a descriptor, which nothing here uses. The starting process's own
    // descriptor stays open.
    unsafe { libc::close(writer.as_raw_fd()) };
    rustix::process::setpgid(None, None)?;
    set(libc::F_SETOWN, -number)
}
