//! What a pool takes of the machine: memory, a processor at rest, the start of a worker.

use std::thread;
use std::time::{Duration, Instant};

use coordinator::{Builder, Pool};
use rustix::process::{Pid, Signal, kill_process};
use serde_bytes::ByteBuf;

use super::ours::{warm, warm_up};
use super::{Setting, Values, WORKERS, check, median, time, values};
use crate::Problem;
use crate::proc;
use crate::tasks::{echo, load, loaded, square};

/// How much more memory than the empty pool a stream has ever taken in this process, and how much of
/// that only in its second half: what calls in flight take fluctuates, so its peak is found after a while.
struct Growth {
    before: f64,
    half: u64,
    seen: u64,
    after_half: f64,
}

impl Growth {
    fn start(calls: u64) -> Result<Self, Problem> {
        Ok(Growth {
            before: peak()?,
            half: calls / 2,
            seen: 0,
            after_half: 0.0,
        })
    }

    fn result_taken(&mut self) -> Result<(), Problem> {
        self.seen += 1;
        if self.seen == self.half {
            self.after_half = peak()?;
        }
        Ok(())
    }

    fn end(self) -> Result<Values, Problem> {
        let peak = peak()?;
        Ok(values([
            ("peak", peak - self.before),
            // The kernel's figure is right to some pages only, and may seem to shrink.
            ("growth", (peak - self.after_half).max(0.0)),
        ]))
    }
}

fn peak() -> Result<f64, Problem> {
    proc::memory("self", "VmHWM")
}

/// A long stream of small inputs.
pub(crate) fn stream_small(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(10_000_000, 200_000);
    let pool = warm(WORKERS)?;
    let mut growth = Growth::start(calls)?;
    for (x, result) in (0..).zip(pool.stream(square, 0..calls.cast_signed())) {
        check(result? == x * x)?;
        growth.result_taken()?;
    }
    check(growth.seen == calls)?;
    growth.end()
}

/// A long stream of inputs and outputs of 1 KiB.
pub(crate) fn stream_kib(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(10_000_000, 20_000);
    let pool = warm(WORKERS)?;
    let mut growth = Growth::start(calls)?;
    let inputs = (0..calls).map(|_| ByteBuf::from(vec![7; 1024]));
    for result in pool.stream(echo, inputs) {
        check(result?.len() == 1024)?;
        growth.result_taken()?;
    }
    check(growth.seen == calls)?;
    growth.end()
}

/// A pool that has nothing to do.
pub(crate) fn idle(setting: &Setting) -> Result<Values, Problem> {
    let pool = warm(WORKERS)?;
    let pids: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    check(pids.len() == WORKERS)?;
    // What follows the last call is no rest yet.
    thread::sleep(Duration::from_millis(500));
    let before = proc::activity(&pids)?;
    thread::sleep(Duration::from_secs(setting.pick(10, 2)));
    let during = proc::activity(&pids)? - before;
    Ok(values([("cpu", during.cpu), ("switches", during.switches)]))
}

/// How long a worker's initializer takes, and how much memory it fills.
const LOADING: Duration = Duration::from_secs(2);
const LOADED: usize = 200 << 20;

/// The time until a worker that takes the place of one that was killed has run a call: the median of several.
fn replaced(builder: Builder, times: usize) -> Result<Values, Problem> {
    let pool = builder
        .workers(1)
        .initializer(load, (LOADING, LOADED))
        .build()?;
    let mut found = Vec::with_capacity(times);
    let worker = || {
        pool.workers()
            .first()
            .map(|worker| worker.pid.cast_signed())
    };
    for _ in 0..times {
        check(pool.call(loaded, 1)? == Some(7))?;
        let killed = worker()
            .and_then(Pid::from_raw)
            .ok_or("there is no worker")?;
        let started = Instant::now();
        kill_process(killed, Signal::KILL)?;
        // A call may be sent to the worker that was killed, and fail.
        while pool.call(loaded, LOADED - 1).ok() != Some(Some(7))
            || worker() == Some(killed.as_raw_nonzero().get())
        {}
        found.push(started.elapsed().as_secs_f64());
    }
    time(median(&mut found))
}

/// The replacement of a worker, as a copy of one that has run the initializer.
pub(crate) fn warm_copy(setting: &Setting) -> Result<Values, Problem> {
    replaced(Pool::builder().warm_copies(true), setting.pick(100, 10))
}

/// The replacement of a worker, started anew.
pub(crate) fn cold_start(_: &Setting) -> Result<Values, Problem> {
    replaced(Pool::builder(), 1)
}

/// A worker: how soon it is ready, and what it takes at rest.
pub(crate) fn worker(setting: &Setting) -> Result<Values, Problem> {
    let mut times = Vec::new();
    for _ in 0..setting.pick(100, 10) {
        let started = Instant::now();
        let pool = Pool::new(1)?;
        times.push(started.elapsed().as_secs_f64());
        drop(pool);
    }
    let pool = Pool::new(WORKERS)?;
    warm_up(&pool, WORKERS)?;
    thread::sleep(Duration::from_millis(200));
    let mut most = 0.0_f64;
    for worker in pool.workers() {
        most = most.max(proc::memory(&worker.pid.to_string(), "VmRSS")?);
    }
    Ok(values([("ready", median(&mut times)), ("memory", most)]))
}
