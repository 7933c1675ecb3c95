//! The black box: a piece of memory that a worker shares with its coordinator.
//!
//! All messages go by the link. The box holds what the coordinator must know when the worker is dead, or does not
//! speak in time: which call of a batch the worker is running, and the outputs that
//! it has not sent yet. So a worker may send the outputs of many short calls at once. If one call kills the worker,
//! the coordinator still charges that very call, and keeps the outputs of those before it.
//!
//! | word | what |
//! |---|---|
//! | 0 | the ticket: calls started in the upper half, calls allowed in the lower |
//! | 1 | how many calls of the batch are finished |
//! | 2 | how often the outputs have been thrown away, because they were sent, in the upper half; the first finished call whose output is here in the lower |
//! | 3 | when the call that runs began, in nanoseconds of `CLOCK_MONOTONIC` |
//! | 4 | whether the call that runs is being stopped |
//! | 5, 6 | how many payloads from the coordinator, and from the worker, were taken from the lane |
//! | 8… | 16,384 entries: for each output its length (lower half) and how long its call ran, in nanoseconds (upper half) |
//! | … | the outputs, each filled up to whole words: 256 KiB |
//! | … | what the last panic of the call that runs said: its length, and 4 KiB |
//! | … | from the next multiple of 8 words on: [mail](crate::wire::spin) to the worker, and behind it mail to the coordinator, of 528 words each |
//! | … | the [lane](super::lane), by which large payloads travel: up to 4 MiB, as much as there is |
//!
//! Before it starts a call, the worker takes a ticket: in one atomic step the number of calls started
//! grows by one, if it is below the number allowed. The coordinator may lower the allowed number at any time, and
//! takes back exactly those calls that have not been started.
//!
//! The coordinator prepares the box before it sends a batch. The worker does not touch the box from its last reply on
//! until it has read the next batch.
//!
//! Neither side trusts the other: any bytes in the box are safe to read, even if they make no sense.
#![expect(unsafe_code, reason = "memory that two processes share")]

mod mail;
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
use crate::message::CallEnd;
pub(crate) use mail::{MOST as MOST_MAIL, Mail};
use record::{ENTRIES, Memory, Record, store};

const BEGAN: usize = 3;
const DOOMED: usize = 4;
const TAKEN: usize = 5;
/// The most entries of the box, and the most calls of a batch.
pub const CALLS: usize = 16384;
const OUTPUTS: usize = ENTRIES + CALLS;
/// The outputs' words: 256 KiB.
const OUTPUT_WORDS: usize = 32 << 10;
const PANIC: usize = OUTPUTS + OUTPUT_WORDS;
/// The words for a panic's message: one for its length, and 4 KiB.
const PANIC_WORDS: usize = 1 + 512;
/// Mail begins with a cache line.
const MAIL: usize = (PANIC + PANIC_WORDS).next_multiple_of(8);
const LANE: usize = MAIL + 2 * mail::WORDS;
const WORDS: usize = LANE + place::WORDS;
/// The size of a box without a lane, in bytes. The shorter the lane, the more payloads go by the socket.
pub const LEAST_SIZE: usize = LANE * 8;
/// The size of a box with a full lane, in bytes.
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

/// Finished calls that were found in the box of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The lengths of the outputs, in bytes.
    pub lens: Vec<u32>,
    /// How long each call ran, in nanoseconds.
    pub nanos: Vec<u32>,
    /// How some of them ended, each with its place among these calls.
    pub ends: Vec<(u32, CallEnd)>,
    /// The outputs, one after another.
    pub outputs: Vec<u8>,
}

/// A black box.
#[derive(Debug)]
pub struct BlackBox {
    memory: MmapRaw,
}

impl BlackBox {
    /// Maps a file of [`LEAST_SIZE`] bytes, or more for a lane. The file must not shrink: its maker seals it against that.
    ///
    /// # Errors
    ///
    /// The file is too short, or can't be mapped.
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
        // SAFETY: the mapping is page-aligned, has this many words, at least LANE of them (see `map`), and lives as long
        // as `self`. Any bytes are valid for atomics. Only atomic operations touch the words, except in the lane, whose
        // own rules say who may touch it.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), words) }
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words()[index]
    }

    /// The lane, by which large payloads travel. It may be short or empty.
    pub(crate) fn lane(&self) -> &[AtomicU64] {
        &self.words()[LANE..]
    }

    /// The mail that this side sends.
    #[inline]
    pub(crate) fn mail(&self, of: Side) -> Mail<'_, Mapped> {
        let start = match of {
            Side::Coordinator => MAIL,
            Side::Worker => MAIL + mail::WORDS,
        };
        Mail(&self.words()[start..][..mail::WORDS])
    }

    /// The counter of payloads from `side` that were taken from the lane.
    pub(crate) fn taken(&self, of: Side) -> &AtomicU64 {
        match of {
            Side::Coordinator => self.word(TAKEN),
            Side::Worker => self.word(TAKEN + 1),
        }
    }

    // ---- The coordinator's side ------------------------------------------------------------

    /// Prepares the box for a batch of `calls` calls. The worker must not be running one.
    pub fn open(&self, calls: u32) {
        self.word(DOOMED).store(0, Ordering::Relaxed);
        self.record().open(calls);
    }

    /// Prepares the box for a single call of a plain worker, which does not see the box. The call counts as started at
    /// `now`, when it is sent.
    pub fn open_begun(&self, now: u64) {
        self.begin(now);
        self.record().open_begun();
    }

    /// How far the worker has come with its batch.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.record().progress()
    }

    /// When the running call began, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.word(BEGAN).load(Ordering::Acquire)
    }

    /// Marks the running call as being stopped, which its task may ask for.
    pub fn doom(&self) {
        self.word(DOOMED).store(1, Ordering::Release);
    }

    /// The message of the last panic in the running call. The coordinator asks for it when it finds the worker dead.
    #[must_use]
    pub fn panic(&self) -> Option<Vec<u8>> {
        let len = self.word(PANIC).load(Ordering::Acquire);
        let len = usize::try_from(len).ok()?.min((PANIC_WORDS - 1) * 8);
        let mut text = Vec::new();
        let words = &self.words()[PANIC + 1..][..len.div_ceil(8)];
        load::load(words, len, &mut text);
        (len > 0).then_some(text)
    }

    /// Allows at most `most` calls, or as many as have been started if those are more. Returns
    /// the number allowed: the worker will not run the others.
    pub fn lower(&self, to: u32) -> u32 {
        self.record().lower(to)
    }

    /// The finished calls from `from` on, as far as the box has them. What has been sent may be gone.
    #[must_use]
    pub fn finished(&self, from: u32) -> Found {
        self.record().finished(from)
    }

    // ---- The worker's side -----------------------------------------------------------------

    /// Whether the running call is being stopped.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.word(DOOMED).load(Ordering::Acquire) != 0
    }

    /// Keeps the message of a panic, cut to the room for it. An empty message means that there was no panic.
    pub fn note_panic(&self, text: &[u8]) {
        let text = &text[..text.len().min((PANIC_WORDS - 1) * 8)];
        self.word(PANIC).store(0, Ordering::Release);
        store::<Mapped>(&self.words()[PANIC + 1..], text);
        self.word(PANIC).store(text.len() as u64, Ordering::Release);
    }

    /// Notes that the running call began at `now`.
    pub fn begin(&self, now: u64) {
        self.word(BEGAN).store(now, Ordering::Release);
    }

    /// Takes a ticket for the next call, which begins at `now`. Returns `false` if the worker must not run it.
    #[inline]
    pub fn start(&self, now: u64) -> bool {
        self.word(BEGAN).store(now, Ordering::Relaxed);
        self.record().start()
    }

    /// Begins to record one batch, on the worker's side.
    #[must_use]
    pub fn recorder(&self) -> Recorder<'_> {
        Recorder(self.record().recorder())
    }

    #[inline]
    fn record(&self) -> Record<'_, Mapped> {
        Record(&self.words()[..PANIC])
    }
}

/// Records the finished calls of one batch.
#[derive(Debug)]
pub struct Recorder<'b>(record::Recorder<'b, Mapped>);

impl Recorder<'_> {
    /// Records that the next call has returned a value and printed nothing. If there is no room for its output, returns
    /// `false` and records nothing: the call then counts as finished when its output has been [sent](Self::sent).
    #[must_use]
    #[inline]
    pub fn finish(&mut self, output: &[u8], nanos: u32) -> bool {
        self.0.finish(output, nanos)
    }

    /// As [`finish`](Self::finish), of a call that ended in this way: an encoded [`CallEnd`].
    #[must_use]
    pub fn finish_with(&mut self, end: &[u8], output: &[u8], nanos: u32) -> bool {
        self.0.finish_with(end, output, nanos)
    }

    /// Drops all outputs up to this call, which have been sent.
    pub fn sent(&mut self, done: u32) {
        self.0.sent(done);
    }
}

/// Memory that two processes have mapped.
#[derive(Debug)]
pub(crate) struct Mapped;

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
