//! Inputs from an iterator, and results as one: what a map and a stream are made of.

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use worker::Task;

use super::conclude::cancelled;
use super::inputs::{Inputs, push, push_ended};
use super::reports::{Report, Reports, Waited};
use crate::error::CallError;
use crate::payload::Chunk;
use crate::pool::codec::{Codec, Typed};

/// How many inputs are read before looking for a result, at first: results come out as soon as they are
/// there, also where reading an input takes its time, and workers still have something to do.
const STEP: usize = 8;
/// How many are read at most, if reading them takes next to no time.
const LARGE_STEP: usize = 4096;
/// What reading some inputs may take for more to be read the next time.
const QUICK: Duration = Duration::from_micros(100);

/// A map whose inputs are an iterator: it reads inputs and hands out reports, in turn.
pub(in crate::pool) struct Feed<C, I> {
    inputs: Option<(I, Inputs<C>)>,
    reports: Reports<C>,
    /// The panic of reading an input. It continues once the reports before it are taken.
    panic: Option<Box<dyn Any + Send>>,
    /// An input that was read after the map stopped taking any.
    cut_short: Option<u64>,
    taken: u64,
    chunk: Chunk,
    /// How many inputs to read before looking for a result.
    step: usize,
    /// A result that is ready is handed out before another input is read. Reading may take long, or may depend on
    /// what the caller does with the result.
    results_first: bool,
}

impl<C: Codec, I: Iterator<Item = C::Input>> Feed<C, I> {
    pub(in crate::pool) fn new(inputs: I, opened: (Option<Inputs<C>>, Reports<C>)) -> Self {
        let (sender, mut reports) = opened;
        reports.hold_printed(true);
        Feed {
            inputs: sender.map(|sender| (inputs, sender)),
            reports,
            panic: None,
            cut_short: None,
            taken: 0,
            chunk: Chunk::default(),
            step: STEP,
            results_first: false,
        }
    }

    /// For a caller who has the results one by one, and not all at the end. What a call has printed comes before its result.
    pub(in crate::pool) fn results_first(mut self) -> Self {
        self.reports.hold_printed(false);
        Feed {
            results_first: true,
            ..self
        }
    }

    /// The next result, and its index.
    pub(in crate::pool) fn next(&mut self) -> Option<(u64, Result<C::Output, CallError>)> {
        if let Some(result) = self.reports.next_value() {
            self.taken += 1;
            return Some(result);
        }
        self.next_report()
            .map(|report| (report.index, report.result))
    }

    /// The next results that are values and have come already.
    pub(in crate::pool) fn take_values(&mut self, outputs: &mut impl Extend<C::Output>) {
        self.taken += self.reports.take_values(outputs);
    }

    fn next_report(&mut self) -> Option<Report<C::Output>> {
        let mut fed = self.results_first || self.feed();
        loop {
            let limit = fed.then_some(Duration::ZERO);
            match self.reports.wait_unless(limit, self.inputs.is_some()) {
                Waited::Report(report) => {
                    self.taken += 1;
                    return Some(report);
                }
                Waited::NotYet => fed = self.feed(),
                Waited::Exhausted => {
                    self.stop_reading();
                    if let Some(panic) = self.panic.take() {
                        panic::resume_unwind(panic);
                    }
                    // The inputs that were never read must not look like the end.
                    let index = self.cut_short.take()?;
                    let note = "the pool was closed before this input was read".to_owned();
                    return Some(self.reports.report(index, cancelled(note)));
                }
            }
        }
    }

    /// Reads some inputs; whether there may be more to read at once.
    fn feed(&mut self) -> bool {
        if self.inputs.is_none() {
            return false;
        }
        if self.reports.is_copied() {
            self.inputs = None;
            return false;
        }
        let Some(room) = self.room() else {
            if self.reports.is_sealed() {
                self.stop_reading();
            }
            return false;
        };
        // The inputs may be long in coming, or print something themselves.
        self.reports.pass_on_printed();
        let began = Instant::now();
        let more = self.read_some(room.min(self.step));
        self.push();
        if !more {
            self.inputs = None;
        }
        // An input that is slow to come must not hold up results that are ready.
        self.step = match began.elapsed() {
            quick if quick < QUICK => (self.step * 2).min(LARGE_STEP),
            _ => (self.step / 2).max(STEP),
        };
        more
    }

    /// How many calls there is room for; `None` if there is none.
    fn room(&self) -> Option<usize> {
        let under = self.reports.state.as_ref().ok()?;
        let room = under.shared.state().jobs.room(under.id);
        (room > 0).then_some(room)
    }

    /// Reads at most so many inputs; whether there may be more.
    fn read_some(&mut self, most: usize) -> bool {
        let Some((inputs, sender)) = &mut self.inputs else {
            return false;
        };
        // What an iterator promises it has at hand. If it promises nothing, the next input may be long
        // in coming, and those before it are not to wait for it.
        let most = most.min(inputs.size_hint().0.max(1));
        let (chunk, mut refused) = (&mut self.chunk, None);
        let board = sender.under.shared.board();
        let began = Instant::now();
        let read = panic::catch_unwind(AssertUnwindSafe(|| {
            for number in 0..most {
                // Neither results nor the inputs before it are to wait for one that is slow to come. Reading
                // the clock costs as much as a short call, so it is not read for each of many.
                let looks = number > 0 && (most <= STEP || number % STEP == 0);
                if looks && began.elapsed() > QUICK {
                    break;
                }
                let Some(input) = inputs.next() else {
                    return false;
                };
                let codec = &sender.codec;
                if let Err(why) = chunk.add(board, |sheet| codec.encode(input, sheet)) {
                    refused = Some(why);
                    break;
                }
                if chunk.is_full() {
                    break;
                }
            }
            true
        }));
        if let Some(why) = refused {
            self.push();
            if let Ok(under) = &self.reports.state {
                let now = under.shared.now();
                under
                    .shared
                    .act(|state| push_ended(state, under.id, why, now));
            }
        }
        read.unwrap_or_else(|panic| {
            self.panic = Some(panic);
            false
        })
    }

    fn push(&mut self) {
        if !self.chunk.is_empty()
            && let Ok(under) = &self.reports.state
        {
            let chunk = &mut self.chunk;
            under.shared.act(|state| push(state, under.id, chunk));
        }
    }

    /// The map takes no more inputs, though there may be some: it was cut, or the pool closed.
    fn stop_reading(&mut self) {
        // The next input may be long in coming.
        self.reports.pass_on_printed();
        if let Some((mut inputs, _)) = self.inputs.take()
            && let Ok(under) = &self.reports.state
            && !under.shared.state().jobs.is_cut(under.id)
            && inputs.next().is_some()
        {
            let pushed = under.shared.state().jobs.pushed(under.id);
            self.cut_short = Some(pushed.max(self.taken));
        }
    }
}

/// The results of [`Pool::stream`](crate::Pool::stream), in input order.
#[must_use = "a stream does nothing until it is read"]
pub struct Stream<T: Task, I>(pub(in crate::pool) Feed<Typed<T>, I>);

impl<T: Task, I: Iterator<Item = T::Input>> Iterator for Stream<T, I> {
    type Item = Result<T::Output, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, result)| result)
    }
}

/// The results of [`Pool::stream_unordered`](crate::Pool::stream_unordered), as they come, each with
/// the index of its input.
#[must_use = "a stream does nothing until it is read"]
pub struct StreamUnordered<T: Task, I>(pub(in crate::pool) Feed<Typed<T>, I>);

impl<T: Task, I: Iterator<Item = T::Input>> Iterator for StreamUnordered<T, I> {
    type Item = (u64, Result<T::Output, CallError>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<T: Task, I> fmt::Debug for Stream<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&T::NAME).finish()
    }
}

impl<T: Task, I> fmt::Debug for StreamUnordered<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamUnordered").field(&T::NAME).finish()
    }
}
