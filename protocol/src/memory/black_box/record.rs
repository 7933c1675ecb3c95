//! What a batch's calls are by the box: taken with a ticket, finished with an output, or taken back. Who may touch what
//! when, and in which order, is here and nowhere else.
//!
//! It does not say what memory is made of, so that `model` can try all orders in which two processors may see it.

use std::sync::atomic::Ordering;

use super::{Found, Progress};

pub(super) const TICKET: usize = 0;
pub(super) const DONE: usize = 1;
pub(super) const SENT: usize = 2;
pub(super) const ENTRIES: usize = 8;

/// Words that two sides can see.
pub(super) trait Memory {
    type Word;
    /// How many outputs there is room to write down; the rest of the words is for the outputs themselves.
    const CALLS: usize;

    fn load(word: &Self::Word, order: Ordering) -> u64;
    fn store(word: &Self::Word, value: u64, order: Ordering);
    /// Acquires and releases. It may fail for no reason.
    fn exchange(word: &Self::Word, from: u64, to: u64) -> Result<u64, u64>;
    fn fence(order: Ordering);
    /// Appends so many bytes of the words.
    fn copy(words: &[Self::Word], len: usize, into: &mut Vec<u8>);
}

/// The part of a box that says how far its worker has come.
#[derive(Debug)]
pub(super) struct Record<'b, M: Memory>(pub(super) &'b [M::Word]);

impl<'b, M: Memory> Record<'b, M> {
    #[inline]
    fn load(&self, word: usize, order: Ordering) -> u64 {
        M::load(&self.0[word], order)
    }

    /// Changes the ticket in one step. Returns what came of it.
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
        // This order: what is said to be finished may be left of the batch before, as long as none of this one is
        // started. Whoever sees that one is sees what has been said since.
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
        // The change above always comes to something.
        lowered.map_or(to, |(_, allowed)| allowed)
    }

    pub(super) fn finished(&self, from: u32) -> Found {
        // First: a worker that has started none of this batch may still be writing what is left of the batch
        // before. Whoever sees that it has started one sees what it wrote until then.
        let (started, _) = halves(self.load(TICKET, Ordering::Acquire));
        let sent = self.load(SENT, Ordering::Acquire);
        let done = self.load(DONE, Ordering::Acquire).min(started.into());
        let (_, base) = halves(sent);
        let mut found = Found::default();
        let (Some(count), Some(skip)) = (done.checked_sub(base.into()), from.checked_sub(base))
        else {
            return found;
        };
        let mut at = ENTRIES + M::CALLS;
        for number in 0..count.min(M::CALLS as u64) {
            let (nanos, len) = halves(self.load(ENTRIES + number as usize, Ordering::Relaxed));
            let words = (len as usize).div_ceil(8);
            let Some(output) = self.0.get(at..at + words) else {
                return Found::default(); // nonsense
            };
            at += words;
            if number >= u64::from(skip) {
                M::copy(output, len as usize, &mut found.outputs);
                found.lens.push(len);
                found.nanos.push(nanos);
            }
        }
        M::fence(Ordering::Acquire);
        match self.load(SENT, Ordering::Relaxed) {
            same if same == sent => found,
            // They were thrown away while we read.
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

/// Writes bytes into as many words as they need, the last one filled up.
#[inline]
pub(super) fn store<M: Memory>(words: &[M::Word], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks();
    let mut words = words.iter();
    // In this order: a word that there are no bytes for is not taken.
    for (bytes, word) in whole.iter().zip(words.by_ref()) {
        M::store(word, u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if let (Some(word), false) = (words.next(), rest.is_empty()) {
        // Less than a word, one by one: a processor waits if it is to load as a word what it has just stored
        // byte by byte, as short outputs are.
        let backwards = rest.iter().rev();
        let last = backwards.fold(0, |word, byte| word << 8 | u64::from(*byte));
        M::store(word, last, Ordering::Relaxed);
    }
}

/// Writes down what has been finished of one batch.
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
        let words = output.len().div_ceil(8);
        let Some(place) = self.words.get(self.at..self.at + words) else {
            return false;
        };
        if self.entries == M::CALLS {
            return false;
        }
        store::<M>(place, output);
        // It fits into the outputs' part, so it is far below 4 GiB.
        let entry = word(nanos, output.len() as u32);
        M::store(
            &self.words[ENTRIES + self.entries],
            entry,
            Ordering::Relaxed,
        );
        self.at += words;
        self.entries += 1;
        self.done += 1;
        M::store(&self.words[DONE], self.done, Ordering::Release);
        true
    }

    pub(super) fn sent(&mut self, done: u32) {
        let (times, _) = halves(M::load(&self.words[SENT], Ordering::Relaxed));
        // In one step: whoever sees the one half changed sees the other.
        let sent = word(times.wrapping_add(1), done);
        M::store(&self.words[SENT], sent, Ordering::Relaxed);
        // Whoever reads what is written from here on also sees that.
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
