//! The state of a batch's calls in the box: taken with a ticket, finished with an output, or taken back. This file alone
//! decides which side touches which word, and in which order.
//!
//! The code is generic over the memory, so that `model` can try all orders in which two processors may see it.

use std::sync::atomic::Ordering;

use super::{Found, Progress};

pub(super) const TICKET: usize = 0;
pub(super) const DONE: usize = 1;
pub(super) const SENT: usize = 2;
pub(super) const ENTRIES: usize = 8;
/// Set in the length of an entry that says how the call of the next entry ended.
const IS_END: u32 = 1 << 31;

/// Words that both sides can see.
pub(crate) trait Memory {
    type Word;
    /// How many entries there is room for. The rest of the words is for what they are of.
    const CALLS: usize;

    fn load(word: &Self::Word, order: Ordering) -> u64;
    fn store(word: &Self::Word, value: u64, order: Ordering);
    /// Compares and exchanges, with acquire and release order. It may fail spuriously.
    fn exchange(word: &Self::Word, from: u64, to: u64) -> Result<u64, u64>;
    fn fence(order: Ordering);
    /// Appends the first `len` bytes of the words.
    fn copy(words: &[Self::Word], len: usize, into: &mut Vec<u8>);
}

/// The part of a box that tells how far its worker has come.
#[derive(Debug)]
pub(super) struct Record<'b, M: Memory>(pub(super) &'b [M::Word]);

impl<'b, M: Memory> Record<'b, M> {
    #[inline]
    fn load(&self, word: usize, order: Ordering) -> u64 {
        M::load(&self.0[word], order)
    }

    /// Changes the ticket in one atomic step. Returns the new ticket.
    #[inline]
    fn exchange(&self, change: impl Fn(u32, u32) -> Option<(u32, u32)>) -> Option<(u32, u32)> {
        let mut ticket = self.load(TICKET, Ordering::Acquire);
        loop {
            let (started, allowed) = halves(ticket);
            let (started, allowed) = change(started, allowed)?;
            match M::exchange(&self.0[TICKET], ticket, word(started, allowed)) {
                Ok(_) => return Some((started, allowed)),
                Err(now) => ticket = now,
            }
        }
    }

    // ---- The coordinator's side ------------------------------------------------------------

    pub(super) fn open(&self, calls: u32) {
        M::store(&self.0[DONE], 0, Ordering::Relaxed);
        M::store(&self.0[TICKET], u64::from(calls), Ordering::Release);
    }

    pub(super) fn open_begun(&self) {
        M::store(&self.0[DONE], 0, Ordering::Relaxed);
        M::store(&self.0[TICKET], word(1, 1), Ordering::Release);
    }

    pub(super) fn progress(&self) -> Progress {
        // In this order: as long as no call of this batch has been started, the number finished may be a remainder of the
        // batch before. A reader that sees a started call also sees the number stored since.
        let (started, allowed) = halves(self.load(TICKET, Ordering::Acquire));
        let finished = self.load(DONE, Ordering::Acquire);
        Progress {
            started,
            allowed,
            finished: u32::try_from(finished).unwrap_or(u32::MAX).min(started),
        }
    }

    pub(super) fn lower(&self, to: u32) -> u32 {
        let lowered =
            self.exchange(|started, allowed| Some((started, to.max(started).min(allowed))));
        // The closure above never returns `None`.
        lowered.map_or(to, |(_, allowed)| allowed)
    }

    pub(super) fn finished(&self, from: u32) -> Found {
        // The ticket is read first: a worker that has started no call of this batch may still be writing its last words
        // on the batch before. A reader that sees a started call also sees all words written before that.
        let (started, _) = halves(self.load(TICKET, Ordering::Acquire));
        let sent = self.load(SENT, Ordering::Acquire);
        let done = self.load(DONE, Ordering::Acquire).min(started.into());
        let (_, base) = halves(sent);
        let mut found = Found::default();
        let (Some(count), Some(skip)) = (done.checked_sub(base.into()), from.checked_sub(base))
        else {
            return found;
        };
        let mut entries = Entries {
            record: self,
            next: 0,
            at: ENTRIES + M::CALLS,
        };
        for number in 0..count.min(M::CALLS as u64) {
            let Some(entry) = entries.next_call() else {
                return Found::default(); // nonsense
            };
            if number >= u64::from(skip) {
                if let Some((words, len)) = entry.end {
                    let mut end = Vec::new();
                    M::copy(words, len, &mut end);
                    let Ok(end) = crate::decode(&end) else {
                        return Found::default();
                    };
                    found.ends.push((found.lens.len() as u32, end));
                }
                M::copy(entry.output, entry.len, &mut found.outputs);
                found.lens.push(entry.len as u32);
                found.nanos.push(entry.nanos);
            }
        }
        M::fence(Ordering::Acquire);
        match self.load(SENT, Ordering::Relaxed) {
            same if same == sent => found,
            // The worker threw the outputs away during this read.
            _ => Found::default(),
        }
    }

    // ---- The worker's side -----------------------------------------------------------------

    #[inline]
    pub(super) fn start(&self) -> bool {
        let taken =
            self.exchange(|started, allowed| (started < allowed).then_some((started + 1, allowed)));
        taken.is_some()
    }

    pub(super) fn recorder(self) -> Recorder<'b, M> {
        let mut recorder = Recorder {
            words: self.0,
            done: 0,
            entries: 0,
            at: ENTRIES + M::CALLS,
        };
        recorder.sent(0);
        recorder
    }
}

/// Reads entries, one after another.
struct Entries<'r, 'b, M: Memory> {
    record: &'r Record<'b, M>,
    next: usize,
    at: usize,
}

/// What the entries of one call say.
struct CallEntry<'r, M: Memory> {
    /// How it ended, unless it just returned a value: words, and how many bytes those are.
    end: Option<(&'r [M::Word], usize)>,
    output: &'r [M::Word],
    len: usize,
    nanos: u32,
}

impl<'r, M: Memory> Entries<'r, '_, M> {
    /// What stands there of the next call. `None` if it makes no sense.
    #[inline]
    fn next_call(&mut self) -> Option<CallEntry<'r, M>> {
        let (mut output, mut len, mut nanos) = self.next()?;
        let mut end = None;
        if len & IS_END != 0 {
            end = Some((output, (len & !IS_END) as usize));
            (output, len, nanos) = self.next()?;
        }
        Some(CallEntry {
            end,
            output,
            // A second end makes no sense: its length is none.
            len: usize::try_from(len).ok().filter(|_| len & IS_END == 0)?,
            nanos,
        })
    }

    /// The next entry: the words that it is of, how many bytes those are, and its number.
    #[inline]
    fn next(&mut self) -> Option<(&'r [M::Word], u32, u32)> {
        let entry = ENTRIES + self.next;
        if self.next == M::CALLS {
            return None;
        }
        let (nanos, len) = halves(self.record.load(entry, Ordering::Relaxed));
        let words = ((len & !IS_END) as usize).div_ceil(8);
        let words = self.record.0.get(self.at..self.at + words)?;
        self.at += words.len();
        self.next += 1;
        Some((words, len, nanos))
    }
}

/// Writes bytes into as many words as they need. The last word is filled up with zeros.
#[inline]
pub(super) fn store<M: Memory>(words: &[M::Word], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks();
    let mut words = words.iter();
    // Zip in this order: the other way round, the iterator would take a word before it finds that no bytes are left.
    for (bytes, word) in whole.iter().zip(words.by_ref()) {
        M::store(word, u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if let (Some(word), false) = (words.next(), rest.is_empty()) {
        // Less than a word is copied byte by byte: a short output has just been stored in single bytes, and a processor
        // stalls when it loads those as one word.
        let backwards = rest.iter().rev();
        let last = backwards.fold(0, |word, byte| word << 8 | u64::from(*byte));
        M::store(word, last, Ordering::Relaxed);
    }
}

/// Records the finished calls of one batch.
#[derive(Debug)]
pub(super) struct Recorder<'b, M: Memory> {
    words: &'b [M::Word],
    done: u64,
    entries: usize,
    at: usize,
}

impl<M: Memory> Recorder<'_, M> {
    #[inline]
    pub(super) fn finish(&mut self, output: &[u8], nanos: u32) -> bool {
        let has_room = self.add(output, 0, nanos);
        if has_room {
            self.done += 1;
            M::store(&self.words[DONE], self.done, Ordering::Release);
        }
        has_room
    }

    pub(super) fn finish_with(&mut self, end: &[u8], output: &[u8], nanos: u32) -> bool {
        let before = (self.entries, self.at);
        let has_room = self.add(end, IS_END, 0) && self.finish(output, nanos);
        if !has_room {
            (self.entries, self.at) = before;
        }
        has_room
    }

    /// Adds an entry. Nobody sees it yet.
    #[inline]
    fn add(&mut self, bytes: &[u8], mark: u32, nanos: u32) -> bool {
        let words = bytes.len().div_ceil(8);
        let Some(place) = self.words.get(self.at..self.at + words) else {
            return false;
        };
        if self.entries == M::CALLS {
            return false;
        }
        store::<M>(place, bytes);
        // The bytes fit into their part of the box, so their length is far below 2 GiB.
        let entry = word(nanos, bytes.len() as u32 | mark);
        M::store(
            &self.words[ENTRIES + self.entries],
            entry,
            Ordering::Relaxed,
        );
        self.at += words;
        self.entries += 1;
        true
    }

    pub(super) fn sent(&mut self, done: u32) {
        let (times, _) = halves(M::load(&self.words[SENT], Ordering::Relaxed));
        // One store for both halves, so that a reader never sees only one of them changed.
        let sent = word(times.wrapping_add(1), done);
        M::store(&self.words[SENT], sent, Ordering::Relaxed);
        // A reader that sees anything written behind this fence also sees the store above.
        M::fence(Ordering::Release);
        self.done = done.into();
        self.entries = 0;
        self.at = ENTRIES + M::CALLS;
        M::store(&self.words[DONE], self.done, Ordering::Release);
    }
}

#[inline]
pub(super) fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[inline]
pub(super) fn word(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}
