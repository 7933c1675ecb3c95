//! A payload that is larger than the lane crosses its second half in parts.
//!
//! A part is put into a berth, and the receiver takes it out while the sender fills the next one. So both copy at the same time,
//! and the berths stay in the processors' caches. The first half may hold an input that a worker is still reading.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::black_box::BlackBox;
use super::lane::Draft;
use super::load::load_range;
use super::place::Placed;
use crate::pages;
use crate::value::parcel::{Apart, Owned, Parcel};

/// How large a part is, in bytes, unless it is the last.
pub const PART: usize = 256 << 10;
/// The least payload that crosses so, in bytes: with less it would take longer than by the socket.
pub(crate) const LEAST: usize = 1 << 20;
/// How much memory a length alone can reserve, in bytes.
const TRUST: usize = 64 << 20;

/// The berths of a lane.
#[derive(Debug, Clone)]
pub(crate) struct Ferry {
    shared: Arc<BlackBox>,
    /// The first byte of the second half.
    start: usize,
    /// How many parts may be under way.
    berths: usize,
}

impl Ferry {
    /// `None` if the lane is too short.
    pub(crate) fn new(shared: &Arc<BlackBox>) -> Option<Self> {
        let words = shared.lane().len();
        let start = words.div_ceil(2) * 8;
        let berths = (words * 8 - start) / PART;
        (berths >= 2).then(|| Ferry {
            shared: Arc::clone(shared),
            start,
            berths,
        })
    }

    pub(crate) fn berths(&self) -> usize {
        self.berths
    }

    fn berth_of(&self, part: usize) -> usize {
        self.start + part % self.berths * PART
    }

    /// Puts a part into its berth: bytes that stand in several places.
    pub(crate) fn put(&self, part: usize, bytes: &[&[u8]]) {
        let mut draft = Draft::at(self.berth_of(part));
        for some in bytes {
            // A part fits into its berth.
            let _ = draft.append(&self.shared, some);
        }
        // Release: whoever hears of the part sees its bytes.
        fence(Ordering::Release);
    }

    fn take(&self, part: usize, range: Range<usize>, buffer: &mut Vec<u8>) {
        fence(Ordering::Acquire);
        let berth = self.berth_of(part);
        let range = berth + range.start..berth + range.end;
        load_range(self.shared.lane(), range, buffer);
    }
}

/// A payload that is coming across.
#[derive(Debug)]
pub(crate) struct Arriving {
    ferry: Ferry,
    placed: Placed,
    /// How many bytes have come.
    come: usize,
    around: Vec<u8>,
    piece: Vec<u8>,
}

impl Arriving {
    /// `None` if the large piece is not within the payload.
    pub(crate) fn new(ferry: Ferry, placed: Placed) -> Option<Self> {
        let end = u64::from(placed.before) + u64::from(placed.piece);
        (end <= u64::from(placed.len)).then(|| Arriving {
            ferry,
            placed,
            come: 0,
            around: Vec::new(),
            piece: Vec::new(),
        })
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> usize {
        (self.placed.len as usize).div_ceil(PART)
    }

    /// Takes the next part. An error says that there is no memory for it.
    pub(crate) fn take(&mut self) -> Result<(), std::collections::TryReserveError> {
        let part = self.come / PART;
        let (before, piece) = (self.placed.before as usize, self.placed.piece as usize);
        let start = self.come;
        let end = (start + PART).min(self.placed.len as usize);
        // What of a range of the payload is in this part.
        let within = |range: Range<usize>| {
            let from = range.start.clamp(start, end) - start;
            from..range.end.clamp(start, end) - start
        };
        let behind = before + piece;
        grow(
            &mut self.around,
            within(0..before).len() + within(behind..end).len(),
            usize::MAX,
        )?;
        grow(&mut self.piece, within(before..behind).len(), piece)?;
        self.ferry.take(part, within(0..before), &mut self.around);
        self.ferry
            .take(part, within(before..behind), &mut self.piece);
        self.ferry
            .take(part, within(behind..end.max(behind)), &mut self.around);
        self.come = end;
        Ok(())
    }

    /// The whole payload. All parts have been taken.
    pub(crate) fn parcel(self) -> Parcel {
        match self.placed.piece {
            0 => Parcel::Whole(Owned::new(self.around)),
            // What stands before the piece is around it.
            _ => Apart::new(self.around, self.placed.before as usize, self.piece)
                .map_or_else(Parcel::default, Parcel::Apart),
        }
    }
}

/// Makes room for a part. The room grows as parts come, and does not become larger than all of it.
fn grow(
    buffer: &mut Vec<u8>,
    more: usize,
    all: usize,
) -> Result<(), std::collections::TryReserveError> {
    if buffer.capacity() - buffer.len() >= more {
        return Ok(());
    }
    let left = all - buffer.len();
    let most = buffer.len().max(TRUST);
    pages::reserve(buffer, left.min(most).max(more))
}
