//! Many calls at once, each waited for by itself: submitted from one thread, or made from several.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use super::ours::{join, warm};
use super::{Setting, Values, WORKERS, check, time, values};
use crate::Problem;
use crate::proc;
use crate::tasks::square;

/// From how many threads calls are made at once.
const THREADS: usize = 8;

/// How many calls are in flight at once.
fn in_flight(setting: &Setting) -> i64 {
    setting.pick(100_000, 10_000)
}

/// Submits many calls, and waits for each: the time of a call, and how much more memory this process has when all are in flight.
pub(crate) fn submits(setting: &Setting) -> Result<Values, Problem> {
    let calls = in_flight(setting);
    let pool = warm(WORKERS)?;
    // The calls that the warm-up has kept memory for do not count, and neither does what only the first of these takes.
    check(pool.submit(square, 2).wait()? == 4)?;
    let before = proc::memory("self", "VmRSS")?;
    let started = Instant::now();
    let mut pending = Vec::with_capacity(in_flight(setting) as usize);
    pending.extend((0..calls).map(|x| pool.submit(square, x)));
    let submitted = started.elapsed();
    let after = proc::memory("self", "VmRSS")?;
    let waiting = Instant::now();
    for (x, pending) in (0..).zip(pending) {
        check(pending.wait()? == x * x)?;
    }
    let seconds = (submitted + waiting.elapsed()).as_secs_f64();
    Ok(values([
        ("time", seconds / calls as f64),
        ("memory", (after - before) / calls as f64),
    ]))
}

/// As many calls, as a map.
pub(crate) fn as_map(setting: &Setting) -> Result<Values, Problem> {
    let calls = in_flight(setting);
    let pool = warm(WORKERS)?;
    let started = Instant::now();
    let squares = pool.map(square, 0..calls)?;
    let seconds = started.elapsed().as_secs_f64();
    check(squares.into_iter().eq((0..calls).map(|x| x * x)))?;
    time(seconds / calls as f64)
}

/// Many small maps at once, each from a thread of its own: the time of a call.
pub(crate) fn maps(setting: &Setting) -> Result<Values, Problem> {
    let (maps, calls) = (setting.pick(1024, 64), 200);
    let pool = warm(WORKERS)?;
    // All threads are there before the clock is read.
    let gate = Barrier::new(maps + 1);
    let started = thread::scope(|scope| {
        let callers = (0..maps).map(|_| {
            scope.spawn(|| -> Result<(), Problem> {
                gate.wait();
                let squares = pool.map(square, 0..calls)?;
                check(squares.into_iter().eq((0..calls).map(|x| x * x)))
            })
        });
        let callers = callers.collect();
        gate.wait();
        let started = Instant::now();
        join(callers).map(|()| started)
    })?;
    time(started.elapsed().as_secs_f64() / (maps as i64 * calls) as f64)
}

/// As many small maps, one after another.
pub(crate) fn maps_in_turn(setting: &Setting) -> Result<Values, Problem> {
    let (maps, calls) = (setting.pick(1024, 64), 200);
    let pool = warm(WORKERS)?;
    let started = Instant::now();
    for _ in 0..maps {
        let squares = pool.map(square, 0..calls)?;
        check(squares.into_iter().eq((0..calls).map(|x| x * x)))?;
    }
    time(started.elapsed().as_secs_f64() / (maps * calls) as f64)
}

/// As many calls in one map.
pub(crate) fn one_map(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(1024, 64) * 200;
    let pool = warm(WORKERS)?;
    let started = Instant::now();
    for (x, result) in (0..).zip(pool.stream(square, 0..calls)) {
        check(result? == x * x)?;
    }
    time(started.elapsed().as_secs_f64() / calls as f64)
}

/// Single calls from several threads at once.
pub(crate) fn calls_from_many(setting: &Setting) -> Result<Values, Problem> {
    calls_from(THREADS, setting)
}

/// Single calls from one thread. It is the time of all of them that counts, not the median.
pub(crate) fn calls_from_one(setting: &Setting) -> Result<Values, Problem> {
    calls_from(1, setting)
}

fn calls_from(threads: usize, setting: &Setting) -> Result<Values, Problem> {
    let each = setting.pick(20_000, 1000) / threads as i64;
    let pool = warm(WORKERS)?;
    check(pool.call(square, 2)? == 4)?;
    let started = Instant::now();
    thread::scope(|scope| {
        let callers = (0..threads).map(|_| {
            scope.spawn(|| -> Result<(), Problem> {
                for x in 0..each {
                    check(pool.call(square, x)? == x * x)?;
                }
                Ok(())
            })
        });
        // All are started before the first is waited for.
        join(callers.collect())
    })?;
    time(started.elapsed().as_secs_f64() / (threads as i64 * each) as f64)
}
