//! The attempts of a log, laid out in time: its runs one after another, without the hours between.

use std::collections::{BTreeSet, HashMap};

use super::read::{Attempt, Log};
use crate::cli::status::Status;

/// One invocation of the command.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) template: String,
    /// When its first attempt began, in seconds since 1970; none if no attempt ran.
    pub(super) start: Option<f64>,
    /// From the first attempt's begin to the last one's end.
    pub(super) ms: f64,
    /// Where it begins in the timeline, in microseconds.
    pub(super) from: i64,
    pub(super) attempts: usize,
    pub(super) succeeded: usize,
    pub(super) workers: usize,
}

/// An attempt's place in the timeline, in microseconds.
#[derive(Debug)]
pub(super) struct Bar {
    /// An index into the attempts.
    pub(super) attempt: usize,
    pub(super) start: i64,
    pub(super) length: i64,
    /// An index into the workers.
    pub(super) row: usize,
}

/// How the calls ended, each by its last attempt in the log.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) total: usize,
    pub(super) ok: usize,
    /// Indices of the last attempts at what failed, in the order of the log.
    pub(super) failed: Vec<usize>,
    /// Those that were to be tried again when the log ended.
    pub(super) unfinished: usize,
}

/// Everything that the page and the trace show.
#[derive(Debug)]
pub(super) struct Timeline {
    /// As the log has them.
    pub(super) attempts: Vec<Attempt>,
    /// In the order of their beginning.
    pub(super) runs: Vec<Run>,
    /// The attempts that ran, by their start.
    pub(super) bars: Vec<Bar>,
    /// The numbers of the workers, one a row.
    pub(super) workers: Vec<u32>,
    pub(super) calls: Calls,
    /// Where the last run ends, in microseconds.
    pub(super) end: i64,
    /// What the runs took, without the time between them.
    pub(super) wall_ms: f64,
    /// What the attempts took.
    pub(super) busy_ms: f64,
    pub(super) retries: usize,
}

impl Timeline {
    pub(super) fn new(log: Log) -> Self {
        let workers: Vec<u32> = log.workers().into_iter().collect();
        let Log {
            mut attempts, runs, ..
        } = log;
        let mut runs = measure(runs, &attempts);
        let end = lay_out(&mut runs, &mut attempts);
        let bars = bars(&runs, &workers, &attempts);
        Self {
            calls: calls(&attempts),
            bars,
            workers,
            end,
            wall_ms: runs.iter().map(|run| run.ms).sum(),
            busy_ms: attempts.iter().map(|attempt| attempt.ms).sum(),
            retries: attempts.iter().filter(|attempt| attempt.again).count(),
            runs,
            attempts,
        }
    }

    /// How much of the workers' time was used, from 0 to 1.
    pub(super) fn use_of_workers(&self) -> Option<f64> {
        let there = |run: &Run| run.ms * run.workers as f64;
        let there: f64 = self.runs.iter().map(there).sum();
        (there > 0.0).then(|| (self.busy_ms / there).min(1.0))
    }

    /// For each attempt, its bar's index.
    pub(super) fn places(&self) -> HashMap<usize, usize> {
        let places = self.bars.iter().enumerate();
        places.map(|(place, bar)| (bar.attempt, place)).collect()
    }
}

fn measure(names: Vec<(String, String)>, attempts: &[Attempt]) -> Vec<Run> {
    let mut workers = vec![BTreeSet::new(); names.len()];
    let run = |(id, template)| Run {
        id,
        template,
        start: None,
        ms: 0.0,
        from: 0,
        attempts: 0,
        succeeded: 0,
        workers: 0,
    };
    let mut runs: Vec<Run> = names.into_iter().map(run).collect();
    for attempt in attempts {
        let run = &mut runs[attempt.run];
        run.attempts += 1;
        run.succeeded += usize::from(attempt.status == Status::Ok);
        if let Some(start) = attempt.start {
            workers[attempt.run].insert(attempt.worker);
            run.start = Some(run.start.map_or(start, |first| first.min(start)));
        }
    }
    for attempt in attempts {
        let run = &mut runs[attempt.run];
        if let (Some(start), Some(first)) = (attempt.start, run.start) {
            run.ms = run.ms.max((start - first) * 1e3 + attempt.ms);
        }
    }
    for (run, workers) in runs.iter_mut().zip(workers) {
        run.workers = workers.len();
    }
    runs
}

/// Puts the runs in order and one after another, and tells the attempts.
fn lay_out(runs: &mut Vec<Run>, attempts: &mut [Attempt]) -> i64 {
    let mut order: Vec<(usize, Run)> = runs.drain(..).enumerate().collect();
    let begin = |run: &Run| run.start.unwrap_or(f64::INFINITY);
    order.sort_by(|(_, one), (_, other)| begin(one).total_cmp(&begin(other)));
    let mut places = vec![0; order.len()];
    for (place, (was, _)) in order.iter().enumerate() {
        places[*was] = place;
    }
    for attempt in attempts {
        attempt.run = places[attempt.run];
    }
    runs.extend(order.into_iter().map(|(_, run)| run));
    // Wide enough to be seen, whatever the runs took; but many breaks together still a small part.
    let all: f64 = runs.iter().map(|run| run.ms).sum();
    let part = f64::min(0.02, 0.15 / runs.len().max(1) as f64);
    let gap = micros(all * part).max(1);
    let mut end: i64 = 0;
    for (place, run) in runs.iter_mut().enumerate() {
        if place > 0 && run.start.is_some() {
            end = end.saturating_add(gap);
        }
        run.from = end;
        end = end.saturating_add(micros(run.ms));
    }
    end
}

fn bars(runs: &[Run], workers: &[u32], attempts: &[Attempt]) -> Vec<Bar> {
    let mut bars = Vec::with_capacity(attempts.len());
    for (index, attempt) in attempts.iter().enumerate() {
        let run = &runs[attempt.run];
        let (Some(start), Some(first)) = (attempt.start, run.start) else {
            continue;
        };
        bars.push(Bar {
            attempt: index,
            start: run.from.saturating_add(micros((start - first) * 1e3)),
            length: micros(attempt.ms),
            row: workers.binary_search(&attempt.worker).unwrap_or(0),
        });
    }
    bars.sort_by_key(|bar| bar.start);
    bars
}

fn calls(attempts: &[Attempt]) -> Calls {
    let mut last = HashMap::new();
    for (index, attempt) in attempts.iter().enumerate() {
        last.insert(attempt.call, index);
    }
    let mut calls = Calls {
        total: last.len(),
        ..Calls::default()
    };
    for index in last.into_values() {
        let attempt = &attempts[index];
        if attempt.status == Status::Ok {
            calls.ok += 1;
        } else if attempt.again {
            calls.unfinished += 1;
        } else {
            calls.failed.push(index);
        }
    }
    calls.failed.sort_unstable();
    calls
}

/// Whole microseconds; what is out of range becomes the end of it.
fn micros(ms: f64) -> i64 {
    // Sums of times stay in the range in which a float is exact.
    (ms * 1e3).round().clamp(-1e15, 1e15) as i64
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::*;

    fn timeline(log: &str) -> Timeline {
        Timeline::new(read(log.as_bytes()).unwrap())
    }

    #[test]
    fn runs_follow_each_other_with_a_break() {
        let timeline = timeline(
            "{\"v\":1,\"run\":\"late\",\"seq\":1,\"start\":9000,\"ms\":500,\"worker\":2,\"status\":\"ok\"}\n\
             {\"v\":1,\"run\":\"early\",\"seq\":1,\"start\":10.5,\"ms\":500,\"worker\":1,\"status\":\"ok\"}\n\
             {\"v\":1,\"run\":\"early\",\"seq\":2,\"start\":10,\"ms\":250,\"worker\":7,\"status\":\"ok\"}\n",
        );
        assert_eq!(timeline.runs[0].id, "early");
        assert_eq!(timeline.workers, [1, 2, 7]);
        let places: Vec<_> = timeline
            .bars
            .iter()
            .map(|b| (b.start, b.length, b.row))
            .collect();
        assert_eq!(
            places,
            [
                (0, 250_000, 2),
                (500_000, 500_000, 0),
                (1_030_000, 500_000, 1)
            ]
        );
        assert_eq!(timeline.end, 1_530_000);
        assert!((timeline.wall_ms - 1500.0).abs() < 1e-6);
    }

    #[test]
    fn a_call_ends_as_its_last_attempt_does() {
        let timeline = timeline(
            "{\"v\":1,\"run\":\"1\",\"input\":\"a\",\"status\":\"failed\",\"again\":true}\n\
             {\"v\":1,\"run\":\"1\",\"input\":\"a\",\"status\":\"failed\",\"attempt\":2}\n\
             {\"v\":1,\"run\":\"1\",\"input\":\"b\",\"status\":\"died\"}\n\
             {\"v\":1,\"run\":\"1\",\"input\":\"c\",\"status\":\"died\",\"again\":true}\n\
             {\"v\":1,\"run\":\"2\",\"input\":\"a\",\"status\":\"ok\"}\n",
        );
        let calls = &timeline.calls;
        assert_eq!((calls.total, calls.ok, calls.unfinished), (3, 1, 1));
        assert_eq!(calls.failed, [2]);
        assert_eq!(timeline.retries, 2);
    }

    #[test]
    fn absurd_times_do_no_harm() {
        let timeline = timeline(
            "{\"v\":1,\"start\":1e308,\"ms\":1e308}\n{\"v\":1,\"start\":-1e308,\"ms\":1}\n{\"v\":1,\"ms\":1}\n",
        );
        assert_eq!(timeline.bars.len(), 2);
    }
}
