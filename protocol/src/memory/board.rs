//! The board: memory that a coordinator writes large inputs on, for all of its workers to read.
//!
//! The coordinator keeps an input until its call has ended, because it may have to send the input again, to any
//! worker. So it encodes a large input where all workers can read it, and needs no copy for each sending. Nobody but
//! the coordinator can write there.
//!
//! The board has regions of 4 MiB, and each region holds one input. An input that finds no free region, or does not
//! fit into one, travels as it would without a board. So does an input that is sent together with others.
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
    /// Maps a file of as many [`REGION`]s as the board is to have. The file must not shrink: its maker seals it
    /// against that, and against other writers.
    ///
    /// # Errors
    ///
    /// The file can't be mapped.
    pub fn map(file: &File) -> io::Result<Arc<Self>> {
        let memory = MmapRaw::map_raw(file)?;
        let regions = (memory.len() / REGION).min(REGIONS);
        let free = u64::MAX.checked_shr((REGIONS - regions) as u32);
        Ok(Arc::new(Board {
            memory,
            free: AtomicU64::new(free.unwrap_or(0)),
        }))
    }

    /// Takes the first free region, so that the regions behind it cost no memory until they are needed.
    fn take(self: &Arc<Self>) -> Option<Region> {
        // Acquire: reads of the region's last input happen before the next input overwrites it.
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
        // SAFETY: `index` is below the number of regions, so the offset is within the mapping.
        unsafe { self.board.memory.as_mut_ptr().add(self.number * REGION) }
    }

    pub(crate) fn placed(&self) -> Placed {
        // Release: whoever hears of this input sees its bytes.
        fence(Ordering::Release);
        Placed {
            // Word and length are both far below 4 GiB.
            at: (WORDS + self.number * REGION / 8) as u32,
            len: self.len as u32,
            ..Placed::default()
        }
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes have been written there, and a writer needs `&mut self`.
        unsafe { slice::from_raw_parts(self.start(), self.len) }
    }
}

impl Begun for Region {
    fn append(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > REGION - self.len {
            return false;
        }
        // SAFETY: the bytes fit. Nobody else writes to a region that was taken, and nobody reads it yet: `self` is
        // borrowed mutably, and no worker has been told of the input. `bytes` does not overlap the region's unwritten
        // part, because nobody has a reference to that.
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
    /// The input, if it was written on the board. Otherwise it stands at the end of the buffer.
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

    /// The bytes at a place, or `None` if the board has no such place.
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.memory.len() {
            return None;
        }
        // SAFETY: the range is within the mapping, which lives as long as `self`. Its bytes do not change while they
        // are borrowed: a borrow ends before the next frame is read, and the coordinator keeps the region until this
        // worker has answered or died.
        Some(unsafe { slice::from_raw_parts(self.memory.as_ptr().add(range.start), range.len()) })
    }
}
