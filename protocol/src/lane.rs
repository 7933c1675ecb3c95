//! The lane: a part of the memory that a worker shares with its coordinator, by which large payloads travel.
//!
//! A socket takes a payload in pieces, each with memory of its own and a wake-up of the other side. Through
//! shared memory it goes in one, and takes less than half the time. The frame that tells of it
//! still goes by the socket, and says [where it stands](crate::frame::SHARED).
//!
//! A payload that is not worth it, or finds no room, travels in its frame: nobody ever waits for the lane.
//! Small ones may stand there behind each other; the sender begins again in front as soon as all were
//! taken. As the two sides speak in turn, each has the whole lane while it speaks.
//!
//! What stands here may change while it is read, if the other side is up to no good: it is copied out
//! before anybody looks at it.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::black_box::BlackBox;

/// The least payload that travels by the lane, in bytes.
pub const LEAST: usize = 32 << 10;
/// The size of the lane, in bytes.
pub const SIZE: usize = 4 << 20;
pub(crate) const WORDS: usize = SIZE / 8;
/// How far payloads reach that stand behind others, in words: as much as is worth the memory.
const SPREAD: usize = (512 << 10) / 8;

/// Which side of a link one is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It sends inputs.
    Coordinator,
    /// It sends outputs.
    Worker,
}

/// Where payloads are put.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: Arc<BlackBox>,
    side: Side,
    /// How many payloads were put here, counting as the other side does.
    sent: u64,
    /// The word behind the last of them.
    at: usize,
}

impl Outbox {
    /// When the first payload is put here, all that this side has sent otherwise must have been taken.
    pub(crate) fn new(shared: Arc<BlackBox>, side: Side) -> Self {
        Outbox {
            shared,
            side,
            sent: 0,
            at: 0,
        }
    }

    /// Puts a payload of so many bytes here, and says at which word. `None` if it has to travel in its frame.
    pub(crate) fn put(&mut self, payload: &[&[u8]], len: usize) -> Option<u32> {
        if len < LEAST {
            return None;
        }
        let taken = self.shared.taken(self.side).load(Ordering::Acquire);
        if self.at == 0 || taken == self.sent {
            (self.at, self.sent) = (0, taken);
        }
        let end = self.at + len.div_ceil(8);
        if self.at > 0 && end > SPREAD {
            return None;
        }
        let place = self.shared.lane().get(self.at..end)?;
        store(place, payload);
        // Whoever hears of it sees it.
        fence(Ordering::Release);
        let at = std::mem::replace(&mut self.at, end);
        self.sent = self.sent.wrapping_add(1);
        u32::try_from(at).ok()
    }
}

/// Where payloads are taken from.
#[derive(Debug)]
pub(crate) struct Inbox {
    shared: Arc<BlackBox>,
    side: Side,
}

impl Inbox {
    pub(crate) fn new(shared: Arc<BlackBox>, side: Side) -> Self {
        Inbox { shared, side }
    }

    /// Copies a payload into a buffer. `false` if there is no such place.
    pub(crate) fn take(&self, at: u32, len: usize, buffer: &mut Vec<u8>) -> bool {
        let at = at as usize;
        let place = self.shared.lane().get(at..at + len.div_ceil(8));
        let Some(place) = place else { return false };
        buffer.clear();
        fence(Ordering::Acquire);
        load(place, len, buffer);
        let taken = self.shared.taken(match self.side {
            Side::Coordinator => Side::Worker,
            Side::Worker => Side::Coordinator,
        });
        // Nobody else counts here.
        let count = taken.load(Ordering::Relaxed).wrapping_add(1);
        taken.store(count, Ordering::Release);
        true
    }
}

/// Writes bytes into as many words as they need, the last one filled up.
#[inline]
pub(crate) fn store(words: &[AtomicU64], pieces: &[&[u8]]) {
    let mut words = words.iter();
    let mut put = |word| {
        if let Some(place) = words.next() {
            place.store(word, Ordering::Relaxed);
        }
    };
    // The lowest bytes of a word that is not full yet.
    let (mut begun, mut many) = (0, 0);
    for piece in pieces {
        let mut piece = *piece;
        if many > 0 {
            let (front, behind) = piece.split_at(piece.len().min(8 - many));
            begun |= gather(front) << (8 * many);
            many += front.len();
            piece = behind;
            if many < 8 {
                continue;
            }
            put(begun);
        }
        let (whole, rest) = piece.as_chunks();
        whole
            .iter()
            .for_each(|bytes| put(u64::from_le_bytes(*bytes)));
        (begun, many) = (gather(rest), rest.len());
    }
    if many > 0 {
        put(begun);
    }
}

/// Less than a word, one by one: a processor waits if it is to load as a word what it has just stored byte
/// by byte, as short outputs are.
#[inline]
fn gather(bytes: &[u8]) -> u64 {
    let backwards = bytes.iter().rev();
    backwards.fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Appends so many bytes from words, or fewer if there are not so many.
#[inline]
#[expect(unsafe_code, reason = "room need not be cleared before it is filled")]
pub(crate) fn load(words: &[AtomicU64], len: usize, buffer: &mut Vec<u8>) {
    let len = len.min(words.len() * 8);
    buffer.reserve(len);
    let (whole, rest) = buffer.spare_capacity_mut()[..len].as_chunks_mut();
    let mut words = words.iter().map(|word| {
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        bytes.map(MaybeUninit::new)
    });
    for (bytes, word) in whole.iter_mut().zip(words.by_ref()) {
        *bytes = word;
    }
    if !rest.is_empty()
        && let Some(word) = words.next()
    {
        rest.copy_from_slice(&word[..rest.len()]);
    }
    // SAFETY: there are at least `len` bytes in the words, so all of these have been written above.
    unsafe { buffer.set_len(buffer.len() + len) };
}
