//! How each side of a measure is run, once, in a process of its own.

pub(crate) mod counts;
pub(crate) mod ends;
pub(crate) mod floor;
pub(crate) mod kills;
pub(crate) mod life;
pub(crate) mod machines;
pub(crate) mod many;
pub(crate) mod ours;
pub(crate) mod processes;
pub(crate) mod shell;
pub(crate) mod spawned;
pub(crate) mod threads;
pub(crate) mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The workers of every pool, and the processes or threads of whatever it is compared with.
pub(crate) const WORKERS: usize = 2;
/// The bytes of a large payload.
pub(crate) const MIB: usize = 1 << 20;

/// What a run was told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) quick: bool,
    /// How many rounds of [`spin`](crate::tasks::spin()) take a microsecond.
    pub(crate) spins: f64,
}

impl Setting {
    /// How many: in full, or to see that it works.
    pub(crate) fn pick<N>(&self, full: N, quick: N) -> N {
        if self.quick { quick } else { full }
    }

    pub(crate) fn spins_for(&self, time: Duration) -> u64 {
        (self.spins * time.as_secs_f64() * 1e6) as u64
    }
}

/// What a run measured, by the names that the catalogue gives to the quantities.
pub(crate) type Values = BTreeMap<String, f64>;

/// How a run ended. A side prints it as a line of JSON, those in Python too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It measured something.
    Values(Values),
    /// This machine, or this build, does not have what it takes.
    Missing(String),
    /// It went wrong, and how.
    Failed(String),
}

/// A peer is not there: no error.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not found", self.0)
    }
}

impl std::error::Error for Missing {}

impl From<Result<Values, Problem>> for Outcome {
    fn from(result: Result<Values, Problem>) -> Self {
        match result {
            Ok(values) => Outcome::Values(values),
            Err(problem) => match problem.downcast::<Missing>() {
                Ok(missing) => Outcome::Missing(missing.0),
                Err(problem) => Outcome::Failed(problem.to_string()),
            },
        }
    }
}

/// The one value of most measures: the time that one call, or whatever is counted, took.
fn time(seconds: f64) -> Result<Values, Problem> {
    Ok(values([("time", seconds)]))
}

fn values<const N: usize>(pairs: [(&str, f64); N]) -> Values {
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
    BTreeMap::from(pairs)
}

/// The median time of so many runs, in seconds. The first does not count: it finds things cold.
fn median_of(runs: usize, mut run: impl FnMut() -> Result<(), Problem>) -> Result<f64, Problem> {
    run()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed().as_secs_f64());
    }
    Ok(median(&mut times))
}

/// The middle one; the mean of the middle two. Nothing has no median: it is not a number.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples {
        [] => f64::NAN,
        odd if odd.len() % 2 == 1 => odd[middle],
        even => f64::midpoint(even[middle - 1], even[middle]),
    }
}

/// An error if something came back wrong: a pool that is fast and wrong is not measured.
fn check(right: bool) -> Result<(), Problem> {
    if right {
        Ok(())
    } else {
        Err("the results are wrong".into())
    }
}
