//! The board: memory that a coordinator writes large inputs on, for all of its workers to read.
//!
//! An input is kept until its call has ended, because it may have to be sent again, to any worker. So a large
//! one is encoded where all of them can read it, and needs no copy for each sending. Nobody but the
//! coordinator can write there.
//!
//! The board has regions of 4 MiB, with one input each. One that finds no region, or no room in it, travels
//! as it would without a board; and so does one that is sent together with others.
#![expect(unsafe_code, reason = "memory that processes share")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::place::{Placed, WORDS};
use crate::value::room::{Begun, Room};
use crate::value::sheet::SheetIn;

/// The size of a region, in bytes.
pub const REGION: usize = 4 << 20;
/// The most regions of a board.
pub const REGIONS: usize = 64;

/// A board that can be written on.
#[derive(Debug)]
pub struct Board {
    memory: MmapRaw,
    /// A bit for each region that is free.
    free: AtomicU64,
}

impl Board {
    /// Maps a file of as many [`REGION`]s as the board is to have. It must not shrink: its maker seals it
    /// against that, and against other writers.
    ///
    /// # Errors
    ///
    /// It can't be mapped.
    pub fn map(file: &File) -> io::Result<Arc<Self>> {
        let memory = MmapRaw::map_raw(file)?;
        let regions = (memory.len() / REGION).min(REGIONS);
        let free = u64::MAX.checked_shr((REGIONS - regions) as u32);
        Ok(Arc::new(Board {
            memory,
            free: AtomicU64::new(free.unwrap_or(0)),
        }))
    }

    /// Takes the first region that is free: those behind it need no memory as long as they are not needed.
    fn take(self: &Arc<Self>) -> Option<Region> {
        // What was read there is read before it is written again.
        let taken = self
            .free
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| {
                (free != 0).then(|| free & (free - 1))
            });
        let number = taken.ok()?.trailing_zeros() as usize;
        Some(Region {
            board: Arc::clone(self),
            number,
            len: 0,
        })
    }
}

impl Room for &Arc<Board> {
    type Begun = Region;

    fn begin(self, before: &[u8], piece: &[u8]) -> Option<Region> {
        let mut region = self.take()?;
        let fits = region.append(before) && region.append(piece);
        fits.then_some(region)
    }
}

/// An input on the board. Its region is free again when this is dropped.
#[derive(Debug)]
pub struct Region {
    board: Arc<Board>,
    number: usize,
    len: usize,
}

impl Region {
    fn start(&self) -> *mut u8 {
        // SAFETY: there are so many regions.
        unsafe { self.board.memory.as_mut_ptr().add(self.number * REGION) }
    }

    pub(crate) fn placed(&self) -> Placed {
        // Whoever hears of it sees it.
        fence(Ordering::Release);
        Placed {
            // Both are far below 4 GiB.
            at: (WORDS + self.number * REGION / 8) as u32,
            len: self.len as u32,
            ..Placed::default()
        }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes have been written there, and whoever may write needs `self` for himself.
        unsafe { slice::from_raw_parts(self.start(), self.len) }
    }
}

impl Begun for Region {
    fn append(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > REGION - self.len {
            return false;
        }
        // SAFETY: they fit. Nobody else writes to a region that was taken, and nobody reads it yet: `self` is
        // borrowed for writing, and no worker has been told of it. `bytes` is no part of what is written
        // to: of that nobody has a reference.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start().add(self.len), bytes.len());
        };
        self.len += bytes.len();
        true
    }

    fn copy_to(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.board
            .free
            .fetch_or(1 << self.number, Ordering::Release);
    }
}

/// What one call's input is written on.
pub type InputSheet<'s> = SheetIn<'s, &'s Arc<Board>>;

impl InputSheet<'_> {
    /// What is written on it, if it is on the board; else it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn region(self) -> Option<Region> {
        self.begun()
    }
}

/// A board that can only be read.
#[derive(Debug)]
pub struct View {
    memory: MmapRaw,
}

impl View {
    /// Maps a board's file, which must not shrink.
    ///
    /// # Errors
    ///
    /// It can't be mapped.
    pub fn map(file: &File) -> io::Result<Self> {
        let memory = MmapOptions::new().map_raw_read_only(file)?;
        Ok(View { memory })
    }

    /// What stands there, if there is such a place.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.memory.len() {
            return None;
        }
        // SAFETY: it is within the mapping, which lives as long as `self`. It does not change while it is
        // borrowed: a borrow lasts until the next frame is read at most, and the coordinator keeps the region
        // until this worker has answered, or is dead.
        Some(unsafe { slice::from_raw_parts(self.memory.as_ptr().add(range.start), range.len()) })
    }
}
