//! Unix: standard streams and C's buffers.
#![expect(
    unsafe_code,
    reason = "C's standard streams can only be reached through libc"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Result;

/// Moves the lifeline from stdin, where a coordinator puts it, to another descriptor, and leaves `/dev/null` there.
///
/// The lifeline is a pipe whose other end only the coordinator holds. When that end closes, the kernel kills the worker's
/// process group, as long as somebody holds this end. The worker holds it until it
/// dies. The new descriptor is closed on exec, so the worker's children do not hold it.
pub(crate) fn take_lifeline() -> Result<()> {
    let stdin = std::io::stdin();
    let stat = rustix::fs::fstat(&stdin)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Ok(()); // started by hand
    }
    // Programs expect certain low numbers to be free, so this takes a high one.
    hold(&stdin)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(())
}

/// The number of the lifeline's descriptor, which stays open for as long as the process lives.
static LIFELINE: AtomicI32 = AtomicI32::new(-1);

/// Holds this lifeline, and no longer the one before: that is a copied process's.
fn hold(lifeline: impl AsFd) -> Result<()> {
    let held = rustix::io::fcntl_dupfd_cloexec(&lifeline, 10)?;
    let before = LIFELINE.swap(held.into_raw_fd(), Ordering::Relaxed);
    if before >= 0 {
        // SAFETY: this function has left that descriptor open, and its number stood nowhere else.
        drop(unsafe { OwnedFd::from_raw_fd(before) });
    }
    Ok(())
}

/// Puts `/dev/null` where a standard stream is closed. Otherwise the next descriptors that arrive take those numbers, and what
/// becomes of a copy's streams would overwrite them.
///
/// # Errors
///
/// Why it can't.
pub(crate) fn fill_streams() -> std::result::Result<(), String> {
    loop {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())
            .map_err(|error| format!("/dev/null can't be opened: {error}"))?;
        if null.as_raw_fd() > libc::STDERR_FILENO {
            return Ok(());
        }
        // It stays open: it is a standard stream now.
        let _ = null.into_raw_fd();
    }
}

/// Gives a copy of a worker what a worker's process has for itself: files for what it prints, a group, and a lifeline. Says
/// `false` if the coordinator is gone, or does not want the copy any more.
pub(crate) fn become_separate(
    lifeline: OwnedFd,
    out: OwnedFd,
    err: OwnedFd,
) -> std::io::Result<bool> {
    rustix::stdio::dup2_stdout(out)?;
    rustix::stdio::dup2_stderr(err)?;
    hold(&lifeline)?;
    super::lifeline::leave_as_copy(lifeline.as_fd())
}

unsafe extern "C" {
    #[cfg_attr(target_vendor = "apple", link_name = "__stdoutp")]
    static mut stdout: *mut libc::FILE;
}

/// Makes C's `printf` write each finished line, as it does on a terminal. Stdout is a
/// file here, and a line in C's buffer would be lost if the worker died.
pub(crate) fn line_buffer_c_stdout() {
    // SAFETY: `stdout` is C's own stream, initialised before `main`; a null buffer makes C keep its
    // own. This runs before any task, so nothing has been written to the stream.
    unsafe {
        libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0);
    }
}

/// Flushes the buffered output of C code.
pub(crate) fn flush_c_streams() {
    // SAFETY: a null stream means all output streams; C locks each of them.
    unsafe {
        libc::fflush(std::ptr::null_mut());
    }
}

/// Flushes C's stdout alone. It costs next to nothing if the buffer is empty.
pub(crate) fn flush_c_stdout() {
    unsafe extern "C" {
        // This function comes from Solaris; glibc and musl have it, too.
        fn __fpending(stream: *mut libc::FILE) -> libc::size_t;
    }
    // SAFETY: C's own stream. Reading how full its buffer is takes no lock. No other thread of C code should write while no
    // call runs; output of one that does is seen later.
    unsafe {
        if __fpending(stdout) > 0 {
            libc::fflush(stdout);
        }
    }
}

/// Ends this process without running exit handlers, which belong to the worker itself.
pub(crate) fn end_copy() -> ! {
    // SAFETY: a plain call that does not return.
    unsafe { libc::_exit(0) }
}

/// The nanoseconds of the system's monotonic clock, which all processes share.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock counts from the system's start, so it is never negative.
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// The descriptor that a path like `/proc/self/fd/N` names. `None` for any other path.
pub(crate) fn inherited(path: &std::ffi::OsStr) -> Option<i32> {
    let number = path.to_str()?.strip_prefix("/proc/self/fd/")?;
    number.parse().ok().filter(|number| *number > 2)
}

/// Closes the descriptor that such a path names: a worker needs the inherited socket only for connecting.
pub(crate) fn close_inherited(path: &std::ffi::OsStr) {
    if let Some(number) = inherited(path) {
        // SAFETY: the coordinator left this descriptor open for the one use that is over now.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// Removes a variable from this process's environment.
pub(crate) fn unset(variable: &str) {
    // SAFETY: the process becomes a worker first thing in `main`, when no other thread reads the environment.
    unsafe { std::env::remove_var(variable) };
}

/// Gives this process the name of its program, for `ps` and `top`. A process that was started from an open file is
/// otherwise named after the descriptor's number.
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

/// Makes a write to a closed pipe fail, instead of ending the process with SIGPIPE.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: a plain call, without a handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}
