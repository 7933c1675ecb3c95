//! Forked copies of a process: which resources belong to which process, and which files a copy must not hold.
#![expect(
    unsafe_code,
    reason = "what is to be done in a copy before anything else"
)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering::SeqCst};

/// How many forks lie between the process that ran `main` and this one, as far as they were watched.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The list of files that only their own process may hold. A node is never removed from it.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

/// The process that a resource was made in.
///
/// After a `fork`, both processes have the same link to a worker, the same process id in their variables, and the same
/// shared memory. Only the process that has made such a resource may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home(u32);

impl Home {
    /// The current process.
    #[must_use]
    pub fn here() -> Self {
        static WATCHED: Once = Once::new();
        // SAFETY: the handler only does what is allowed in a copy of a process that had several threads.
        WATCHED.call_once(|| unsafe { _ = libc::pthread_atfork(None, None, Some(copied)) });
        Home(GENERATION.load(SeqCst))
    }

    /// Whether the current process is the one that made the resource.
    #[inline]
    #[must_use]
    pub fn is_here(self) -> bool {
        self.0 == GENERATION.load(SeqCst)
    }
}

/// A [`Home`] that is noted later, and may move: a warm copy takes the place of the worker that it was copied from.
#[derive(Debug)]
pub struct NotedHome(AtomicU32);

/// There are never so many forks in a row.
const NOWHERE: u32 = u32::MAX;

impl NotedHome {
    /// No process has been noted.
    #[must_use]
    pub const fn nowhere() -> Self {
        NotedHome(AtomicU32::new(NOWHERE))
    }

    /// Notes the current process.
    pub fn settle(&self) {
        self.0.store(Home::here().0, SeqCst);
    }

    /// Whether another process than the current one was noted.
    #[inline]
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        let noted = self.0.load(SeqCst);
        noted != NOWHERE && !Home(noted).is_here()
    }
}

/// A file that forked copies of this process close before they do anything else.
#[derive(Debug)]
pub struct OwnFile {
    place: &'static Place,
    home: Home,
    /// `None` only while it is being dropped.
    file: Option<OwnedFd>,
}

#[derive(Debug)]
struct Place {
    /// A file's number, or one of the two below.
    file: AtomicI32,
    next: *mut Place,
}

// SAFETY: `next` never changes, and what it points to is never freed.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

/// The node is free.
const FREE: i32 = -1;
/// The node is taken, but its file is not open yet, or closed already.
const TAKEN: i32 = -2;

impl OwnFile {
    /// Keeps a file from copies.
    #[must_use]
    pub fn new(file: OwnedFd) -> Self {
        let home = Home::here();
        let place = free_place();
        place.file.store(file.as_raw_fd(), SeqCst);
        OwnFile {
            place,
            home,
            file: Some(file),
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let file = self.file.take();
        if !self.home.is_here() {
            // A file outside of the list was closed, and its number may be another file's by now.
            file.map(std::os::fd::IntoRawFd::into_raw_fd);
            return;
        }
        // A copy that is made between these two lines keeps the file open. For a file that is being closed, that
        // is the same as a copy made a moment earlier.
        self.place.file.store(TAKEN, SeqCst);
        drop(file);
        self.place.file.store(FREE, SeqCst);
    }
}

fn free_place() -> &'static Place {
    let mut at = PLACES.load(SeqCst);
    // SAFETY: places are never freed.
    while let Some(place) = unsafe { at.as_ref() } {
        let taken = place.file.compare_exchange(FREE, TAKEN, SeqCst, SeqCst);
        if taken.is_ok() {
            return place;
        }
        at = place.next;
    }
    let place = Box::leak(Box::new(Place {
        file: AtomicI32::new(TAKEN),
        next: ptr::null_mut(),
    }));
    loop {
        place.next = PLACES.load(SeqCst);
        let ours: *mut Place = place;
        if PLACES
            .compare_exchange(place.next, ours, SeqCst, SeqCst)
            .is_ok()
        {
            // SAFETY: it was leaked above, and is only read from here on.
            return unsafe { &*ours };
        }
    }
}

/// Runs in the copy, before `fork` returns. It may use atomics and system calls only.
pub(super) extern "C" fn copied() {
    GENERATION.fetch_add(1, SeqCst);
    let mut at = PLACES.load(SeqCst);
    // SAFETY: as above.
    while let Some(place) = unsafe { at.as_ref() } {
        let file = place.file.load(SeqCst);
        if file >= 0 {
            // SAFETY: a file of the process that was copied, which this one does not use: see `Home`.
            unsafe { libc::close(file) };
        }
        // The node is free for a file of this process's own.
        place.file.store(FREE, SeqCst);
        at = place.next;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::io::Read;

    use super::*;

    #[test]
    fn a_copy_knows_that_it_is_one_and_holds_nothing_of_its_own() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let gone = OwnFile::new(writer.try_clone().unwrap().into());
        drop(gone);
        let own = OwnFile::new(writer.into());
        let home = Home::here();
        // SAFETY: the copy calls nothing but what is allowed in one.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let code = i32::from(home.is_here()) * 2 + i32::from(!Home::here().is_here());
            loop {
                // SAFETY: as above. It waits to be killed, so that what it holds stays open.
                unsafe {
                    if code != 0 {
                        libc::_exit(code);
                    }
                    libc::pause();
                }
            }
        }
        assert!(home.is_here());
        drop(own);
        // The end comes though the copy lives.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        let mut status = 0;
        // SAFETY: this test's own child, and room for what is written.
        unsafe {
            libc::kill(copy, libc::SIGKILL);
            libc::waitpid(copy, &raw mut status, 0);
        }
        assert!(libc::WIFSIGNALED(status), "{status}");
    }
}
