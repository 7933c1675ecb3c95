//! Threads of one process, which have no way to go at all: rayon.

use super::{Setting, Values};
use crate::Problem;

/// Calls that keep a processor busy for a while.
#[cfg(feature = "rayon")]
pub(crate) fn cpu(setting: &Setting) -> Result<Values, Problem> {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use rayon::iter::{IntoParallelIterator, ParallelIterator};

    use super::{WORKERS, check, time};
    use crate::tasks::spin;

    let calls = setting.pick(20_000_usize, 1000);
    let rounds = setting.spins_for(Duration::from_micros(100));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(WORKERS)
        .build()?;
    let map = |calls: usize| -> Vec<u64> {
        // Without the box, calls of one input could be taken for one call.
        let call = |_| spin(black_box(rounds));
        pool.install(|| (0..calls).into_par_iter().map(call).collect())
    };
    map(WORKERS * 2);
    let started = Instant::now();
    let ends = map(calls);
    let seconds = started.elapsed().as_secs_f64();
    check(ends.len() == calls)?;
    time(seconds / calls as f64)
}

/// This build has none.
#[cfg(not(feature = "rayon"))]
pub(crate) fn cpu(_: &Setting) -> Result<Values, Problem> {
    Err(super::Missing("rayon".to_owned()).into())
}
