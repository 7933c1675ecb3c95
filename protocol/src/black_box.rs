//! The black box: a piece of memory that a worker shares with its coordinator.
//!
//! The link stays the way by which everything is said. The box holds what must be known when nobody can
//! say it any more, or not in time: which call of a batch a worker is running, and the outputs of those
//! that it has finished and not sent yet. So a worker may send the outputs of many short calls at once,
//! and still the one call that killed it is charged, and the finished ones are not lost.
//!
//! | word | what |
//! |---|---|
//! | 0 | the ticket: calls started in the upper half, calls allowed in the lower |
//! | 1 | how many calls of the batch are finished |
//! | 2 | how often the outputs have been thrown away, because they were sent, in the upper half; the first finished call whose output is here in the lower |
//! | 3 | when the call that runs began, in nanoseconds of `CLOCK_MONOTONIC` |
//! | 4 | whether the call that runs is being stopped |
//! | 5, 6 | how many payloads from the coordinator, and from the worker, were taken from the lane |
//! | 8… | for each output its length (lower half) and how long its call ran, in nanoseconds (upper half) |
//! | … | the outputs, each filled up to whole words: 256 KiB |
//! | … | what the last panic of the call that runs said: its length, and 4 KiB |
//! | … | the [lane], by which large payloads travel: up to 4 MiB, as much as there is |
//!
//! Before it starts a call, the worker takes a ticket: in one atomic step the number of calls started
//! grows by one, if it is below the number allowed. The coordinator may lower the latter at any time, and
//! so takes back exactly those calls that have not been started.
//!
//! The coordinator prepares the box for a batch before it sends it: from its last reply on until it has
//! read the next batch, the worker leaves the box alone.
//!
//! Neither side trusts the other: whatever stands here, reading it can't go wrong, only be nonsense.
#![expect(unsafe_code, reason = "memory that two processes share")]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::MmapRaw;

use crate::lane::{self, Side};
use crate::load;

const TICKET: usize = 0;
const DONE: usize = 1;
const SENT: usize = 2;
const BEGAN: usize = 3;
const DOOMED: usize = 4;
const TAKEN: usize = 5;
const ENTRIES: usize = 8;
/// The most calls whose outputs the box holds: as many as a batch may have.
pub const CALLS: usize = 16384;
const OUTPUTS: usize = ENTRIES + CALLS;
/// The outputs' words: 256 KiB.
const OUTPUT_WORDS: usize = 32 << 10;
const PANIC: usize = OUTPUTS + OUTPUT_WORDS;
/// One for the length, and 4 KiB.
const PANIC_WORDS: usize = 1 + 512;
const LANE: usize = PANIC + PANIC_WORDS;
const WORDS: usize = LANE + lane::WORDS;
/// What it takes without a lane, in bytes. With a shorter lane than [`SIZE`] has room for, more goes by the socket.
pub const LEAST_SIZE: usize = LANE * 8;
/// The size of a box, in bytes.
pub const SIZE: usize = WORDS * 8;

/// How far a worker has come with its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many calls it has started.
    pub started: u32,
    /// How many it may start.
    pub allowed: u32,
    /// How many it has finished.
    pub finished: u32,
}

/// Finished calls whose outputs were found in a box.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The lengths of the outputs, in bytes.
    pub lens: Vec<u32>,
    /// How long each call ran, in nanoseconds.
    pub nanos: Vec<u32>,
    /// The outputs, one after another.
    pub outputs: Vec<u8>,
}

/// A black box.
#[derive(Debug)]
pub struct BlackBox {
    memory: MmapRaw,
}

impl BlackBox {
    /// Maps a file of [`LEAST_SIZE`] bytes, or more for a lane. It must not shrink: its maker seals it against that.
    ///
    /// # Errors
    ///
    /// It is too short, or can't be mapped.
    pub fn map(file: &File) -> io::Result<Self> {
        let memory = MmapRaw::map_raw(file)?;
        if memory.len() < LEAST_SIZE {
            return Err(io::Error::other("the black box is too short"));
        }
        Ok(BlackBox { memory })
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        let words = (self.memory.len() / 8).min(WORDS);
        // SAFETY: the mapping is page-aligned, so many words long, at least LANE of them (see `map`), and lives as long as
        // `self`; zeros, or whatever else another process writes, are valid for atomics, and nothing
        // but atomic operations touches it, or in the lane whoever has it (see there).
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), words) }
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words()[index]
    }

    /// The lane, by which large payloads travel. It may be short, or there may be none.
    pub(crate) fn lane(&self) -> &[AtomicU64] {
        &self.words()[LANE..]
    }

    /// How many of a side's payloads were taken from the lane.
    pub(crate) fn taken(&self, of: Side) -> &AtomicU64 {
        match of {
            Side::Coordinator => self.word(TAKEN),
            Side::Worker => self.word(TAKEN + 1),
        }
    }

    // ---- The coordinator's side ------------------------------------------------------------

    /// Prepares for a batch of so many calls. The worker must not be running one.
    pub fn open(&self, calls: u32) {
        self.word(DONE).store(0, Ordering::Relaxed);
        self.word(DOOMED).store(0, Ordering::Relaxed);
        self.word(TICKET).store(u64::from(calls), Ordering::Release);
    }

    /// How far the worker has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        // This order: what is said to be finished may be left of the batch before, as long as none of this one is
        // started. Whoever sees that one is sees what has been said since.
        let (started, allowed) = halves(self.word(TICKET).load(Ordering::Acquire));
        let finished = self.word(DONE).load(Ordering::Acquire);
        Progress {
            started,
            allowed,
            finished: u32::try_from(finished).unwrap_or(u32::MAX).min(started),
        }
    }

    /// When the call that runs began, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.word(BEGAN).load(Ordering::Acquire)
    }

    /// Notes that the call that runs is being stopped: its task may ask.
    pub fn doom(&self) {
        self.word(DOOMED).store(1, Ordering::Release);
    }

    /// What the last panic of the call that ran said, for who finds its worker dead.
    #[must_use]
    pub fn panic(&self) -> Option<Vec<u8>> {
        let len = self.word(PANIC).load(Ordering::Acquire);
        let len = usize::try_from(len).ok()?.min((PANIC_WORDS - 1) * 8);
        let mut text = Vec::new();
        let words = &self.words()[PANIC + 1..][..len.div_ceil(8)];
        load::load(words, len, &mut text);
        (len > 0).then_some(text)
    }

    /// Allows no more than so many calls, or as many as have been started if those are more. Returns
    /// how many that are: the others will not be run.
    pub fn lower(&self, to: u32) -> u32 {
        let mut ticket = self.word(TICKET).load(Ordering::Acquire);
        loop {
            let (started, allowed) = halves(ticket);
            let lowered = to.max(started).min(allowed);
            match self.word(TICKET).compare_exchange_weak(
                ticket,
                word(started, lowered),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return lowered,
                Err(now) => ticket = now,
            }
        }
    }

    /// The outputs of the finished calls from `from` on, as far as they are here. They may be gone
    /// because they have been sent; then there is nothing.
    #[must_use]
    pub fn finished(&self, from: u32) -> Found {
        // First: a worker that has started none of this batch may still be writing what is left of the batch
        // before. Whoever sees that it has started one sees what it wrote until then.
        let (started, _) = halves(self.word(TICKET).load(Ordering::Acquire));
        let sent = self.word(SENT).load(Ordering::Acquire);
        let done = self.word(DONE).load(Ordering::Acquire).min(started.into());
        let (_, base) = halves(sent);
        let mut found = Found::default();
        let (Some(count), Some(skip)) = (done.checked_sub(base.into()), from.checked_sub(base))
        else {
            return found;
        };
        let mut at = OUTPUTS;
        for number in 0..count.min(CALLS as u64) {
            let (nanos, len) = halves(self.word(ENTRIES + number as usize).load(Ordering::Relaxed));
            let words = (len as usize).div_ceil(8);
            let Some(output) = self.words()[..PANIC].get(at..at + words) else {
                return Found::default(); // nonsense
            };
            at += words;
            if number >= u64::from(skip) {
                load::load(output, len as usize, &mut found.outputs);
                found.lens.push(len);
                found.nanos.push(nanos);
            }
        }
        fence(Ordering::Acquire);
        match self.word(SENT).load(Ordering::Relaxed) {
            same if same == sent => found,
            // They were thrown away while we read.
            _ => Found::default(),
        }
    }

    // ---- The worker's side -----------------------------------------------------------------

    /// Whether the call that runs is being stopped.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.word(DOOMED).load(Ordering::Acquire) != 0
    }

    /// Notes what a panic says, as far as there is room. Nothing says that there was none.
    pub fn note_panic(&self, text: &[u8]) {
        let text = &text[..text.len().min((PANIC_WORDS - 1) * 8)];
        self.word(PANIC).store(0, Ordering::Release);
        store(&self.words()[PANIC + 1..], text);
        self.word(PANIC).store(text.len() as u64, Ordering::Release);
    }

    /// The call that runs begins at `now`.
    pub fn begin(&self, now: u64) {
        self.word(BEGAN).store(now, Ordering::Release);
    }

    /// Takes a ticket for the next call, which begins at `now`; `false` if it is not to be run.
    #[inline]
    pub fn start(&self, now: u64) -> bool {
        self.word(BEGAN).store(now, Ordering::Relaxed);
        let mut ticket = self.word(TICKET).load(Ordering::Acquire);
        loop {
            let (started, allowed) = halves(ticket);
            if started >= allowed {
                return false;
            }
            match self.word(TICKET).compare_exchange_weak(
                ticket,
                word(started + 1, allowed),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => ticket = now,
            }
        }
    }

    /// The worker's hand on the box, for one batch.
    #[must_use]
    pub fn recorder(&self) -> Recorder<'_> {
        let mut recorder = Recorder {
            words: self.words(),
            done: 0,
            entries: 0,
            at: OUTPUTS,
        };
        recorder.sent(0);
        recorder
    }
}

/// Writes bytes into as many words as they need, the last one filled up.
#[inline]
fn store(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks();
    let mut words = words.iter();
    // In this order: a word that there are no bytes for is not taken.
    for (bytes, word) in whole.iter().zip(words.by_ref()) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if let (Some(word), false) = (words.next(), rest.is_empty()) {
        // Less than a word, one by one: a processor waits if it is to load as a word what it has just stored
        // byte by byte, as short outputs are.
        let backwards = rest.iter().rev();
        let last = backwards.fold(0, |word, byte| word << 8 | u64::from(*byte));
        word.store(last, Ordering::Relaxed);
    }
}

/// Writes down what has been finished of one batch.
#[derive(Debug)]
pub struct Recorder<'b> {
    words: &'b [AtomicU64],
    done: u64,
    entries: usize,
    at: usize,
}

impl Recorder<'_> {
    /// Writes down that the next call has finished, with its output. `false`, and nothing is written, if
    /// there is no room: then it is finished when it has been [sent](Self::sent).
    #[must_use]
    #[inline]
    pub fn finish(&mut self, output: &[u8], nanos: u32) -> bool {
        let words = output.len().div_ceil(8);
        let Some(place) = self.words[..PANIC].get(self.at..self.at + words) else {
            return false;
        };
        if self.entries == CALLS {
            return false;
        }
        store(place, output);
        // It fits into the outputs' part, so it is far below 4 GiB.
        let entry = word(nanos, output.len() as u32);
        self.words[ENTRIES + self.entries].store(entry, Ordering::Relaxed);
        self.at += words;
        self.entries += 1;
        self.done += 1;
        self.words[DONE].store(self.done, Ordering::Release);
        true
    }

    /// All outputs up to this call have been sent: they need not be kept.
    pub fn sent(&mut self, done: u32) {
        let (times, _) = halves(self.words[SENT].load(Ordering::Relaxed));
        // In one step: whoever sees the one half changed sees the other.
        let sent = word(times.wrapping_add(1), done);
        self.words[SENT].store(sent, Ordering::Relaxed);
        // Whoever reads what is written from here on also sees that.
        fence(Ordering::Release);
        self.done = done.into();
        self.entries = 0;
        self.at = OUTPUTS;
        self.words[DONE].store(self.done, Ordering::Release);
    }
}

#[inline]
fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[inline]
fn word(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::sync::atomic::AtomicBool;

    use super::*;

    fn new() -> BlackBox {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64).unwrap();
        BlackBox::map(&file).unwrap()
    }

    #[test]
    fn what_was_not_started_can_be_taken_back() {
        let shared = new();
        shared.open(5);
        assert!(shared.start(1) && shared.start(2));
        assert_eq!(shared.lower(0), 2);
        assert!(!shared.start(3));
        let progress = shared.progress();
        assert_eq!((progress.started, progress.allowed), (2, 2));
        // It is never raised.
        assert_eq!(shared.lower(9), 2);
    }

    #[test]
    fn tickets_are_exact_whoever_is_faster() {
        let shared = new();
        for _ in 0..200 {
            shared.open(1000);
            let (taken, left) = std::thread::scope(|scope| {
                let worker = scope.spawn(|| (0..2000).filter(|_| shared.start(0)).count());
                let lowered = (0..10).rev().map(|to| shared.lower(to * 100));
                let left = lowered.fold(0, |_, left| left);
                (worker.join().unwrap(), left)
            });
            assert_eq!(taken, left as usize);
        }
    }

    #[test]
    fn what_was_finished_and_not_sent_is_found() {
        let shared = new();
        shared.open(10);
        let mut recorder = shared.recorder();
        let outputs: [&[u8]; 4] = [b"", b"1", b"12345678", b"1234567890"];
        for (number, output) in outputs.iter().enumerate() {
            assert!(shared.start(0) && recorder.finish(output, number as u32));
        }
        let found = shared.finished(1);
        assert_eq!(found.outputs, b"1123456781234567890");
        assert_eq!((found.lens, found.nanos), (vec![1, 8, 10], vec![1, 2, 3]));
        recorder.sent(4);
        assert_eq!(shared.finished(4), Found::default());
        assert!(shared.start(0) && recorder.finish(b"x", 7));
        assert_eq!(shared.finished(4).outputs, b"x");
        // What has been sent already is none of the box's business.
        assert_eq!(shared.finished(5), Found::default());
        assert_eq!(shared.finished(3), Found::default());
        let progress = shared.progress();
        assert_eq!((progress.started, progress.finished), (5, 5));
    }

    #[test]
    fn what_is_found_while_it_is_written_is_right_or_nothing() {
        let shared = new();
        shared.open(u32::MAX);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut recorder = shared.recorder();
                let calls = (0..u32::MAX).take_while(|_| !stop.load(Ordering::Relaxed));
                for call in calls {
                    assert!(shared.start(0));
                    let output = [&call.to_le_bytes()[..], &[7; 8]].concat();
                    let _ = recorder.finish(&output[..4 + call as usize % 9], call);
                    if call % 5 > 2 {
                        recorder.sent(call + 1);
                    }
                }
            });
            // Also if what is found is wrong.
            let _stop = Stop(&stop);
            let mut times = 0;
            while times < 10_000 {
                let from = shared.progress().finished.saturating_sub(2);
                let found = shared.finished(from);
                times += u32::from(!found.lens.is_empty());
                let mut rest = &*found.outputs;
                for (call, (len, nanos)) in (from..).zip(found.lens.iter().zip(&found.nanos)) {
                    let (output, behind) = rest.split_at(*len as usize);
                    rest = behind;
                    assert_eq!((*len, *nanos), (4 + call % 9, call));
                    assert_eq!(output[..4], call.to_le_bytes());
                    assert!(output[4..].iter().all(|byte| *byte == 7));
                }
                assert!(rest.is_empty());
            }
        });
    }

    struct Stop<'s>(&'s AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_full_box_says_so() {
        let shared = new();
        shared.open(3);
        let mut recorder = shared.recorder();
        assert!(shared.start(1));
        assert!(!recorder.finish(&vec![0; OUTPUT_WORDS * 8 + 1], 0));
        assert!(recorder.finish(&vec![7; OUTPUT_WORDS * 8], 0));
        assert!(!recorder.finish(b"1", 0));
        assert_eq!(shared.finished(0).outputs.len(), OUTPUT_WORDS * 8);
        recorder.sent(1);
        for _ in 0..CALLS {
            assert!(recorder.finish(b"", 0));
        }
        assert!(!recorder.finish(b"", 0));
    }

    /// The worker has sent its last reply, and writes down that it has when the next batch is there already.
    #[test]
    fn what_is_left_of_a_batch_is_never_taken_for_the_next_one() {
        let shared = new();
        shared.open(2);
        let mut recorder = shared.recorder();
        assert!(shared.start(1) && recorder.finish(b"old", 1));
        assert!(shared.start(2) && recorder.finish(b"old", 1));
        shared.open(2);
        // Between the two steps of a recorder's beginning.
        shared.word(SENT).store(word(9, 0), Ordering::Relaxed);
        shared.word(DONE).store(2, Ordering::Release);
        assert!(shared.finished(0).lens.is_empty());
        let mut recorder = shared.recorder();
        assert!(shared.start(3) && recorder.finish(b"new", 1));
        assert_eq!(shared.finished(0).outputs, b"new");
    }

    #[test]
    fn nonsense_is_read_as_nothing_worse() {
        let shared = new();
        for seed in 0..200_u64 {
            for (index, word) in shared.words().iter().enumerate().take(OUTPUTS) {
                let noise = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ index as u64);
                word.store(
                    if seed % 2 == 0 { noise } else { noise % 32 },
                    Ordering::Relaxed,
                );
            }
            let progress = shared.progress();
            assert!(progress.finished <= progress.started);
            let found = shared.finished((seed % 8) as u32);
            assert_eq!(found.lens.len(), found.nanos.len());
            let total: usize = found.lens.iter().map(|len| *len as usize).sum();
            assert_eq!(found.outputs.len(), total);
        }
    }
}
