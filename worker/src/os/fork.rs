//! Copies of this process that are its siblings, not its children.
//!
//! C's `fork` makes a child of this process. A copy is to be a child of the coordinator, which waits for its workers and
//! tells from that how they ended. So the system is asked by hand (`CLONE_PARENT`), and what C's `fork` does in the
//! new process, beyond what the system does, is done here: C's own notes of the thread are set right. What C's `fork` does
//! to locks is for processes with other threads, and such a process is not copied.
//!
//! Functions that others have registered with `pthread_atfork` do not run, because nobody but C can call them.
#![expect(
    unsafe_code,
    reason = "a copy whose parent is this process's parent, which C can't make"
)]

use std::ffi::{c_int, c_long, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::thread;
use std::time::Duration;

use rustix::process::getpid;

use super::first::other_threads;
use super::home;
use super::spawn::Blocked;

/// Why there is no copy.
#[derive(Debug)]
pub(crate) enum NoCopy {
    /// This process can't be copied, now or later.
    Never(String),
    /// The system refused this time.
    Failed(io::Error),
}

/// Which of two processes this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The process that was copied, with the copy's process id and pidfd.
    Original(u32, OwnedFd),
    Copy,
}

/// How often to look for other threads, and how long to wait in between. A thread that has been joined can be seen
/// for a moment longer.
const LOOKS: u32 = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Whether this process can be copied.
///
/// # Errors
///
/// Why it can't.
pub(crate) fn can_be_copied() -> Result<(), String> {
    for look in 1..=LOOKS {
        let names = other_threads()
            .map_err(|error| format!("/proc does not tell whether it has threads: {error}"))?;
        if names.is_empty() {
            break;
        }
        if look == LOOKS {
            return Err(format!(
                "it has other threads, of which a copy would have none (`{}`)",
                names.join("`, `")
            ));
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    thread_number().map(drop)
}

/// Copies this process. The copy has the same parent.
///
/// # Errors
///
/// Why there is no copy.
pub(crate) fn copy() -> Result<Side, NoCopy> {
    can_be_copied().map_err(NoCopy::Never)?;
    let number = thread_number().map_err(NoCopy::Never)?;
    // The system does not hand this setting on.
    let reaps_orphans = rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some());
    let robust = RobustList::of_this_thread();
    // A handler must not run before the copy's notes are right.
    let signals = Blocked::all();
    let mut pidfd: c_int = -1;
    // SAFETY: this process has a single thread, so no lock is held by a thread that the copy lacks, and no memory is
    // half written. The copy has this thread's stack, copied like all memory, and returns here on it. The system writes the
    // pidfd to this local variable, and the copy's number to where C keeps it in the copy's memory.
    let pid = unsafe { clone_beside(&raw mut pidfd, number) };
    match pid {
        0 => {
            robust.register();
            home::copied();
            if reaps_orphans {
                // What was possible in this process before is possible still.
                let _ = rustix::process::set_child_subreaper(Some(getpid()));
            }
            drop(signals);
            Ok(Side::Copy)
        }
        -1 => Err(NoCopy::Failed(io::Error::last_os_error())),
        pid => {
            drop(signals);
            // SAFETY: the system has just opened this descriptor, and nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Original(u32::try_from(pid).unwrap_or(0), pidfd))
        }
    }
}

/// The system's `clone`, without memory in common, and with the flags that C's `fork` uses besides.
///
/// # Safety
///
/// As for `fork`; and the system writes to both addresses.
unsafe fn clone_beside(pidfd: *mut c_int, number: *mut c_int) -> c_long {
    let flags = libc::CLONE_PARENT
        | libc::CLONE_PIDFD
        | libc::CLONE_CHILD_SETTID
        | libc::CLONE_CHILD_CLEARTID
        | libc::SIGCHLD;
    let (flags, same_stack) = (c_long::from(flags), ptr::null_mut::<c_void>());
    // Processors differ in the order of the last two arguments. The one that is not the number's address is not used.
    #[cfg(not(target_arch = "s390x"))]
    // SAFETY: the caller's.
    return unsafe { libc::syscall(libc::SYS_clone, flags, same_stack, pidfd, number, number) };
    #[cfg(target_arch = "s390x")]
    // SAFETY: the caller's.
    return unsafe { libc::syscall(libc::SYS_clone, same_stack, flags, pidfd, number, number) };
}

/// Where C keeps the number of this thread: in a copy it has to be another.
fn thread_number() -> Result<*mut c_int, String> {
    const PR_GET_TID_ADDRESS: c_int = 40;
    let mut address: *mut c_int = ptr::null_mut();
    // SAFETY: there is room for the address that the system writes.
    let told = unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) };
    if told != 0 || address.is_null() {
        return Err(
            "the kernel does not tell where C keeps a thread's number (it was built without \
             CONFIG_CHECKPOINT_RESTORE)"
                .to_owned(),
        );
    }
    // SAFETY: C gave the system this address, to be written to when the thread ends, so there is a number.
    let noted = unsafe { ptr::read_volatile(address) };
    match noted == rustix::thread::gettid().as_raw_nonzero().get() {
        true => Ok(address),
        // musl registers something else there.
        false => Err("this C library keeps a thread's number where it can't be set".to_owned()),
    }
}

/// The list of robust mutexes that a thread holds. The system forgets in a copy where it is.
struct RobustList(*mut c_void, usize);

impl RobustList {
    fn of_this_thread() -> Self {
        let mut list = RobustList(ptr::null_mut(), 0);
        // SAFETY: there is room for the address and the length. If the system knows no such list, there is none.
        unsafe {
            libc::syscall(
                libc::SYS_get_robust_list,
                0,
                &raw mut list.0,
                &raw mut list.1,
            )
        };
        list
    }

    fn register(&self) {
        if !self.0.is_null() {
            // SAFETY: the list of the same thread, at the same address in this copy of its memory.
            unsafe { libc::syscall(libc::SYS_set_robust_list, self.0, self.1) };
        }
    }
}
