//! The end of a map that reports come out of.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::conclude::{cancelled, conclude};
use super::under::Under;
use crate::error::{CallError, PoolError};
use crate::payload::forward::Forwarder;
use crate::payload::printed::{Captured, Output};
use crate::payload::{Encoded, Job, Trace};
use crate::pool::codec::Codec;
use crate::scheduler::{Ended, Take};

/// How a call ended, and what is left of it; with [`With::every_attempt`](crate::With::every_attempt),
/// also how an attempt ended that was not its last.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report<O> {
    /// The call's index in its map, from 0.
    pub index: u64,
    /// Its value, or why it has none.
    pub result: Result<O, CallError>,
    /// How often it was tried; 0 if it never ran.
    pub attempts: u32,
    /// Whether this is an attempt that did not succeed, and the call is tried again. `attempts` is its
    /// number then, `result` its error, and there will be another report of this call.
    pub again: bool,
    /// The pool's slot that ran the last attempt, counted from 1; `None` if it never ran, or was
    /// cancelled while it waited for another attempt.
    pub slot: Option<usize>,
    /// The agent whose machine ran the last attempt; `None` if it ran here, or as for `slot`.
    pub machine: Option<Arc<str>>,
    /// The process id of the worker that ran the last attempt; `None` as for `slot`, and of calls that were lost with their
    /// machine.
    pub worker: Option<u32>,
    /// How long the last attempt ran.
    pub elapsed: Duration,
    /// What the last attempt wrote to stdout.
    pub stdout: Captured,
    /// What the last attempt wrote to stderr.
    pub stderr: Captured,
}

/// Nothing has come within the limit, and more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYet;

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing has come within the limit")
    }
}

impl std::error::Error for NotYet {}

/// The end of a map that reports come out of.
pub struct Reports<C> {
    job: Arc<Job>,
    /// A map that was refused has one report, which says why.
    pub(super) state: Result<Arc<Under>, Option<String>>,
    /// Calls that ended together, and have not been handed out.
    run: Option<Run>,
    /// Where what the calls print goes.
    forwarder: Option<Forwarder>,
    codec: PhantomData<fn() -> C>,
}

/// Consecutive calls that ended in the same way.
struct Run {
    index: u64,
    left: u32,
    ended: Ended<Trace>,
}

impl<C> Drop for Reports<C> {
    fn drop(&mut self) {
        if let Ok(under) = &self.state {
            under.cancel("nobody takes the result");
        }
    }
}

impl<C> fmt::Debug for Reports<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// What waiting for a report came to.
pub(in crate::pool) enum Waited<O> {
    Report(Report<O>),
    Exhausted,
    /// Not within the limit, or there is something better to do.
    NotYet,
}

impl<C: Codec> Reports<C> {
    /// The reports of a map. A map that was refused has one report, which says why.
    pub(super) fn new(output: Output, job: Arc<Job>, opened: Result<Arc<Under>, String>) -> Self {
        Reports {
            job,
            state: opened.map_err(Some),
            run: None,
            forwarder: (output == Output::Forward).then(Forwarder::default),
            codec: PhantomData,
        }
    }

    /// The next report, if it comes before the limit.
    pub(in crate::pool) fn wait(&mut self, limit: Option<Duration>) -> Waited<C::Output> {
        self.wait_unless(limit, false)
    }

    /// The same. A caller that is `feeding` the map returns as soon as there is room for another call.
    pub(super) fn wait_unless(
        &mut self,
        limit: Option<Duration>,
        feeding: bool,
    ) -> Waited<C::Output> {
        // The clock is read when there is something to wait for: reading it costs as much as a report.
        let mut began = None;
        loop {
            match self.poll() {
                Poll::Ready(Some(report)) => return Waited::Report(report),
                Poll::Ready(None) => return Waited::Exhausted,
                Poll::Pending => {}
            }
            let waited = began.get_or_insert_with(Instant::now).elapsed();
            let left = limit.map(|limit| limit.saturating_sub(waited));
            if left.is_some_and(|left| left.is_zero()) {
                return Waited::NotYet;
            }
            let Ok(under) = &self.state else {
                return Waited::Exhausted;
            };
            let state = under.shared.state();
            if state.jobs.has_result(under.id) {
                continue;
            }
            if feeding && state.jobs.has_room(under.id) {
                return Waited::NotYet;
            }
            match &mut self.forwarder {
                // Nobody may wait for what is held back here.
                Some(forwarder) if forwarder.has_held() => {
                    drop(state);
                    forwarder.pass_on();
                }
                _ => under.wait(state, left),
            }
        }
    }

    /// Whether to hold back what calls have printed while more results are to be had at once: for a caller who gets all
    /// results together.
    pub(super) fn hold_printed(&mut self, holds: bool) {
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.hold(holds);
        }
    }

    /// Passes on what was held back.
    pub(super) fn pass_on_printed(&mut self) {
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.pass_on();
        }
    }

    /// The next report, if it comes within `limit`; `None` if there is none any more. A limit of zero
    /// takes what is there.
    ///
    /// # Errors
    /// No report came within the limit, but more will come.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use std::time::Duration;
    /// let (inputs, mut reports) = pool.with().open(square);
    /// if let Some(inputs) = inputs {
    ///     inputs.send(7)?;
    /// }
    /// while let Ok(Some(report)) = reports.next_timeout(Duration::from_secs(1)) {
    ///     println!("{}: {:?}", report.index, report.result);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<Report<C::Output>>, NotYet> {
        if limit.is_zero() && !self.is_ready() {
            return Err(NotYet);
        }
        match self.wait(Some(limit)) {
            Waited::Report(report) => Ok(Some(report)),
            Waited::Exhausted => Ok(None),
            Waited::NotYet => Err(NotYet),
        }
    }

    /// The next report, if it is there.
    fn poll(&mut self) -> Poll<Option<Report<C::Output>>> {
        if let Some(report) = self.next_of_run() {
            return Poll::Ready(Some(report));
        }
        if self.is_copied() {
            self.state = Err(Some(PoolError::Copied.to_string()));
        }
        let under = match &mut self.state {
            Ok(under) => under,
            Err(refusal) => {
                let refused = refusal.take();
                return Poll::Ready(refused.map(|why| self.report(0, cancelled(why))));
            }
        };
        let (taken, has_room) = {
            let mut state = under.shared.state();
            (state.jobs.take(under.id), state.jobs.has_room(under.id))
        };
        if has_room && matches!(taken, Take::Ready(..)) {
            // Whoever waits for room has some now.
            under.watcher.notify();
        }
        match taken {
            Take::Ready(index, 1, ended) => Poll::Ready(Some(self.report(index, ended))),
            Take::Ready(index, left, ended) => {
                self.run = Some(Run { index, left, ended });
                Poll::Ready(self.next_of_run())
            }
            Take::Exhausted => Poll::Ready(None),
            Take::Pending => Poll::Pending,
        }
    }

    pub(super) fn next_of_run(&mut self) -> Option<Report<C::Output>> {
        let run = self.run.as_mut()?;
        let index = run.index;
        let ended = match run.left {
            1 => self.run.take()?.ended,
            _ => {
                run.index += 1;
                run.left -= 1;
                run.ended.clone()
            }
        };
        Some(self.report(index, ended))
    }

    /// As [`next_of_run`](Self::next_of_run), but only the value, because this is most of what a short call costs.
    pub(super) fn next_value(&mut self) -> Option<(u64, Result<C::Output, CallError>)> {
        let run = self.run.as_mut()?;
        let index = run.index;
        if let (Ok(()), Some(trace), true) = (&run.ended.result, &run.ended.trace, run.left > 1)
            && let Ok(value) = C::decode(Encoded::Bytes(trace.value(index)))
        {
            run.index += 1;
            run.left -= 1;
            return Some((index, Ok(value)));
        }
        self.next_of_run()
            .map(|report| (report.index, report.result))
    }

    /// As many values of the run as can be had at once: all but the last. Returns how many.
    pub(super) fn take_values(&mut self, outputs: &mut impl Extend<C::Output>) -> u64 {
        let Some(run) = &mut self.run else { return 0 };
        let (Ok(()), Some(trace)) = (&run.ended.result, &run.ended.trace) else {
            return 0;
        };
        let most = run.left.saturating_sub(1) as usize;
        let mut taken = 0;
        // One that can't be decoded is left: it is reported as any other.
        let values = trace.values(run.index).take(most).map_while(|value| {
            let value = C::decode(Encoded::Bytes(value)).ok()?;
            taken += 1;
            Some(value)
        });
        outputs.extend(values);
        run.index += u64::from(taken);
        run.left -= taken;
        taken.into()
    }

    /// Whether the next report is there, or it is clear that none will come: whether `next` would
    /// return at once.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, mut reports) = pool.with().open(square);
    /// # drop(inputs);
    /// if reports.is_ready() {
    ///     let report = reports.next(); // does not wait
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.state {
            Ok(under) => self.run.is_some() || under.has_result_now(),
            Err(_) => true,
        }
    }

    /// Whether the map is another process's.
    pub(super) fn is_copied(&self) -> bool {
        self.state
            .as_ref()
            .is_ok_and(|under| under.shared.is_copied())
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.state
            .as_ref()
            .map_or(true, |under| under.shared.state().jobs.is_sealed(under.id))
    }

    pub(super) fn report(&mut self, index: u64, mut ended: Ended<Trace>) -> Report<C::Output> {
        if let (Some(forwarder), Some(trace)) = (&mut self.forwarder, &ended.trace) {
            forwarder.forward(&trace.printed);
        }
        let task = || Arc::clone(&self.job.task);
        let result = conclude(&mut ended, (index, index), C::decode, task);
        let Ended {
            attempts,
            trace,
            again,
            ..
        } = ended;
        // A call that ended before a machine had it was run by nobody, and of one that was lost with its machine nobody may
        // know by which worker.
        let ran = trace.as_ref().filter(|trace| trace.by.pid != 0);
        let slot = ran.map(|trace| trace.by.slot.number());
        let worker = ran.map(|trace| trace.by.pid);
        let machine = trace.as_ref().and_then(|trace| trace.by.machine.clone());
        let elapsed = trace
            .as_ref()
            .map_or(Duration::ZERO, |trace| trace.elapsed(index));
        let (stdout, stderr) = trace
            .map(|trace| (trace.printed.stdout, trace.printed.stderr))
            .unwrap_or_default();
        Report {
            index,
            result,
            attempts,
            again,
            slot,
            machine,
            worker,
            elapsed,
            stdout,
            stderr,
        }
    }
}

impl<C: Codec> Iterator for Reports<C> {
    type Item = Report<C::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.wait(None) {
            Waited::Report(report) => Some(report),
            Waited::Exhausted | Waited::NotYet => None,
        }
    }
}
