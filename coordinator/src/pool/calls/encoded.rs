//! Calls whose inputs and outputs stay encoded, as an agent runs them for another coordinator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::under::Under;
use crate::engine::shared::PoolShared;
use crate::error::Why;
use crate::payload::{Encoded, EncodedInputs, Job, Trace};
use crate::scheduler::{Ended, Failures, Limits, MapSpec, Order, Take, Window};

/// The largest output that is copied to stand with others, in bytes.
const LARGE: usize = 64 << 10;

/// A map of encoded calls under way, for whoever takes calls back.
#[derive(Debug, Clone)]
pub(crate) struct EncodedMap(Arc<Under>);

/// The ends of encoded calls, as they come.
#[derive(Debug)]
pub(crate) struct EncodedEnds(Arc<Under>);

/// How encoded calls have ended.
#[derive(Debug)]
pub(crate) enum EncodedEnd {
    /// Consecutive ones have returned values and printed nothing.
    Values {
        first: u64,
        lens: Vec<u32>,
        nanos: Vec<u32>,
        outputs: Vec<u8>,
        slot: usize,
        worker: u32,
    },
    /// One has ended otherwise, or has printed something.
    One {
        index: u64,
        result: Result<(), Why>,
        note: Option<String>,
        trace: Trace,
    },
    /// Consecutive ones will not begin.
    Unbegun { first: u64, count: u32 },
}

/// Runs calls, each at most once.
pub(in crate::pool) fn run(
    shared: &Arc<PoolShared>,
    job: Job,
    limits: Limits,
    inputs: EncodedInputs,
) -> Result<(EncodedMap, EncodedEnds), String> {
    let spec = MapSpec {
        kind: Some(job.kind()),
        job: Arc::new(job),
        limits: Limits {
            retries: 0,
            ..limits
        },
        order: Order::Completion,
        window: Window {
            calls: usize::MAX,
            bytes: usize::MAX,
            least: 1,
        },
        failures: Failures::Any,
        lazy: false,
        every_attempt: false,
        separate: false,
        at_most_once: false,
    };
    let under = Under::open(shared, spec)?;
    shared.act(|state| {
        state.jobs.push(under.id, inputs);
        state.jobs.seal(under.id);
    });
    Ok((EncodedMap(Arc::clone(&under)), EncodedEnds(under)))
}

impl EncodedMap {
    /// Takes back the calls from an index on that have not begun. With `kill` those that run are ended, too.
    pub(crate) fn take_back(&self, from: u64, kill: bool) {
        let Under { shared, id, .. } = &*self.0;
        let now = shared.now();
        shared.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            jobs.withdraw(*id, from, kill, now, &sight);
        });
    }
}

impl EncodedEnds {
    /// The next end, if it comes within a limit; `None` behind the last. Without a limit it is waited for.
    pub(crate) fn next(&mut self, limit: Option<Duration>) -> Option<Result<EncodedEnd, ()>> {
        let Under { shared, id, .. } = &*self.0;
        let began = Instant::now();
        loop {
            let mut state = shared.state();
            match state.jobs.take(*id) {
                Take::Ready(first, count, ended) => return Some(Ok(end(first, count, ended))),
                Take::Exhausted => return None,
                Take::Pending => {}
            }
            let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Some(Err(()));
            }
            self.0.wait(state, left);
        }
    }
}

fn end(first: u64, count: u32, ended: Ended<Trace>) -> EncodedEnd {
    let Ended {
        result,
        trace,
        note,
        ..
    } = ended;
    let Some(trace) = trace else {
        return EncodedEnd::Unbegun { first, count };
    };
    let is_silent = trace.printed.stdout.is_empty() && trace.printed.stderr.is_empty();
    let is_large = count == 1 && trace.value(first).len() > LARGE;
    let is_long = count == 1 && trace.elapsed(first) > Duration::from_nanos(u32::MAX.into());
    if result.is_err() || !is_silent || trace.is_apart() || is_large || is_long {
        let note = note.or_else(|| trace.note.clone());
        return EncodedEnd::One {
            index: first,
            result,
            note,
            trace,
        };
    }
    let calls = first..first + u64::from(count);
    let mut lens = Vec::with_capacity(count as usize);
    let mut outputs = Vec::new();
    for index in calls.clone() {
        let value = trace.value(index);
        lens.push(u32::try_from(value.len()).unwrap_or(u32::MAX));
        outputs.extend_from_slice(value);
    }
    let nanos = calls.map(|index| {
        let nanos = trace.elapsed(index).as_nanos();
        u32::try_from(nanos).unwrap_or(u32::MAX)
    });
    EncodedEnd::Values {
        first,
        lens,
        nanos: nanos.collect(),
        outputs,
        slot: trace.by.slot.number(),
        worker: trace.by.pid,
    }
}

/// The encoded output of one call, where it is.
#[derive(Debug)]
pub(crate) struct EncodedOutput {
    trace: Trace,
    index: u64,
    /// If it was in several pieces, it had to be copied.
    joined: Option<Vec<u8>>,
}

impl EncodedOutput {
    pub(crate) fn new(mut trace: Trace, index: u64) -> Self {
        let joined = match trace.take_output(index) {
            Encoded::Bytes(_) => None,
            Encoded::Apart(apart) => Some(apart.join()),
        };
        EncodedOutput {
            trace,
            index,
            joined,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.joined {
            Some(joined) => joined,
            None => self.trace.value(self.index),
        }
    }
}
