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

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

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
    let myself = arm(lifeline)?;
    // SAFETY: this closes the new process's copy of a descriptor, which nothing here uses. The starting process's own
    // descriptor stays open.
    unsafe { libc::close(writer.as_raw_fd()) };
    take_group(lifeline, myself)
}

/// As [`leave`], for a process that has no writing end, because it is a copy of another one than that which holds it.
/// Says `false` if the writing end was closed before this.
///
/// # Errors
///
/// The errors of the system calls.
pub(crate) fn leave_as_copy(lifeline: BorrowedFd<'_>) -> io::Result<bool> {
    let myself = arm(lifeline)?;
    take_group(lifeline, myself)?;
    let mut polled = [PollFd::new(&lifeline, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default()))?;
    // The kernel speaks up only if it is closed from now on.
    Ok(polled[0].revents().is_empty())
}

/// Has the kernel kill this process, whose id it returns, when the last writing end closes.
fn arm(lifeline: BorrowedFd<'_>) -> io::Result<Pid> {
    const F_SETSIG: libc::c_int = 10;
    let myself = rustix::process::getpid();
    set(lifeline, libc::F_SETOWN, myself.as_raw_nonzero().get())?;
    set(lifeline, F_SETSIG, libc::SIGKILL)?;
    // A new pipe's reading end has no other flags that this could overwrite.
    set(lifeline, libc::F_SETFL, libc::O_ASYNC)?;
    Ok(myself)
}

/// Moves this process into a group of its own, and has the kernel kill all of that.
fn take_group(lifeline: BorrowedFd<'_>, myself: Pid) -> io::Result<()> {
    rustix::process::setpgid(None, None)?;
    set(lifeline, libc::F_SETOWN, -myself.as_raw_nonzero().get())
}

fn set(lifeline: BorrowedFd<'_>, command: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: plain settings of an open descriptor; nothing is read or written through them.
    match unsafe { libc::fcntl(lifeline.as_raw_fd(), command, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
