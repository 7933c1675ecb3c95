//! Chooses the attempts that a report shows one by one. A page of a million bars takes a browser minutes, and shows no more
//! than a page of some ten thousand.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::marks::Mark;

/// The most attempts that are all shown.
pub(super) const ALL: usize = 100_000;
/// About how many attempts of a longer log are shown, evenly spread.
const SAMPLE: usize = 50_000;
/// For how many failed calls the last attempt is shown besides.
const FAILED: usize = 10_000;
/// How many of the slowest attempts are shown besides.
const SLOWEST: usize = 1_000;

/// The slowest attempts seen so far.
#[derive(Debug, Default)]
pub(super) struct Slowest(BinaryHeap<Reverse<(u64, Reverse<u32>)>>);

impl Slowest {
    pub(super) fn add(&mut self, ms: f64, line: u32) {
        // The time is not negative, so its bits sort like the number. Of equal times, the earlier counts as slower.
        let this = Reverse((ms.to_bits(), Reverse(line)));
        if self.0.len() < SLOWEST {
            self.0.push(this);
        } else if self.0.peek().is_some_and(|fastest| this < *fastest) {
            self.0.pop();
            self.0.push(this);
        }
    }

    fn lines(self) -> Vec<u32> {
        let lines = self.0.into_iter();
        lines.map(|Reverse((_, Reverse(line)))| line).collect()
    }
}

/// The lines of the attempts that are shown.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// How many attempts each attempt of the sample stands for: 1 if all are shown.
    pub(super) step: usize,
    /// The sample, sorted.
    sample: Vec<u32>,
    /// The lines that are shown besides, sorted. Some of them may be in the sample, too.
    besides: Vec<u32>,
}

/// Picks from the marks of all attempts, in the order of their lines.
pub(super) fn lines(marks: &[Mark], slowest: Slowest) -> Picked {
    let step = match marks.len() {
        0..=ALL => 1,
        many => many.div_ceil(SAMPLE),
    };
    // Of each `step` attempts one is taken, but not always the first: an event that comes regularly would then be
    // taken always or never.
    let one_of = |(nth, of_step): (usize, &[Mark])| of_step[scatter(nth) % of_step.len()].line();
    let sample = marks.chunks(step).enumerate().map(one_of).collect();
    let mut besides = if step > 1 {
        slowest.lines()
    } else {
        Vec::new()
    };
    besides.sort_unstable();
    Picked {
        step,
        sample,
        besides,
    }
}

/// A hash of a number. It is the same in every run, so that a log always gives the same report.
fn scatter(number: usize) -> usize {
    // This is Knuth's multiplicative hash.
    ((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize
}

impl Picked {
    /// Adds lines of failed calls, as far as there is room.
    pub(super) fn with_failed(mut self, failed: &[u32]) -> Self {
        if self.step > 1 {
            self.besides.extend(failed.iter().take(FAILED));
            self.besides.sort_unstable();
            self.besides.dedup();
        }
        self
    }

    /// All chosen lines, sorted.
    pub(super) fn lines(&self) -> Vec<u32> {
        let mut lines = [&self.sample[..], &self.besides].concat();
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    /// How many attempts the one of this line stands for in a chart: none, if it is shown besides the sample.
    pub(super) fn weight(&self, line: u32) -> usize {
        match self.sample.binary_search(&line) {
            Ok(_) => self.step,
            Err(_) => 0,
        }
    }
}
