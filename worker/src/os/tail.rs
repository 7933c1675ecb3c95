//! Sees a file grow without a system call: a system call after each call of a task would cost several times
//! as much as a short call.
//!
//! A tail maps the page in which the file ends. Behind the end that page reads as zeros, and appended bytes
//! appear there at once. So a look is one read of memory.
#![expect(unsafe_code, reason = "a page that comes and goes with a file")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

const PAGE: usize = 4096;

/// The end of a file that others append to.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The file. `None` if the stream is no regular file.
    file: Option<OwnedFd>,
    len: u64,
    /// A page of address space, or null if there was none to be had.
    page: *mut u8,
    /// Whether the page shows the file's end.
    aimed: bool,
}

/// The pages of all tails. A fault in one of them is no error.
static PAGES: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

impl Tail {
    pub(crate) fn new(stream: impl AsFd) -> Self {
        let is_file = rustix::fs::fstat(&stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        // The tail has a descriptor of its own, because a task may close or redirect stdout.
        let file = stream.as_fd().try_clone_to_owned().ok().filter(|_| is_file);
        let mut tail = Tail {
            page: file.as_ref().map_or(ptr::null_mut(), |_| reserve()),
            file,
            len: 0,
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
            let at = (self.len % PAGE as u64) as usize;
            // SAFETY: the page belongs to this tail and is mapped for reading. If the file was cut off
            // below it, the read faults, and `on_fault` puts a page of zeros there.
            return unsafe { ptr::read_volatile(self.page.add(at)) } != 0;
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

    /// Maps the page in which the file ends. There is no such page if the file ends at a page's end.
    fn aim(&mut self) {
        self.aimed = false;
        let (Some(file), false, false) = (
            &self.file,
            self.page.is_null(),
            self.len.is_multiple_of(PAGE as u64),
        ) else {
            return;
        };
        let Ok(offset) = libc::off_t::try_from(self.len - self.len % PAGE as u64) else {
            return;
        };
        // SAFETY: this replaces a page that belongs to this tail alone.
        let mapped = unsafe {
            libc::mmap(
                self.page.cast(),
                PAGE,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset,
            )
        };
        self.aimed = mapped != libc::MAP_FAILED;
        if !self.aimed {
            // The old mapping may be gone, and another may get its address. So this tail gives up the address.
            give_up(self.page as usize);
            self.page = ptr::null_mut();
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let ours = self.page as usize;
        if ours == 0 {
            return;
        }
        // SAFETY: the page belongs to this tail, and nobody looks at it any more.
        unsafe { libc::munmap(self.page.cast(), PAGE) };
        give_up(ours);
    }
}

/// Faults at this address are no longer handled.
fn give_up(ours: usize) {
    for page in &PAGES {
        let _ = page.compare_exchange(ours, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Reserves a page of address space whose faults are handled.
fn reserve() -> *mut u8 {
    static GUARDED: OnceLock<bool> = OnceLock::new();
    if rustix::param::page_size() != PAGE || !*GUARDED.get_or_init(guard) {
        return ptr::null_mut();
    }
    let Some(free) = PAGES.iter().find(|page| page.load(Ordering::Relaxed) == 0) else {
        return ptr::null_mut();
    };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address that the system chooses.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, libc::PROT_NONE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    free.store(page as usize, Ordering::Release);
    page.cast()
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
        let ours = page != 0
            && PAGES
                .iter()
                .any(|ours| ours.load(Ordering::Acquire) == page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let at = page as *mut libc::c_void;
        if ours && libc::mmap(at, PAGE, libc::PROT_READ, flags, -1, 0) != libc::MAP_FAILED {
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

    use std::io::Write;

    use super::*;

    #[test]
    fn growth_is_seen_at_every_length_and_a_cut_is_survived() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\n").unwrap();
        let mut tail = Tail::new(&file);
        for step in 0..3 * PAGE as u64 {
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
}
