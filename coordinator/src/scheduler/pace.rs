//! How many calls to send to a worker together.
//!
//! Calls go together, because each message costs as much as thousands of short calls. They must not be too many: a caller
//! that waits for the first must not have to wait for the last, and near the end each slot should
//! have something to do. There is nothing to set: the cost of the calls is measured.
//!
//! A batch has other limits, too: `Map::next_batch` applies them (retries go alone), `Seat::most` knows when a worker is
//! replaced, and `MOST_CALLS` and `MOST_BYTES` are the caps.

use std::time::Duration;

use super::STUCK;

/// How long a batch is to take: some hundred times what it costs to send one.
const TARGET: Duration = Duration::from_millis(4);
/// What a batch takes at least, if there are calls enough: sharing less than that out costs more than it
/// saves.
const LEAST: Duration = Duration::from_micros(150);
/// What calls must take together for a slot to be woken up for them: some times what it takes to wake it, and its worker.
const WAKE: Duration = Duration::from_micros(300);
/// How much larger a batch may be than the one before.
const GROWTH: u32 = 8;

/// How many batches tell what calls cost.
const RECENT: usize = 8;

/// The pace of one map.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// What a call costs, in nanoseconds; 0 if nobody knows.
    cost: u64,
    /// What a call cost in each of the last batches.
    costs: [u64; RECENT],
    /// How many batches there were.
    learned: usize,
    /// How many calls were in the largest batch so far.
    largest: u32,
}

impl Pace {
    /// The pace of another map of the same task. What its own first batch costs counts alone then.
    pub(super) fn for_another(&self) -> Self {
        Pace {
            cost: self.cost,
            largest: self.largest,
            ..Pace::default()
        }
    }

    /// Whether anything is known of what a call costs.
    pub(super) fn is_known(&self) -> bool {
        self.cost > 0
    }

    /// So many calls took so long, one after another.
    pub(super) fn learn(&mut self, calls: u32, took: Duration) {
        if calls == 0 {
            return;
        }
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let cost = (took / u64::from(calls)).max(1);
        self.costs[self.learned % RECENT] = cost;
        self.learned += 1;
        // What is measured may be too long, because the worker was new or had to wait for a processor, but hardly too
        // short. So a few batches that took longer than the others don't count.
        let mut costs = self.costs;
        let known = &mut costs[..self.learned.min(RECENT)];
        known.sort_unstable();
        self.cost = known[known.len() / 4];
        self.largest = self.largest.max(calls);
    }

    /// How many calls to send now, where `ready` wait and `slots` share them.
    pub(super) fn size(&self, ready: usize, slots: usize) -> u32 {
        if self.cost == 0 {
            return 1;
        }
        let calls = |time: Duration| {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            u32::try_from(nanos / self.cost).unwrap_or(u32::MAX)
        };
        let by_share = u32::try_from(ready.div_ceil(2 * slots.max(1))).unwrap_or(u32::MAX);
        calls(TARGET)
            .min(self.largest.saturating_mul(GROWTH))
            .min(by_share.max(calls(LEAST)))
            .clamp(1, super::MOST_CALLS)
    }

    /// How many slots so many calls are worth waking, if what they cost is known.
    pub(super) fn worth(&self, calls: usize) -> Option<usize> {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        let wakes = self.estimate(calls).as_nanos() / WAKE.as_nanos();
        (self.cost > 0).then(|| usize::try_from(wakes).unwrap_or(usize::MAX))
    }

    /// Whether whoever runs a call is back in a moment.
    pub(super) fn is_short(&self) -> bool {
        self.estimate(1) < TARGET
    }

    /// Whether a call is known to take so little that others can wait for it without anyone noticing.
    pub(super) fn is_brief(&self) -> bool {
        self.cost > 0 && self.estimate(1) < STUCK
    }

    /// When a batch should be through, even if it takes twice as long as one would think.
    pub(super) fn expected(&self, calls: u32) -> Duration {
        self.estimate(calls).saturating_mul(2).min(2 * TARGET)
    }

    /// How long so many calls will take, as far as one can tell.
    pub(super) fn estimate(&self, calls: u32) -> Duration {
        Duration::from_nanos(self.cost.saturating_mul(calls.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    #[test]
    fn short_calls_soon_go_in_large_batches_and_long_ones_alone() {
        let mut pace = Pace::default();
        let mut rounds = 0;
        while pace.size(1_000_000, 2) < super::super::MOST_CALLS {
            let size = pace.size(1_000_000, 2);
            pace.learn(size, nanos(30_000 + 60 * u64::from(size)));
            rounds += 1;
        }
        assert!(rounds < 10, "{rounds}");
        for _ in 0..20 {
            let size = pace.size(1_000_000, 2);
            pace.learn(size, nanos(10_000_000 * u64::from(size)));
        }
        assert_eq!(pace.size(1_000_000, 2), 1);
    }

    #[test]
    fn what_calls_cost_says_how_many_slots_they_are_worth() {
        let mut pace = Pace::default();
        assert_eq!(pace.worth(100), None);
        // 100 µs each.
        (0..8).for_each(|_| pace.learn(10, nanos(1_000_000)));
        assert_eq!(pace.estimate(10), nanos(1_000_000));
        assert_eq!(
            (pace.worth(2), pace.worth(3), pace.worth(30)),
            (Some(0), Some(1), Some(10))
        );
        assert_eq!(pace.expected(10), nanos(2_000_000));
        assert_eq!(pace.expected(1_000), 2 * TARGET);
        assert!(pace.is_short());
        (0..8).for_each(|_| pace.learn(1, TARGET));
        assert!(!pace.is_short());
    }

    proptest! {
        #[test]
        fn a_batch_is_never_empty_and_leaves_something_for_the_others(
            costs in prop::collection::vec((1..1000_u32, 0..u64::MAX), 0..20),
            ready in 1..1_000_000_usize,
            slots in 1..64_usize,
        ) {
            let mut pace = Pace::default();
            for (calls, took) in costs {
                pace.learn(calls, nanos(took));
            }
            let size = pace.size(ready, slots);
            prop_assert!((1..=super::super::MOST_CALLS).contains(&size));
            let least = pace.estimate(size) <= 2 * LEAST;
            prop_assert!(least || size as usize <= ready.div_ceil(2 * slots));
        }
    }
}
