//! A new process that borrows this one's memory, as `vfork` makes it: the kernel's `clone3`, or C's `clone`.
//!
//! `clone3` resets the signals that this process handles while it makes the new one. Without it, the new process resets each
//! of 64 signals, which is more than half of all system calls around a short command. C has no function
//! for `clone3`, and it can't be called as others are: the new process returns from it on another stack.
#![expect(unsafe_code, reason = "a process that borrows another's memory")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

/// The size of the new process's stack before `execve`, in words of 16 bytes. No signal handler runs on it.
const STACK_WORDS: usize = (64 << 10) / 16;

/// Where the new process begins. What it returns is its exit code.
pub(super) type Begin = extern "C" fn(*mut c_void) -> c_int;

/// Makes a process that begins with this function and shares this one's memory. Returns when that process has become a
/// program or has ended: its id, and a pidfd.
///
/// None of its signals has a handler. `ignored` are reset in it, too, if they are all that this process ignores.
///
/// # Safety
///
/// All signals are blocked. The function neither panics nor allocates, and `argument` is what it expects.
pub(super) unsafe fn vfork(
    begin: Begin,
    argument: *mut c_void,
    ignored: Ignored,
) -> io::Result<(Pid, OwnedFd)> {
    // SAFETY: as this function's.
    unsafe { make(begin, argument, ignored, system::clone3) }
}

/// The kernel's `clone3`: a stack, what begins there with which argument, and where the pidfd goes. Returns the process's id.
type Clone3 =
    unsafe fn(&mut [MaybeUninit<u128>], Begin, *mut c_void, *mut c_int) -> io::Result<c_int>;

unsafe fn make(
    begin: Begin,
    argument: *mut c_void,
    ignored: Ignored,
    clone3: Clone3,
) -> io::Result<(Pid, OwnedFd)> {
    let mut stack = Vec::<u128>::with_capacity(STACK_WORDS);
    let mut first = First {
        begin,
        argument,
        resets: ignored.0,
    };
    let mut pidfd: c_int = -1;
    let first = (&raw mut first).cast();
    // SAFETY: the stack is large enough and its end aligned. `stack`, `first` and what the caller lends stay until the new
    // process has become a program or has ended, because this thread waits for that. No signal handler runs meanwhile in this
    // memory, except for the two signals that C keeps for itself and sends only to threads of its own process. The system has
    // room to write the descriptor.
    let made = unsafe {
        let stack = stack.spare_capacity_mut();
        match clone3(stack, begins, first, &raw mut pidfd) {
            Err(error) if is_missing(&error) => {
                (*first.cast::<First>()).resets = u64::MAX;
                clone(stack, first, &raw mut pidfd)
            }
            made => made,
        }
    }?;
    // The number is that of a process, and 0 only in the new one.
    let pid = Pid::from_raw(made).ok_or(io::ErrorKind::Other)?;
    // SAFETY: the system has just opened this descriptor, and nobody else owns it.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Whether this system has no `clone3` that resets signals, or a filter forbids it: some answer with an error that says
/// something else. If the true reason is another, C's `clone` fails for it, too.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EINVAL | libc::EPERM | libc::EACCES)
    )
}

/// The signals that a process ignores, as bits: signal 1 is bit 0.
#[derive(Debug, Clone, Copy)]
pub struct Ignored(u64);

impl Ignored {
    /// Asks the system for each signal.
    #[must_use]
    pub fn now() -> Self {
        let is_ignored = |signal: &c_int| {
            // SAFETY: a plain call, which only asks.
            unsafe {
                let mut now: libc::sigaction = zeroed();
                // C refuses the two signals that it keeps for itself.
                libc::sigaction(*signal, ptr::null(), &raw mut now) == 0
                    && now.sa_sigaction == libc::SIG_IGN
            }
        };
        let bits = (1..=64).filter(is_ignored);
        Ignored(bits.fold(0, |bits, signal| bits | 1 << (signal - 1)))
    }
}

/// What a new process begins with.
struct First {
    begin: Begin,
    argument: *mut c_void,
    /// The signals to reset.
    resets: u64,
}

extern "C" fn begins(first: *mut c_void) -> c_int {
    // SAFETY: this is the `First` of the thread that made this process, which waits there.
    let first = unsafe { &*first.cast::<First>() };
    reset(first.resets);
    (first.begin)(first.argument)
}

/// Gives signals their default actions. A program would inherit that they are ignored.
fn reset(mut signals: u64) {
    while signals != 0 {
        let signal = signals.trailing_zeros() as c_int + 1;
        signals &= signals - 1;
        // SAFETY: plain calls. A zeroed `sigaction` is the default action, without flags.
        unsafe {
            let default: libc::sigaction = zeroed();
            // C refuses the two signals that it keeps for itself, and the system those that can't be handled.
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
    }
}

/// C's function, for systems without `clone3` (before Linux 5.5), and processors that [`system`] does not know.
unsafe fn clone(
    stack: &mut [MaybeUninit<u128>],
    first: *mut c_void,
    pidfd: *mut c_int,
) -> io::Result<c_int> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: as for `vfork`.
    match unsafe { libc::clone(begins, top.cast(), flags, first, pidfd) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod system {
    use super::*;
    use std::arch::asm;

    /// The kernel's `struct clone_args`, in its first version. See clone3(2).
    #[repr(C)]
    struct Args {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
    }

    /// `CLONE_CLEAR_SIGHAND`, since Linux 5.5.
    const CLEAR_HANDLERS: u64 = 1 << 32;

    /// # Safety
    ///
    /// As for [`vfork`].
    pub(super) unsafe fn clone3(
        stack: &mut [MaybeUninit<u128>],
        begin: Begin,
        argument: *mut c_void,
        pidfd: *mut c_int,
    ) -> io::Result<c_int> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
        let args = Args {
            flags: flags as u64 | CLEAR_HANDLERS,
            pidfd: pidfd as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack.as_mut_ptr() as u64,
            stack_size: size_of_val(stack) as u64,
            tls: 0,
        };
        // SAFETY: the new process never returns from here: it calls `begin` on its own stack, and exits. The kernel leaves all
        // registers as they are but those that are named.
        let result = unsafe { enter(&args, begin, argument) };
        match c_int::try_from(result) {
            Ok(pid @ 0..) => Ok(pid),
            _ => Err(io::Error::from_raw_os_error(-result as c_int)),
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn enter(args: &Args, begin: Begin, argument: *mut c_void) -> isize {
        let result: isize;
        // SAFETY: see `clone3`.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r9",
                "call r8",
                "mov edi, eax",
                "mov eax, {exit}",
                "syscall",
                "ud2",
                "2:",
                exit = const libc::SYS_exit,
                inlateout("rax") libc::SYS_clone3 as isize => result,
                in("rdi") args,
                in("rsi") size_of::<Args>(),
                in("r8") begin,
                in("r9") argument,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        result
    }

    #[cfg(target_arch = "aarch64")]
    unsafe fn enter(args: &Args, begin: Begin, argument: *mut c_void) -> isize {
        let result: isize;
        // SAFETY: see `clone3`.
        unsafe {
            asm!(
                "svc 0",
                "cbnz x0, 2f",
                "mov x29, xzr",
                "mov x0, x10",
                "blr x9",
                "mov x8, {exit}",
                "svc 0",
                "brk 1",
                "2:",
                exit = const libc::SYS_exit,
                in("x8") libc::SYS_clone3,
                inlateout("x0") args => result,
                in("x1") size_of::<Args>(),
                in("x9") begin,
                in("x10") argument,
            );
        }
        result
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod system {
    use super::*;

    pub(super) unsafe fn clone3(
        _: &mut [MaybeUninit<u128>],
        _: Begin,
        _: *mut c_void,
        _: *mut c_int,
    ) -> io::Result<c_int> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;
    use crate::os::spawn::{Blocked, reap};

    extern "C" fn handler(_: c_int) {}

    /// Exits with 0 if the signals have their default actions that the other process handles or ignores.
    extern "C" fn looks(_: *mut c_void) -> c_int {
        let is_default = |signal| {
            // SAFETY: a plain call, which only asks.
            unsafe {
                let mut now: libc::sigaction = zeroed();
                libc::sigaction(signal, ptr::null(), &raw mut now);
                now.sa_sigaction == libc::SIG_DFL
            }
        };
        c_int::from(!(is_default(libc::SIGURG) && is_default(libc::SIGWINCH)))
    }

    unsafe fn missing(
        _: &mut [MaybeUninit<u128>],
        _: Begin,
        _: *mut c_void,
        _: *mut c_int,
    ) -> io::Result<c_int> {
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }

    /// By the kernel's function, and as on a system that has none.
    #[test]
    fn a_new_process_has_all_signals_at_their_defaults() {
        // SAFETY: both signals do nothing by default, and this handler does nothing, either.
        unsafe {
            libc::signal(libc::SIGURG, handler as *const () as usize);
            libc::signal(libc::SIGWINCH, libc::SIG_IGN);
        }
        for clone3 in [system::clone3 as Clone3, missing] {
            let signals = Blocked::all();
            // SAFETY: all signals are blocked, and the function only makes system calls.
            let made = unsafe { make(looks, ptr::null_mut(), Ignored::now(), clone3) };
            drop(signals);
            let (pid, pidfd) = made.unwrap();
            assert!(rustix::io::fcntl_getfd(&pidfd).is_ok());
            assert_eq!(reap(pid).unwrap().exit_status(), Some(0));
        }
    }
}
