//! The calls of a map that agents hold: an agent runs many calls of a lease at once, so they end in any order.

use std::ops::Range;

use super::{Failures, Fate, Map};
use crate::scheduler::{Batch, Bundle, LeaseId, Taker};

impl<J: Clone, I: Bundle, T: Clone> Map<J, I, T> {
    /// The next calls for an agent with this many slots: at most `most`, with inputs of at most `bytes` bytes unless a
    /// single call has more. There is one: [`rank`](Self::rank) said so.
    pub(in crate::scheduler) fn next_lease(
        &mut self,
        lease: LeaseId,
        most: u32,
        bytes: usize,
        slots: u32,
    ) -> Batch<J, I> {
        let mut batch = self.begin_batch();
        // An agent is told to end what it runs of a lease from an index on, so each separate call has a lease of its own.
        let most = if self.spec.separate { 1 } else { most };
        let most = match self.goes_one_by_one() {
            true => most.min(slots),
            false => most,
        };
        let size = most.min(self.most_together(batch.first)).max(1);
        self.fill(&mut batch, size, bytes, Taker::Lease(lease));
        self.leased += slots.min(batch.count);
        batch
    }

    /// Whether an agent must not hold more calls of it than it can run at once.
    pub(in crate::scheduler) fn goes_one_by_one(&self) -> bool {
        self.spec.at_most_once || matches!(self.spec.failures, Failures::Most { .. })
    }

    /// A lease has no open calls any more, which counted like this many slots.
    pub(in crate::scheduler) fn lease_ended(&mut self, weight: u32) {
        self.leased = self.leased.saturating_sub(weight);
    }

    /// The parts of a range of calls that this lease holds now. Calls that have ended, went back, or are somebody else's by
    /// now are in none of them.
    pub(in crate::scheduler) fn held_by(
        &mut self,
        lease: LeaseId,
        calls: Range<u64>,
    ) -> Vec<Range<u64>> {
        let mut held: Vec<Range<u64>> = Vec::new();
        for at in self.within(calls.start, calls.end) {
            let Some(stretch) = self.stretches.get(&at) else {
                continue;
            };
            let is_held =
                matches!(&stretch.fate, Fate::Running { by, .. } if *by == Taker::Lease(lease));
            let end = at + u64::from(stretch.count);
            match held.last_mut() {
                _ if !is_held => {}
                Some(last) if last.end == at => last.end = end,
                _ => held.push(at..end),
            }
        }
        held
    }

    /// Which attempt at a call this lease runs, if it holds it.
    pub(in crate::scheduler) fn attempt_by(&self, lease: LeaseId, index: u64) -> Option<u32> {
        let (first, stretch) = self.stretches.range(..=index).next_back()?;
        let is_within = index - first < u64::from(stretch.count);
        match &stretch.fate {
            Fate::Running { attempts, by, .. } if is_within && *by == Taker::Lease(lease) => {
                Some(attempts + 1)
            }
            _ => None,
        }
    }

    /// Notes that a call was lost with its agent; returns how often that has happened.
    pub(in crate::scheduler) fn lost(&mut self, index: u64) -> u32 {
        let losses = self.losses.entry(index).or_default();
        *losses += 1;
        *losses
    }

    /// Calls have ended: how often they were lost does not matter any more.
    pub(super) fn forget_losses(&mut self, first: u64, count: u32) {
        if self.losses.is_empty() {
            return;
        }
        let ended = first..first + u64::from(count);
        let ended: Vec<u64> = self.losses.range(ended).map(|(index, _)| *index).collect();
        for index in ended {
            self.losses.remove(&index);
        }
    }

    /// How many calls are ready to run.
    pub(in crate::scheduler) fn ready_calls(&self) -> usize {
        self.ready_calls
    }
}
