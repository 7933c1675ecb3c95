//! The other process pool for Rust: procspawn.

pub(crate) use measured::{call, cpu, each, start};

#[cfg(feature = "procspawn")]
mod measured {
    use std::collections::VecDeque;
    use std::time::{Duration, Instant};

    use procspawn::{JoinHandle, Pool};

    use crate::Problem;
    use crate::sides::{Setting, Values, WORKERS, check, median_of, time};
    use crate::tasks::spin;

    /// A call that waits holds several descriptors: no more of them than a process may have.
    const WINDOW: usize = 64;

    fn square(x: i64) -> i64 {
        x * x
    }

    fn busy(rounds: u64) -> u64 {
        spin(rounds)
    }

    /// Its pool has no map: calls are submitted, some ahead of those that are waited for.
    fn map(
        pool: &Pool,
        inputs: impl Iterator<Item = u64>,
        function: fn(u64) -> u64,
    ) -> Result<Vec<u64>, Problem> {
        let (mut waiting, mut results) = (VecDeque::<JoinHandle<u64>>::new(), Vec::new());
        for input in inputs {
            if waiting.len() == WINDOW
                && let Some(first) = waiting.pop_front()
            {
                results.push(first.join()?);
            }
            waiting.push_back(pool.spawn(input, function));
        }
        for handle in waiting {
            results.push(handle.join()?);
        }
        Ok(results)
    }

    fn warm() -> Result<Pool, Problem> {
        let pool = Pool::new(WORKERS)?;
        map(&pool, 0..100, |x| x * x)?;
        Ok(pool)
    }

    /// Many calls that do next to nothing.
    pub(crate) fn each(setting: &Setting) -> Result<Values, Problem> {
        let calls = setting.pick(20_000, 1000);
        let pool = warm()?;
        let started = Instant::now();
        let squares = map(&pool, 0..calls, |x| x * x)?;
        let seconds = started.elapsed().as_secs_f64();
        check(squares.into_iter().eq((0..calls).map(|x| x * x)))?;
        time(seconds / calls as f64)
    }

    /// Single calls, one after another.
    pub(crate) fn call(setting: &Setting) -> Result<Values, Problem> {
        let pool = warm()?;
        let mut x = 0;
        time(median_of(setting.pick(5000, 500), || {
            x += 1;
            check(pool.spawn(x, square).join()? == x * x)
        })?)
    }

    /// From nothing to a pool of four, through a few calls, to nothing.
    pub(crate) fn start(setting: &Setting) -> Result<Values, Problem> {
        time(median_of(setting.pick(20, 5), || {
            let pool = Pool::new(4)?;
            check(map(&pool, 1..9, |x| x * x)? == [1, 4, 9, 16, 25, 36, 49, 64])?;
            // As ours: what was submitted has ended, then the processes go.
            pool.shutdown();
            Ok(())
        })?)
    }

    /// Calls that keep a processor busy for a while.
    pub(crate) fn cpu(setting: &Setting) -> Result<Values, Problem> {
        let calls = setting.pick(20_000, 1000);
        let rounds = setting.spins_for(Duration::from_micros(100));
        let pool = warm()?;
        let started = Instant::now();
        let ends = map(&pool, std::iter::repeat_n(rounds, calls), busy)?;
        let seconds = started.elapsed().as_secs_f64();
        check(ends.len() == calls)?;
        time(seconds / calls as f64)
    }
}

#[cfg(not(feature = "procspawn"))]
mod measured {
    use crate::Problem;
    use crate::sides::{Missing, Setting, Values};

    /// This build has none.
    pub(crate) fn missing(_: &Setting) -> Result<Values, Problem> {
        Err(Missing("procspawn".to_owned()).into())
    }
    pub(crate) use missing as call;
    pub(crate) use missing as cpu;
    pub(crate) use missing as each;
    pub(crate) use missing as start;
}
