//! The pool's side of what is measured in time.

use std::thread;
use std::time::{Duration, Instant};

use coordinator::{Pool, Process};
use serde_bytes::ByteBuf;

use super::{MIB, Setting, Values, WORKERS, check, median_of, time, values};
use crate::Problem;
use crate::tasks::{echo, look_up, look_up_in, spin, square, work};

/// A pool whose workers have all started and run something.
pub(super) fn warm(workers: usize) -> Result<Pool, Problem> {
    let pool = Pool::new(workers)?;
    warm_up(&pool, workers)?;
    Ok(pool)
}

/// As many as the usual limit for open files allows, in round numbers.
const MANY: usize = 100;

/// Waits for all workers: a pool is there as soon as the first is.
pub(super) fn warm_up(pool: &Pool, workers: usize) -> Result<(), Problem> {
    while pool.stats().workers_started < workers as u64 {
        thread::sleep(Duration::from_millis(1));
    }
    pool.map(square, 0..1000)?;
    Ok(())
}

/// A map of many calls that do next to nothing.
pub(crate) fn map(setting: &Setting) -> Result<Values, Problem> {
    map_with(setting, WORKERS)
}

/// The same, with many more workers than most machines have processors.
pub(crate) fn map_with_many(setting: &Setting) -> Result<Values, Problem> {
    map_with(setting, MANY)
}

fn map_with(setting: &Setting, workers: usize) -> Result<Values, Problem> {
    let calls = setting.pick(1_000_000_i64, 20_000);
    let pool = warm(workers)?;
    let started = Instant::now();
    let squares = pool.map(square, 0..calls)?;
    let seconds = started.elapsed().as_secs_f64();
    check(squares.into_iter().eq((0..calls).map(|x| x * x)))?;
    time(seconds / calls as f64)
}

/// Single calls, one after another.
pub(crate) fn call(setting: &Setting) -> Result<Values, Problem> {
    let pool = warm(WORKERS)?;
    let mut x = 0;
    let seconds = median_of(setting.pick(20_000, 1000), || {
        x += 1;
        check(pool.call(square, x)? == x * x)
    })?;
    time(seconds)
}

/// Large payloads, several times a map of some. The outputs of one map are the inputs of the next, so
/// that nothing is timed but the way.
pub(crate) fn payload_map(setting: &Setting) -> Result<Values, Problem> {
    let (maps, calls) = setting.pick((10, 50), (2, 10));
    let pool = warm(WORKERS)?;
    let mut payloads = pool.map(echo, vec![megabyte(); calls])?;
    let started = Instant::now();
    for _ in 0..maps {
        payloads = pool.map(echo, payloads)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    check(payloads.len() == calls && payloads.iter().all(|payload| *payload == megabyte()))?;
    time(seconds / (maps * calls) as f64)
}

/// Large payloads in single calls, from as many threads as there are workers.
pub(crate) fn payload_calls(setting: &Setting) -> Result<Values, Problem> {
    payload_from(WORKERS, setting)
}

/// Large payloads in single calls, one after another.
pub(crate) fn payload_call(setting: &Setting) -> Result<Values, Problem> {
    payload_from(1, setting)
}

fn payload_from(threads: usize, setting: &Setting) -> Result<Values, Problem> {
    let each = setting.pick(500, 20) / threads;
    let pool = warm(WORKERS)?;
    pool.map(echo, vec![megabyte(); 2 * WORKERS])?;
    let started = Instant::now();
    thread::scope(|scope| {
        let callers = (0..threads).map(|_| {
            scope.spawn(|| -> Result<(), Problem> {
                let mut payload = megabyte();
                for _ in 0..each {
                    payload = pool.call(echo, payload)?;
                }
                check(payload == megabyte())
            })
        });
        // All are started before the first is waited for.
        join(callers.collect())
    })?;
    time(started.elapsed().as_secs_f64() / (threads * each) as f64)
}

/// What calls look into, and how many do.
fn table(setting: &Setting) -> (ByteBuf, usize) {
    let bytes = (0..8 * MIB).map(|at| at as u8);
    (
        ByteBuf::from(bytes.collect::<Vec<_>>()),
        setting.pick(200, 20),
    )
}

/// Calls that need the same large value, which is written down for all of them.
pub(crate) fn share(setting: &Setting) -> Result<Values, Problem> {
    let (table, calls) = table(setting);
    let started = Instant::now();
    let pool = Pool::new(WORKERS)?;
    let shared = pool.share(table);
    let found = pool.map(look_up, (0..calls).map(|at| (shared.clone(), at)))?;
    let seconds = started.elapsed().as_secs_f64();
    check(found.into_iter().eq((0..calls).map(|at| at as u8)))?;
    time(seconds)
}

/// The same, where each call brings it.
pub(crate) fn share_not(setting: &Setting) -> Result<Values, Problem> {
    let (table, calls) = table(setting);
    let started = Instant::now();
    let pool = Pool::new(WORKERS)?;
    let found = pool.map(look_up_in, (0..calls).map(|at| (table.clone(), at)))?;
    let seconds = started.elapsed().as_secs_f64();
    check(found.into_iter().eq((0..calls).map(|at| at as u8)))?;
    time(seconds)
}

pub(super) fn megabyte() -> ByteBuf {
    ByteBuf::from(vec![7; MIB])
}

/// Waits for all; the first that failed.
pub(super) fn join(
    threads: Vec<thread::ScopedJoinHandle<'_, Result<(), Problem>>>,
) -> Result<(), Problem> {
    let ends = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|_| Err("it panicked".into())));
    ends.collect::<Vec<_>>().into_iter().collect()
}

/// From nothing to a pool of four, through a small map, to nothing.
pub(crate) fn start(setting: &Setting) -> Result<Values, Problem> {
    let seconds = median_of(setting.pick(50, 10), || {
        let pool = Pool::new(4)?;
        check(pool.map(square, 1..=8)? == [1, 4, 9, 16, 25, 36, 49, 64])?;
        pool.close();
        Ok(pool.join()?)
    })?;
    time(seconds)
}

/// A process for each call, two at a time.
pub(crate) fn process(setting: &Setting) -> Result<Values, Problem> {
    let each = setting.pick(200, 10);
    let started = Instant::now();
    thread::scope(|scope| {
        let callers = (0..WORKERS).map(|_| {
            scope.spawn(|| -> Result<(), Problem> {
                for x in 0..each {
                    check(Process::new(square, x).start()?.join()? == x * x)?;
                }
                Ok(())
            })
        });
        join(callers.collect())
    })?;
    time(started.elapsed().as_secs_f64() / (WORKERS as i64 * each) as f64)
}

/// Calls that keep a processor busy for a while.
pub(crate) fn cpu(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(20_000, 1000);
    let rounds = setting.spins_for(Duration::from_micros(100));
    let pool = warm(WORKERS)?;
    let started = Instant::now();
    let ends = pool.map(spin, std::iter::repeat_n(rounds, calls))?;
    let seconds = started.elapsed().as_secs_f64();
    check(ends.len() == calls)?;
    time(seconds / calls as f64)
}

/// Short calls, and a long one among the first of them.
pub(crate) fn straggler(setting: &Setting) -> Result<Values, Problem> {
    const LONG: u64 = 50;
    let calls = 10_000;
    let rounds = setting.spins_for(Duration::from_micros(10));
    let pool = warm(WORKERS)?;
    let inputs =
        (0..calls).map(|index| (rounds, (index == LONG).then_some(Duration::from_secs(2))));
    let started = Instant::now();
    let (mut done, mut others) = (0, 0.0);
    for (index, result) in pool.stream_unordered(work, inputs) {
        result?;
        done += 1;
        if index != LONG {
            others = started.elapsed().as_secs_f64();
        }
    }
    check(done == calls)?;
    Ok(values([
        ("others", others),
        ("whole", started.elapsed().as_secs_f64()),
    ]))
}
