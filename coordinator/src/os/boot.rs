//! The clock that counts suspended time, and a timer by it that kills this process whatever the process does.
#![expect(unsafe_code, reason = "timers that no safe wrapper offers")]

use std::io;
use std::ptr;
use std::time::Duration;

use rustix::time::ClockId;

/// What time it is by the clock that counts suspended time.
pub(crate) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// A timer of the kernel that kills this process, also if it is stopped. Its workers die with it.
#[derive(Debug)]
pub(crate) struct Fuse {
    timer: libc::timer_t,
    set: Option<Duration>,
}

// SAFETY: a timer's number may be used by any thread of its process.
unsafe impl Send for Fuse {}

impl Fuse {
    /// A timer that is not set.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: zero is a value of all fields of this C structure.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are of local values that live as long as this call.
        match unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, &raw mut timer) } {
            0 => Ok(Fuse { timer, set: None }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sets it to a time by [`boot_time`], or to none.
    pub(crate) fn set(&mut self, at: Option<Duration>) -> io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        // A time of zero would disarm it.
        let value = at.map_or(Duration::ZERO, |at| at.max(Duration::from_nanos(1)));
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timer = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: libc::time_t::try_from(value.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: value.subsec_nanos().into(),
            },
        };
        // SAFETY: the timer exists until this is dropped, and the structure lives as long as this call.
        let set = unsafe {
            libc::timer_settime(
                self.timer,
                libc::TIMER_ABSTIME,
                &raw const timer,
                ptr::null_mut(),
            )
        };
        match set {
            0 => {
                self.set = at;
                Ok(())
            }
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // SAFETY: the timer exists, and nobody uses it afterwards.
        unsafe { libc::timer_delete(self.timer) };
    }
}
