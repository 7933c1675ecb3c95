//! Sees a file grow without a system call: a system call after each call of a task would cost several times
//! as much as a short call.
//!
//! A tail maps the pages in which the file ends and will go on. Behind the end the last page reads as zeros, and appended bytes
//! appear there at once. So a look is one read of memory.
#![expect(unsafe_code, reason = "a page that comes and goes with a file")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

const PAGE: usize = 4096;
/// How much of the file is mapped at once, in bytes. To map it anew for each line would cost as much as to print the line.
const WINDOW: usize = 16 * PAGE;

/// The end of a file that others append to.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The file. `None` if the stream is no regular file.
    file: Option<OwnedFd>,
    len: u64,
    /// A window of address space, or null if there was none to be had.
    window: *mut u8,
    /// What the window shows.
    shows: Option<Shown>,
    /// Whether the file ends within a page that the window shows.
    aimed: bool,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    /// Where it begins in the file.
    from: u64,
    /// How many faults there had been. Behind a fault there is a page in the window that is none of the file's.
    faults: usize,
}

/// The windows of all tails. A fault in one of them is no error.
static WINDOWS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
/// How many faults there were in them.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

impl Tail {
    pub(crate) fn new(stream: impl AsFd) -> Self {
        let is_file = rustix::fs::fstat(&stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        // The tail has a descriptor of its own, because a task may close or redirect stdout.
        let file = stream.as_fd().try_clone_to_owned().ok().filter(|_| is_file);
        let mut tail = Tail {
            window: file.as_ref().map_or(ptr::null_mut(), |_| reserve()),
            file,
            len: 0,
            shows: None,
            aimed: false,
        };
        tail.measure();
        tail
    }

    /// The file's length when it was last measured.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has grown since it was last measured. It does not see output that begins with a zero byte.
    pub(crate) fn has_grown(&self) -> bool {
        if self.aimed {
            let at = (self.len % WINDOW as u64) as usize;
            // SAFETY: the window belongs to this tail and is mapped for reading. If the file was cut off
            // below this page, the read faults, and `on_fault` puts a page of zeros there.
            return unsafe { ptr::read_volatile(self.window.add(at)) } != 0;
        }
        self.file.is_some() && self.ask() != self.len
    }

    /// Measures the file's length.
    pub(crate) fn measure(&mut self) -> u64 {
        let len = self.ask();
        if len != self.len || !self.aimed {
            self.len = len;
            self.aim();
        }
        self.len
    }

    fn ask(&self) -> u64 {
        let stat = self
            .file
            .as_ref()
            .and_then(|file| rustix::fs::fstat(file).ok());
        stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Maps the part in which the file ends. No page shows the end if the file ends at a page's end.
    fn aim(&mut self) {
        self.aimed = false;
        let (Some(file), false, false) = (
            &self.file,
            self.window.is_null(),
            self.len.is_multiple_of(PAGE as u64),
        ) else {
            return;
        };
        let wanted = Shown {
            from: self.len - self.len % WINDOW as u64,
            faults: FAULTS.load(Ordering::Relaxed),
        };
        if self.shows == Some(wanted) {
            self.aimed = true;
            return;
        }
        let Ok(offset) = libc::off_t::try_from(wanted.from) else {
            return;
        };
        // SAFETY: this replaces a window that belongs to this tail alone.
        let mapped = unsafe {
            libc::mmap(
                self.window.cast(),
                WINDOW,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset,
            )
        };
        self.aimed = mapped != libc::MAP_FAILED;
        self.shows = Some(wanted);
        if !self.aimed {
            // The old mapping may be gone, and another may get its address. So this tail gives up the address.
            give_up(self.window as usize);
            self.window = ptr::null_mut();
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let ours = self.window as usize;
        if ours == 0 {
            return;
        }
        // SAFETY: the window belongs to this tail, and nobody looks at it any more.
        unsafe { libc::munmap(self.window.cast(), WINDOW) };
        give_up(ours);
    }
}

/// Faults at this address are no longer handled.
fn give_up(ours: usize) {
    for window in &WINDOWS {
        let _ = window.compare_exchange(ours, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Reserves a window of address space whose faults are handled.
fn reserve() -> *mut u8 {
    static GUARDED: OnceLock<bool> = OnceLock::new();
    if rustix::param::page_size() != PAGE || !*GUARDED.get_or_init(guard) {
        return ptr::null_mut();
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address that the system chooses.
    let window = unsafe { libc::mmap(ptr::null_mut(), WINDOW, libc::PROT_NONE, flags, -1, 0) };
    if window == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let is_taken = WINDOWS.iter().any(|place| {
        let ours = window as usize;
        place
            .compare_exchange(0, ours, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    });
    if !is_taken {
        // SAFETY: nobody has seen this mapping.
        unsafe { libc::munmap(window, WINDOW) };
        return ptr::null_mut();
    }
    window.cast()
}

static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Handles SIGBUS: a file that is cut off (`> /dev/stdout` does that) leaves no page to read.
fn guard() -> bool {
    // SAFETY: plain calls; the handler does nothing but what is allowed in one.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) != 0 {
            return false;
        }
        // The handler has to be there before the page is used.
        BEFORE.get_or_init(|| before);
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) == 0
    }
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's own description of the fault; `mmap` and `sigaction` are plain system calls.
    unsafe {
        let page = (*info).si_addr() as usize & !(PAGE - 1);
        let ours = WINDOWS.iter().any(|window| {
            let window = window.load(Ordering::Acquire);
            window != 0 && (window..window + WINDOW).contains(&page)
        });
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let at = page as *mut libc::c_void;
        if ours && libc::mmap(at, PAGE, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
            FAULTS.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // The fault is not in a tail's page. It happens again, and the earlier handler gets it.
        if let Some(before) = BEFORE.get() {
            libc::sigaction(signal, before, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn growth_is_seen_at_every_length_and_a_cut_is_survived() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\n").unwrap();
        let mut tail = Tail::new(&file);
        for step in 0..2 * WINDOW as u64 + 7 {
            assert!(!tail.has_grown(), "after {step}");
            file.write_all(b"x").unwrap();
            assert!(tail.has_grown(), "after {step}");
            assert_eq!(tail.measure(), step + 2);
        }
        file.set_len(0).unwrap();
        assert!(!tail.has_grown());
        assert_eq!(tail.measure(), 0);
        file.write_all(b"y").unwrap();
        assert!(tail.has_grown());
    }

    #[test]
    fn growth_is_seen_where_a_cut_has_left_a_page_of_zeros() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'x'; PAGE + 10]).unwrap();
        let mut tail = Tail::new(&file);
        file.set_len(0).unwrap();
        assert!(!tail.has_grown());
        // It is as long as before when it is measured again.
        file.seek(SeekFrom::Start(PAGE as u64)).unwrap();
        file.write_all(&[b'y'; 20]).unwrap();
        tail.measure();
        file.write_all(b"y").unwrap();
        assert!(tail.has_grown());
    }
}
