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
//! | … | the [lane](super::lane), by which large payloads travel: up to 4 MiB, as much as there is |
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

#[cfg(test)]
mod model;
mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::MmapRaw;

use super::load;
use super::place::{self, Side};
use record::{ENTRIES, Memory, Record, store};

const BEGAN: usize = 3;
const DOOMED: usize = 4;
const TAKEN: usize = 5;
/// The most calls whose outputs the box holds: as many as a batch may have.
pub const CALLS: usize = 16384;
const OUTPUTS: usize = ENTRIES + CALLS;
/// The outputs' words: 256 KiB.
const OUTPUT_WORDS: usize = 32 << 10;
const PANIC: usize = OUTPUTS + OUTPUT_WORDS;
/// One for the length, and 4 KiB.
const PANIC_WORDS: usize = 1 + 512;
const LANE: usize = PANIC + PANIC_WORDS;
const WORDS: usize = LANE + place::WORDS;
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
        self.word(DOOMED).store(0, Ordering::Relaxed);
        self.record().open(calls);
    }

    /// Prepares for a single call, of a worker that does not see the box: it begins at `now`, with being sent.
    pub fn open_begun(&self, now: u64) {
        self.begin(now);
        self.record().open_begun();
    }

    /// How far the worker has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.record().progress()
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
        self.record().lower(to)
    }

    /// The outputs of the finished calls from `from` on, as far as they are here. They may be gone
    /// because they have been sent; then there is nothing.
    #[must_use]
    pub fn finished(&self, from: u32) -> Found {
        self.record().finished(from)
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
        store::<Mapped>(&self.words()[PANIC + 1..], text);
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
        self.record().start()
    }

    /// The worker's hand on the box, for one batch.
    #[must_use]
    pub fn recorder(&self) -> Recorder<'_> {
        Recorder(self.record().recorder())
    }

    #[inline]
    fn record(&self) -> Record<'_, Mapped> {
        Record(&self.words()[..PANIC])
    }
}

/// Writes down what has been finished of one batch.
#[derive(Debug)]
pub struct Recorder<'b>(record::Recorder<'b, Mapped>);

impl Recorder<'_> {
    /// Writes down that the next call has finished, with its output. `false`, and nothing is written, if
    /// there is no room: then it is finished when it has been [sent](Self::sent).
    #[must_use]
    #[inline]
    pub fn finish(&mut self, output: &[u8], nanos: u32) -> bool {
        self.0.finish(output, nanos)
    }

    /// All outputs up to this call have been sent: they need not be kept.
    pub fn sent(&mut self, done: u32) {
        self.0.sent(done);
    }
}

/// Memory that two processes have mapped.
#[derive(Debug)]
struct Mapped;

impl Memory for Mapped {
    type Word = AtomicU64;
    const CALLS: usize = CALLS;

    #[inline]
    fn load(word: &AtomicU64, order: Ordering) -> u64 {
        word.load(order)
    }

    #[inline]
    fn store(word: &AtomicU64, value: u64, order: Ordering) {
        word.store(value, order);
    }

    #[inline]
    fn exchange(word: &AtomicU64, from: u64, to: u64) -> Result<u64, u64> {
        word.compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire)
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }

    #[inline]
    fn copy(words: &[AtomicU64], len: usize, into: &mut Vec<u8>) {
        load::load(words, len, into);
    }
}
