//! Lays out the attempts of a log in time: one run behind another, without the hours between them.

use std::collections::{BTreeSet, HashMap};

use super::marks::Calls;
use super::pick::Picked;
use super::read::{Attempt, Lane, LogSums, Machines, RunSums};
use super::text;
use crate::cli::status::Status;

/// One invocation of the command.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) template: String,
    /// When its first attempt began, in seconds since 1970. `None` if no attempt ran.
    pub(super) start: Option<f64>,
    /// The time from the first attempt's beginning to the last one's end.
    pub(super) ms: f64,
    /// The place in the timeline at which it begins, in microseconds.
    pub(super) from: i64,
    pub(super) attempts: usize,
    pub(super) succeeded: usize,
    pub(super) workers: usize,
}

/// An attempt's place in the timeline, in microseconds.
#[derive(Debug)]
pub(super) struct Bar {
    /// The index of the attempt.
    pub(super) attempt: usize,
    pub(super) start: i64,
    pub(super) length: i64,
    /// The index of the worker.
    pub(super) row: usize,
}

/// All that the page and the trace show.
#[derive(Debug)]
pub(super) struct Timeline {
    /// The attempts that are shown one by one, in the order of the log.
    pub(super) attempts: Vec<Attempt>,
    pub(super) picked: Picked,
    /// The runs in the order of their beginning.
    pub(super) runs: Vec<Run>,
    /// The attempts that ran, sorted by their start.
    pub(super) bars: Vec<Bar>,
    /// The workers, one for each row.
    pub(super) workers: Vec<Lane>,
    pub(super) machines: Machines,
    pub(super) calls: Calls,
    /// The number of attempts by how they ended, of those followed by a retry, and of those that never ran.
    pub(super) statuses: [usize; Status::ALL.len()],
    pub(super) again: usize,
    pub(super) idle: usize,
    /// How long each attempt took that ran, in milliseconds, sorted.
    pub(super) times: Vec<f32>,
    /// The end of the last run, in microseconds.
    pub(super) end: i64,
    /// The time of all runs, without the time between them.
    pub(super) wall_ms: f64,
    /// The time of all attempts.
    pub(super) busy_ms: f64,
}

impl Timeline {
    pub(super) fn new(log: LogSums) -> Self {
        let LogSums {
            runs,
            machines,
            calls,
            statuses,
            again,
            idle,
            mut times,
            busy_ms,
            mut attempts,
            picked,
            ..
        } = log;
        let all = runs.iter().flat_map(|run| &run.workers);
        let workers: BTreeSet<Lane> = all.copied().collect();
        let workers: Vec<Lane> = workers.into_iter().collect();
        let mut runs: Vec<Run> = runs.into_iter().map(measure).collect();
        let end = lay_out(&mut runs, &mut attempts);
        let bars = bars(&runs, &workers, &attempts);
        times.sort_unstable_by(f32::total_cmp);
        Self {
            bars,
            workers,
            machines,
            end,
            wall_ms: runs.iter().map(|run| run.ms).sum(),
            busy_ms,
            runs,
            attempts,
            picked,
            calls,
            statuses,
            again,
            idle,
            times,
        }
    }

    /// The number of attempts.
    pub(super) fn count(&self) -> usize {
        self.statuses.iter().sum()
    }

    /// A sentence about which attempts are shown one by one, if not all are.
    pub(super) fn shows(&self) -> Option<String> {
        (self.picked.step > 1).then(|| {
            format!(
                "{} of {} attempts: one in {}, the slowest, and the last ones at calls that failed; all numbers are \
                 those of all attempts",
                text::count(self.attempts.len()),
                text::count(self.count()),
                text::count(self.picked.step),
            )
        })
    }

    /// The share of the workers' time that was used, from 0 to 1.
    pub(super) fn use_of_workers(&self) -> Option<f64> {
        let there = |run: &Run| run.ms * run.workers as f64;
        let there: f64 = self.runs.iter().map(there).sum();
        (there > 0.0).then(|| (self.busy_ms / there).min(1.0))
    }

    /// The attempt of a line, if it is shown.
    pub(super) fn at_line(&self, line: u32) -> Option<usize> {
        self.attempts
            .binary_search_by_key(&line, |attempt| attempt.line)
            .ok()
    }

    /// The last attempts at failed calls, in the order of the log.
    pub(super) fn failed(&self) -> impl Iterator<Item = usize> {
        let lines = self.calls.failed.iter();
        lines.filter_map(|line| self.at_line(*line))
    }

    /// The index of each attempt's bar.
    pub(super) fn places(&self) -> HashMap<usize, usize> {
        let places = self.bars.iter().enumerate();
        places.map(|(place, bar)| (bar.attempt, place)).collect()
    }
}

fn measure(run: RunSums) -> Run {
    let ms = run.ran.map_or(0.0, |(first, last)| (last - first) * 1e3);
    Run {
        id: run.id,
        template: run.template,
        start: run.ran.map(|(first, _)| first),
        ms,
        from: 0,
        attempts: run.attempts,
        succeeded: run.succeeded,
        workers: run.workers.len(),
    }
}

/// Sorts the runs by their beginning and places one behind another. Returns the end of the last.
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
    // A break is wide enough to be seen, however long the runs took. Many breaks together still take a small part.
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

fn bars(runs: &[Run], workers: &[Lane], attempts: &[Attempt]) -> Vec<Bar> {
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
            row: workers.binary_search(&attempt.lane).unwrap_or(0),
        });
    }
    bars.sort_by_key(|bar| bar.start);
    bars
}

/// Converts to whole microseconds. Values out of range become the end of the range.
fn micros(ms: f64) -> i64 {
    // Sums of times must stay in the range in which a float is exact.
    (ms * 1e3).round().clamp(-1e15, 1e15) as i64
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::*;

    fn timeline(log: &str) -> Timeline {
        Timeline::new(read(std::io::Cursor::new(log), |_| ()).unwrap())
    }

    #[test]
    fn runs_follow_each_other_with_a_break() {
        let timeline = timeline(
            "{\"v\":1,\"run\":\"late\",\"seq\":1,\"start\":9000,\"ms\":500,\"worker\":2,\"status\":\"ok\"}\n\
             {\"v\":1,\"run\":\"early\",\"seq\":1,\"start\":10.5,\"ms\":500,\"worker\":1,\"status\":\"ok\"}\n\
             {\"v\":1,\"run\":\"early\",\"seq\":2,\"start\":10,\"ms\":250,\"worker\":7,\"status\":\"ok\"}\n",
        );
        assert_eq!(timeline.runs[0].id, "early");
        let numbers = timeline.workers.iter().map(|lane| lane.worker);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 7]);
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
        assert_eq!(calls.failed, [3]);
        assert_eq!(timeline.again, 2);
    }

    #[test]
    fn absurd_times_do_no_harm() {
        let timeline = timeline(
            "{\"v\":1,\"start\":1e308,\"ms\":1e308}\n{\"v\":1,\"start\":-1e308,\"ms\":1}\n{\"v\":1,\"ms\":1}\n",
        );
        assert_eq!(timeline.bars.len(), 2);
    }
}
