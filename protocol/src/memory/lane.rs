//! The lane: a part of the memory that a worker shares with its coordinator, by which large payloads travel.
//!
//! A socket takes a payload in pieces, each with memory of its own and a wake-up of the other side. Through
//! shared memory it goes in one, and takes less than half the time. The frame that tells of it
//! still goes by the socket, and says [where it stands](crate::wire::frame::SHARED).
//!
//! A payload that is not worth it, or finds no room, travels in its frame: nobody ever waits for the lane.
//! Small ones may stand there behind each other; the sender begins again in front as soon as all were
//! taken. As the two sides speak in turn, each has the whole lane while it speaks.
//!
//! What a large payload costs is to be copied. So a worker reads inputs where they
//! stand, and writes a large output [here in the first place](crate::value::sheet). It takes its
//! coordinator's word for leaving the lane alone meanwhile; it runs whatever that says, after all. A
//! coordinator takes nobody's word: it copies a payload out before it looks at it.

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

/// How far payloads reach that stand behind others, in words: as much as is worth the memory.
const SPREAD: usize = (512 << 10) / 8;

/// Where payloads are put.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<BlackBox>,
    side: Side,
    /// How many payloads were put here, counting as the other side does.
    sent: u64,
    /// The first word that is ours: before it stands what the other side has said last.
    base: usize,
    /// The word behind the last payload.
    at: usize,
}

impl Outbox {
    /// When the first payload is put here, all that this side has sent otherwise must have been taken.
    pub(crate) fn new(shared: Arc<BlackBox>, side: Side) -> Self {
        Outbox {
            shared,
            side,
            sent: 0,
            base: 0,
            at: 0,
        }
    }

    /// It is this side's turn, which means that the other has taken everything. What stands before this word
    /// is still being read.
    pub(crate) fn begin_turn(&mut self, base: usize) {
        (self.base, self.at) = (base, base);
    }

    /// Puts a payload of so many bytes here. `None` if it has to travel in its frame.
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

    fn commit(&mut self, draft: &Draft) -> Placed {
        // Whoever hears of it sees it.
        fence(Ordering::Release);
        self.at = (draft.start + draft.len).div_ceil(8);
        self.sent = self.sent.wrapping_add(1);
        // All are far below 4 GiB.
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
        // The piece begins with a word, as it will where it is received.
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

/// Bytes that are being put one behind the other, from a word on.
#[derive(Debug)]
struct Draft {
    /// At which byte they begin.
    start: usize,
    len: usize,
    /// Where among them the large piece begins, at a word, and how long it is; both 0 if there is none.
    before: usize,
    piece: usize,
}

impl Draft {
    fn at(start: usize) -> Self {
        Draft {
            start,
            len: 0,
            before: 0,
            piece: 0,
        }
    }

    /// Adds bytes. `false`, and nothing is added, if there is no room for them.
    #[expect(unsafe_code, reason = "memory that two processes share")]
    fn append(&mut self, shared: &BlackBox, bytes: &[u8]) -> bool {
        let lane = shared.lane();
        let start = self.start + self.len;
        let end = start.checked_add(bytes.len());
        if end.is_none_or(|end| end > size_of_val(lane)) {
            return false;
        }
        // SAFETY: it fits, and `bytes` is no part of the lane: nothing here hands out any of it while its
        // side may write. Atomics may be written by a shared reference, and of this process nobody else
        // touches the lane; what the other one makes of it before it is told is its own affair.
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
    /// It is complete.
    pub(crate) fn close(self) -> Placed {
        self.outbox.commit(&self.draft)
    }
}

/// What one call's output is written on.
pub type Sheet<'s> = SheetIn<'s, &'s mut Outbox>;

impl Sheet<'_> {
    /// What is written on it, if it is in the lane; else it stands at the end of the buffer.
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

    /// Copies a payload into a buffer. `false` if there is no such place.
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

    /// Copies a payload into memory that is given away: what `spare` gives, or if there is a large piece,
    /// memory of its own for that. `None` if there is no such place.
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

    /// A payload where it stands, and the word behind it, if this side reads it so: a worker that answers
    /// behind it.
    #[expect(unsafe_code, reason = "memory that two processes share")]
    pub(crate) fn in_place(&self, placed: Placed) -> Option<(&[u8], usize)> {
        // Behind it there has to be room for an output like it.
        let most = size_of_val(self.shared.lane()) / 2;
        if self.side != Side::Worker || placed.len as usize > most {
            return None;
        }
        let range = placed.range(self.shared.lane())?;
        fence(Ordering::Acquire);
        self.count();
        // SAFETY: the range is within the lane, which lives as long as `self`. It does not change while
        // it is borrowed: a borrow of the inbox lasts until the next frame is read at most, and until then
        // this side writes behind it, if at all, and the coordinator, who is waiting for an answer, does not
        // write.
        let bytes = unsafe {
            let lane = self.shared.lane().as_ptr().cast::<u8>();
            slice::from_raw_parts(lane.add(range.start), range.len())
        };
        Some((bytes, range.end.div_ceil(8)))
    }

    /// Notes that a payload was taken.
    fn count(&self) {
        let taken = self.shared.taken(match self.side {
            Side::Coordinator => Side::Worker,
            Side::Worker => Side::Coordinator,
        });
        // Nobody else counts here.
        let count = taken.load(Ordering::Relaxed).wrapping_add(1);
        taken.store(count, Ordering::Release);
    }
}
