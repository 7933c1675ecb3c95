//! Unix: standard streams and C's buffers.
#![expect(
    unsafe_code,
    reason = "C's standard streams can only be reached through libc"
)]

use std::os::fd::{AsFd, IntoRawFd};

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

pub(crate) fn stdout_len() -> u64 {
    file_len(std::io::stdout())
}

pub(crate) fn stderr_len() -> u64 {
    file_len(std::io::stderr())
}

fn file_len(stream: impl AsFd) -> u64 {
    match rustix::fs::fstat(stream) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            u64::try_from(stat.st_size).unwrap_or(0)
        }
        _ => 0,
    }
}
