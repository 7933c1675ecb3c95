//! Unix: standard streams and C's buffers.
#![expect(
    unsafe_code,
    reason = "C's standard streams can only be reached through libc"
)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Result;

/// Takes the lifeline off stdin, where a coordinator puts it, and leaves `/dev/null` there.
///
/// The lifeline is a pipe whose other end only the coordinator holds. The kernel kills the worker's
/// process group when that end closes, as long as someone holds this one: the worker, until it
/// dies, and, since the new descriptor is closed on exec, none of its children.
pub(crate) fn take_lifeline() -> Result<()> {
    let stdin = std::io::stdin();
    let stat = rustix::fs::fstat(&stdin)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Ok(()); // started by hand
    }
    // Above the numbers that programs like to count on.
    let lifeline = rustix::io::fcntl_dupfd_cloexec(&stdin, 10)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    // Held for as long as the process lives.
    let _ = lifeline.into_raw_fd();
    Ok(())
}

unsafe extern "C" {
    #[cfg_attr(target_vendor = "apple", link_name = "__stdoutp")]
    static mut stdout: *mut libc::FILE;
}

/// Makes C's `printf` hand over each line as it is finished, as it does on a terminal. Stdout is a
/// file here, and a line in C's buffer would be lost if the worker died.
pub(crate) fn line_buffer_c_stdout() {
    // SAFETY: `stdout` is C's own stream, initialised before `main`; a null buffer makes C keep its
    // own. This runs before any task, so nothing has been written to the stream.
    unsafe {
        libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0);
    }
}

/// Writes out what C code has printed and not flushed.
pub(crate) fn flush_c_streams() {
    // SAFETY: a null stream means all output streams; C locks each of them.
    unsafe {
        libc::fflush(std::ptr::null_mut());
    }
}

/// As [`flush_c_streams`], for stdout alone, and at next to no cost if there is nothing to write.
pub(crate) fn flush_c_stdout() {
    unsafe extern "C" {
        // Of Solaris once; glibc and musl have it.
        fn __fpending(stream: *mut libc::FILE) -> libc::size_t;
    }
    // SAFETY: C's own stream. Looking at how full its buffer is takes no lock, and no other thread of C
    // code writes while no call runs; if one does, it is seen later.
    unsafe {
        if __fpending(stdout) > 0 {
            libc::fflush(stdout);
        }
    }
}

/// Ends this process and nothing else: what is to be done at the worker's end is the worker's.
pub(crate) fn end_copy() -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(0) }
}

/// The nanoseconds of the system's monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // It counts from the system's start.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// The descriptor that a path of the kind `/proc/self/fd/N` stands for, if it is one.
pub(crate) fn inherited(path: &std::ffi::OsStr) -> Option<i32> {
    let number = path.to_str()?.strip_prefix("/proc/self/fd/")?;
    number.parse().ok().filter(|number| *number > 2)
}

/// Closes the descriptor that a path stands for, if it does: what was inherited to connect by is of no further use.
pub(crate) fn close_inherited(path: &std::ffi::OsStr) {
    if let Some(number) = inherited(path) {
        // SAFETY: whoever started this process left it open for this use alone.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// Takes a variable out of this process's environment.
pub(crate) fn unset(variable: &str) {
    // SAFETY: the process becomes a worker first thing in `main`, when no other thread reads the environment.
    unsafe { std::env::remove_var(variable) };
}

/// Gives this process the name of its program, for `ps` and `top`. One that was started from an open file has the
/// number of that.
pub(crate) fn name_process() {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name();
    let name = name.and_then(|name| std::ffi::CString::new(name.as_encoded_bytes()).ok());
    #[cfg(target_os = "linux")]
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        // SAFETY: the system reads at most sixteen bytes, and no further than the zero byte.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// Has a write to a pipe that nobody reads fail, instead of ending the process.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: a plain call, without a handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}
