//! The lane: a part of the memory that a worker shares with its coordinator, by which large payloads travel.
//!
//! A socket takes a payload in pieces; each piece needs memory of its own and wakes the other side. Through
//! shared memory the payload goes in one piece, in less than half the time. The frame that announces the payload
//! still goes by the socket, and says [where the payload stands](crate::wire::frame::SHARED).
//!
//! A payload that is too small to gain by it, or finds no room, travels in its frame: nobody ever waits for the lane.
//! Several payloads may stand in the lane one behind the other. The sender begins again at the front as soon as the
//! receiver has taken all of them. The two sides speak in turn, so each has the whole lane while it speaks.
//!
//! A large payload's cost is the cost of copying it. So a worker reads inputs where they
//! stand, and encodes a large output [directly into the lane](crate::value::sheet). The worker trusts the coordinator
//! not to touch the lane meanwhile; it runs whatever the coordinator says, after all. The coordinator does not trust
//! the worker: it copies a payload out of the lane before it looks at it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::{ptr, slice};

use super::black_box::BlackBox;
use super::board::View;
use super::load::load_range;
use super::place::WORDS;
pub use super::place::{LEAST, Placed, SIZE, Side};
use crate::value::parcel::{Apart, Owned, Parcel};
use crate::value::room::{Begun, Room};
use crate::value::sheet::SheetIn;

/// How far into the lane several payloads may pile up, in words. Beyond that they would cost more memory than they save
/// time.
const SPREAD: usize = (512 << 10) / 8;

/// Where payloads are put.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<BlackBox>,
    side: Side,
    /// How many payloads were put here, in step with the other side's count of those it has taken.
    sent: u64,
    /// The first word this side may write: before it stands the other side's last payload.
    base: usize,
    /// The word behind the last payload.
    at: usize,
}

impl Outbox {
    /// The other side must have taken all that another sender put into this lane before this one puts anything there.
    pub(crate) fn new(shared: Arc<BlackBox>, side: Side) -> Self {
        Outbox {
            shared,
            side,
            sent: 0,
            base: 0,
            at: 0,
        }
    }

    /// Begins this side's turn: the other side has taken everything. The payload before this word is still being read.
    pub(crate) fn begin_turn(&mut self, base: usize) {
        (self.base, self.at) = (base, base);
    }

    /// Puts a payload of `len` bytes here. `None` if it has to travel in its frame.
    pub(crate) fn put(&mut self, payload: &[&[u8]], len: usize) -> Option<Placed> {
        if len < LEAST {
            return None;
        }
        let from = self.start();
        if from > self.base && from + len.div_ceil(8) > self.base + SPREAD {
            return None;
        }
        let mut draft = Draft::at(from * 8);
        let fits = payload
            .iter()
            .all(|piece| draft.append(&self.shared, piece));
        fits.then(|| self.commit(&draft))
    }

    /// The word at which the next payload may begin.
    fn start(&mut self) -> usize {
        let taken = self.shared.taken(self.side).load(Ordering::Acquire);
        if self.at == self.base || taken == self.sent {
            (self.at, self.sent) = (self.base, taken);
        }
        self.at
    }

    pub(crate) fn shared(&self) -> &Arc<BlackBox> {
        &self.shared
    }

    fn commit(&mut self, draft: &Draft) -> Placed {
        // Release: whoever hears of this payload sees its bytes.
        fence(Ordering::Release);
        self.at = (draft.start + draft.len).div_ceil(8);
        self.sent = self.sent.wrapping_add(1);
        // All three numbers are far below 4 GiB.
        Placed {
            at: ((draft.start + draft.before) / 8) as u32,
            len: draft.len as u32,
            before: draft.before as u32,
            piece: draft.piece as u32,
        }
    }
}

impl<'o> Room for &'o mut Outbox {
    type Begun = OpenDraft<'o>;

    fn begin(self, before: &[u8], piece: &[u8]) -> Option<OpenDraft<'o>> {
        // The large piece begins at a word, because it will be received at one.
        let start = self.start() * 8 + (8 - before.len() % 8) % 8;
        let mut draft = Draft::at(start);
        let fits = draft.append(&self.shared, before) && draft.append(&self.shared, piece);
        (draft.before, draft.piece) = (before.len(), piece.len());
        fits.then_some(OpenDraft {
            outbox: self,
            draft,
        })
    }
}

/// Bytes that are written one behind the other, from a word on.
#[derive(Debug)]
pub(super) struct Draft {
    /// The byte at which they begin.
    start: usize,
    len: usize,
    /// Where among the bytes the large piece begins, at a word, and how long it is. Both are 0 if there is none.
    before: usize,
    piece: usize,
}

impl Draft {
    pub(super) fn at(start: usize) -> Self {
        Draft {
            start,
            len: 0,
            before: 0,
            piece: 0,
        }
    }

    /// Adds bytes. If there is no room for them, returns `false` and adds nothing.
    #[expect(unsafe_code, reason = "memory that two processes share")]
    pub(super) fn append(&mut self, shared: &BlackBox, bytes: &[u8]) -> bool {
        let lane = shared.lane();
        let start = self.start + self.len;
        let end = start.checked_add(bytes.len());
        if end.is_none_or(|end| end > size_of_val(lane)) {
            return false;
        }
        // SAFETY: the bytes fit. They do not overlap the lane: nothing hands out a reference into the lane while its
        // side may write. Atomics may be written by a shared reference, and nobody else in this process touches the
        // lane. The other process must not read these bytes before it is told of them; if it does, it reads nonsense.
        unsafe {
            let lane = lane.as_ptr().cast::<u8>().cast_mut();
            ptr::copy_nonoverlapping(bytes.as_ptr(), lane.add(start), bytes.len());
        }
        self.len += bytes.len();
        true
    }
}

/// A payload that is being written into the lane.
#[derive(Debug)]
pub struct OpenDraft<'o> {
    outbox: &'o mut Outbox,
    draft: Draft,
}

impl OpenDraft<'_> {
    /// Ends the payload, which is complete.
    pub(crate) fn close(self) -> Placed {
        self.outbox.commit(&self.draft)
    }
}

/// What one call's output is written on.
pub type Sheet<'s> = SheetIn<'s, &'s mut Outbox>;

impl Sheet<'_> {
    /// The output, if it was written into the lane. Otherwise it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn placed(self) -> Option<Placed> {
        self.begun().map(OpenDraft::close)
    }
}

impl Begun for OpenDraft<'_> {
    fn append(&mut self, bytes: &[u8]) -> bool {
        self.draft.append(&self.outbox.shared, bytes)
    }

    fn copy_to(&self, buffer: &mut Vec<u8>) {
        let range = self.draft.start..self.draft.start + self.draft.len;
        load_range(self.outbox.shared.lane(), range, buffer);
    }
}

/// Where payloads are taken from.
#[derive(Debug)]
pub(crate) struct Inbox {
    shared: Arc<BlackBox>,
    side: Side,
    board: Option<View>,
}

impl Inbox {
    pub(crate) fn new(shared: Arc<BlackBox>, side: Side) -> Self {
        Inbox {
            shared,
            side,
            board: None,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<BlackBox> {
        &self.shared
    }

    pub(crate) fn set_board(&mut self, board: View) {
        self.board = Some(board);
    }

    /// A payload on the board.
    pub(crate) fn on_board(&self, placed: Placed) -> Option<&[u8]> {
        let board = self.board.as_ref()?;
        let start = u64::from(placed.at).checked_sub(WORDS as u64)? * 8;
        let end = start + u64::from(placed.len);
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        fence(Ordering::Acquire);
        board.get(range)
    }

    /// Copies a payload into a buffer. Returns `false` if the lane has no such place.
    pub(crate) fn take(&self, placed: Placed, buffer: &mut Vec<u8>) -> bool {
        let Some(range) = placed.range(self.shared.lane()) else {
            return false;
        };
        buffer.clear();
        fence(Ordering::Acquire);
        load_range(self.shared.lane(), range, buffer);
        self.count();
        true
    }

    /// Copies a payload into memory that the caller keeps: into the buffer from `spare`, and a large piece into memory
    /// of its own. `None` if the lane has no such place.
    pub(crate) fn hand_over(
        &self,
        placed: Placed,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> Option<Parcel> {
        if placed.piece > 0 {
            return self.take_apart(placed).map(Parcel::Apart);
        }
        let mut buffer = spare();
        let is_there = self.take(placed, &mut buffer);
        is_there.then(|| Parcel::Whole(Owned::new(buffer)))
    }

    fn take_apart(&self, placed: Placed) -> Option<Apart> {
        let Range { start, end } = placed.range(self.shared.lane())?;
        let (before, len) = (placed.before as usize, placed.piece as usize);
        let at = start + before;
        let lane = self.shared.lane();
        let (mut around, mut piece) = (Vec::new(), Vec::new());
        fence(Ordering::Acquire);
        load_range(lane, start..at, &mut around);
        load_range(lane, at..at + len, &mut piece);
        load_range(lane, at + len..end, &mut around);
        self.count();
        Apart::new(around, before, piece)
    }

    /// A payload where it stands, and the word behind it. Only a worker may read so, and it puts its answers behind that
    /// word.
    #[expect(unsafe_code, reason = "memory that two processes share")]
    pub(crate) fn in_place(&self, placed: Placed) -> Option<(&[u8], usize)> {
        // Behind the input there has to be room for an output of its size.
        let most = size_of_val(self.shared.lane()) / 2;
        if self.side != Side::Worker || placed.len as usize > most {
            return None;
        }
        let range = placed.range(self.shared.lane())?;
        fence(Ordering::Acquire);
        self.count();
        // SAFETY: the range is within the lane, which lives as long as `self`. Its bytes do not change while they are
        // borrowed: a borrow of the inbox ends before the next frame is read. Until then this side writes only behind
        // the range, and the coordinator waits for an answer and does not write.
        let bytes = unsafe {
            let lane = self.shared.lane().as_ptr().cast::<u8>();
            slice::from_raw_parts(lane.add(range.start), range.len())
        };
        Some((bytes, range.end.div_ceil(8)))
    }

    /// Counts a payload as taken.
    fn count(&self) {
        let taken = self.shared.taken(match self.side {
            Side::Coordinator => Side::Worker,
            Side::Worker => Side::Coordinator,
        });
        // Load and store need not be one step: only this side writes this counter.
        let count = taken.load(Ordering::Relaxed).wrapping_add(1);
        taken.store(count, Ordering::Release);
    }
}
