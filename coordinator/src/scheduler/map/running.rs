//! The calls of a map that run: how they come to, and how an attempt ends.

use std::time::Duration;

use super::{
    Completed, Ended, Failures, Fate, Limits, MOST_BYTES, Map, SMALLER, Settled, Stretch, UNBEGUN,
    Unbegun, delay, may_retry,
};
use crate::error::Why;
use crate::scheduler::{Batch, Bundle, Part, SlotId, Taker, Time};

impl<J: Clone, I: Bundle, T: Clone> Map<J, I, T> {
    /// The next calls to run, at most so many. There is one: [`rank`](Self::rank) said so.
    pub(in crate::scheduler) fn next_batch(
        &mut self,
        most: u32,
        slots: usize,
        slot: SlotId,
    ) -> Batch<J, I> {
        let mut batch = self.begin_batch();
        let first = batch.first;
        let most = match self.spec.failures {
            // If a failure cancels the calls behind it, a batch would run them before anyone hears of the failure.
            Failures::Most { .. } => 1,
            Failures::Any | Failures::First => most,
        };
        let sharing = slots.min(self.slot_limit());
        let most = most.min(self.most_together(first));
        let size = self.pace.size(self.ready_calls, sharing).min(most).max(1);
        self.fill(&mut batch, size, MOST_BYTES, Taker::Slot(slot));
        self.slots += 1;
        batch
    }

    /// A batch without calls yet, which begins with the first call that is ready.
    pub(super) fn begin_batch(&self) -> Batch<J, I> {
        Batch {
            job: self.spec.job.clone(),
            memory: self.spec.limits.memory,
            first: self.ready.first().copied().unwrap_or(self.end),
            attempt: 1,
            count: 0,
            parts: Vec::new(),
        }
    }

    /// Fills a batch with calls that are ready, from its first on: at most `size`, with inputs of at most `room` bytes
    /// unless a single call has more.
    pub(super) fn fill(&mut self, batch: &mut Batch<J, I>, size: u32, mut room: usize, by: Taker) {
        while batch.count < size {
            let at = batch.first + u64::from(batch.count);
            let Some(part) = self.run_some(at, size - batch.count, &mut room, batch, by) else {
                break;
            };
            batch.count += part.count;
            batch.parts.push(part);
            if batch.attempt > 1 {
                break; // a call that failed before fails alone
            }
        }
        self.running += batch.count as usize;
    }

    /// Lets some of the ready stretch that begins at `at` run, if there is one that fits to the batch.
    pub(super) fn run_some(
        &mut self,
        at: u64,
        most: u32,
        room: &mut usize,
        batch: &mut Batch<J, I>,
        by: Taker,
    ) -> Option<Part<I>> {
        if !self.ready.contains(&at) {
            return None;
        }
        let stretch = self.stretches.get(&at)?;
        let Fate::Waiting {
            inputs,
            at: place,
            attempts,
        } = &stretch.fate
        else {
            return None;
        };
        let (inputs, place, attempts) = (inputs.clone(), *place, *attempts);
        let begins = batch.count == 0;
        if !begins && attempts > 0 {
            return None;
        }
        batch.attempt = attempts + 1;
        let most = if attempts > 0 { 1 } else { most };
        let mut count = stretch.count.min(most);
        // Halving finds what fits quickly enough; a single call always does.
        while count > 1 && inputs.bytes(place, count) > *room {
            count /= 2;
        }
        let bytes = inputs.bytes(place, count);
        if !begins && bytes > *room {
            return None;
        }
        *room = room.saturating_sub(bytes);
        self.split(at + u64::from(count));
        self.unset_ready(at, count);
        let fate = Fate::Running {
            inputs: inputs.clone(),
            at: place,
            attempts,
            by,
        };
        self.insert(at, count, fate);
        Some(Part {
            inputs,
            at: place,
            count,
        })
    }

    /// A worker died, or lied, and began none of so many calls from `first` on, as far as is known. Says whether the
    /// first call is to blame. It is, if it was alone in its batch each time, or once if its worker lied. Until then
    /// it and its neighbours go in ever smaller batches, because the worker may have reached any of them.
    pub(in crate::scheduler) fn is_deadly(&mut self, first: u64, count: u32, lied: bool) -> bool {
        let end = first + u64::from(count);
        let end = self
            .suspicion(first)
            .map_or(end, |around| around.end.max(end));
        let unbegun = self.unbegun.entry(first).or_default();
        unbegun.end = end;
        unbegun.most = (count / SMALLER).max(1);
        unbegun.alone += u32::from(count == 1);
        let is_deadly = unbegun.alone > UNBEGUN || (lied && unbegun.alone > 0);
        if is_deadly {
            // The count begins anew for the next attempt, because many workers may have been killed at once.
            unbegun.alone = 0;
        }
        is_deadly
    }

    /// The last such batch that had a call in it.
    fn suspicion(&self, index: u64) -> Option<&Unbegun> {
        let (_, last) = self.unbegun.range(..=index).next_back()?;
        (last.end > index).then_some(last)
    }

    /// How many calls from `first` on may go together.
    pub(super) fn most_together(&self, first: u64) -> u32 {
        if let Some(suspicion) = self.suspicion(first) {
            return suspicion.most;
        }
        let next = self.unbegun.range(first..).next();
        let before = next.map_or(u64::MAX, |(suspected, _)| suspected - first);
        u32::try_from(before).unwrap_or(u32::MAX).max(1)
    }

    /// A slot has done with its batch.
    pub(in crate::scheduler) fn released(&mut self) {
        self.slots = self.slots.saturating_sub(1);
    }

    /// Running calls were not charged: they wait to run again.
    pub(in crate::scheduler) fn give_back(&mut self, first: u64, count: u32) {
        for at in self.within(first, first + u64::from(count)) {
            let Some(stretch) = self.stretches.remove(&at) else {
                continue;
            };
            match stretch.fate {
                Fate::Running {
                    inputs,
                    at: place,
                    attempts,
                    ..
                } => {
                    self.running -= stretch.count as usize;
                    let fate = Fate::Waiting {
                        inputs,
                        at: place,
                        attempts,
                    };
                    self.insert(at, stretch.count, fate);
                    self.set_ready(at);
                }
                fate => self.insert(at, stretch.count, fate),
            }
        }
        if let Some(from) = self.cut.as_ref().map(|cut| cut.from) {
            self.cancel_waiting(from);
        }
        self.end_cancelled(first..first + u64::from(count));
    }

    /// The backoff of a call has passed. If it was cancelled in the meantime, that stands.
    pub(in crate::scheduler) fn backoff_passed(&mut self, index: u64) {
        let waits = self
            .stretches
            .get(&index)
            .is_some_and(|stretch| matches!(stretch.fate, Fate::Waiting { .. }));
        if waits {
            self.set_ready(index);
        }
    }

    /// Running calls have returned values.
    pub(in crate::scheduler) fn values(
        &mut self,
        first: u64,
        count: u32,
        trace: T,
        bytes: usize,
    ) -> Settled {
        let mut attempts = 0;
        let mut ended = 0;
        let mut read = 0;
        for at in self.within(first, first + u64::from(count)) {
            if let Some((calls, made, bytes)) = self.end_running(at) {
                read += bytes;
                attempts = made + 1;
                ended += calls;
            }
        }
        debug_assert_eq!(ended, count, "replies to calls that were not running");
        let ended = Ended {
            result: Ok(()),
            attempts,
            trace: Some(trace),
            note: None,
            again: false,
        };
        let bytes = self.held(bytes, read);
        self.bytes += bytes;
        Settled::Ended {
            visible: self.end_calls(first, count, ended, bytes),
        }
    }

    /// Takes a running stretch out: how many calls, how many attempts they had before, and how
    /// many bytes of inputs.
    pub(super) fn end_running(&mut self, at: u64) -> Option<(u32, u32, usize)> {
        let stretch = self.stretches.remove(&at)?;
        match stretch.fate {
            Fate::Running {
                inputs,
                at: place,
                attempts,
                ..
            } => {
                let bytes = inputs.bytes(place, stretch.count);
                self.forget_losses(at, stretch.count);
                self.bytes -= bytes;
                self.running -= stretch.count as usize;
                self.unfinished -= stretch.count as usize;
                Some((stretch.count, attempts, bytes))
            }
            fate => {
                self.insert(at, stretch.count, fate);
                None
            }
        }
    }

    /// An attempt of a running call has ended.
    pub(in crate::scheduler) fn settle(
        &mut self,
        index: u64,
        result: Result<(), Why>,
        trace: T,
        bytes: usize,
        now: Time,
    ) -> Settled {
        self.within(index, index + 1);
        let Limits {
            retries, backoff, ..
        } = self.spec.limits;
        let Some(Stretch {
            fate: Fate::Running { attempts, .. },
            ..
        }) = self.stretches.get(&index)
        else {
            return Settled::Ended { visible: false };
        };
        let attempts = attempts + 1;
        let cut = self.is_cut(index) || self.why_cancelled(index).is_some();
        if !cut && attempts <= retries && result.as_ref().is_err_and(may_retry) {
            let visible = self.spec.every_attempt && !self.detached;
            if visible {
                let ended = Ended {
                    result,
                    attempts,
                    trace: Some(trace),
                    note: None,
                    again: true,
                };
                self.completed.push_back(Completed::Attempt(index, ended));
            }
            let at = self.try_again(index, attempts, backoff, now);
            return Settled::Again { at, visible };
        }
        // A call that was stopped because its map was cut off says so.
        let note = match (&result, &self.cut) {
            (Err(Why::Cancelled), Some(cut)) => {
                Some(cut.running.clone().unwrap_or_else(|| cut.note.clone()))
            }
            (Err(Why::Cancelled), None) => self.why_cancelled(index).cloned(),
            _ => None,
        };
        let failed = result.is_err();
        let ended = Ended {
            result,
            attempts,
            trace: Some(trace),
            note,
            again: false,
        };
        let read = self.end_running(index).map_or(0, |(.., read)| read);
        let bytes = self.held(bytes, read);
        self.bytes += bytes;
        let visible = self.end_calls(index, 1, ended, bytes);
        let settled = failed.then(|| self.cut_after_failure(index)).flatten();
        settled.unwrap_or(Settled::Ended { visible })
    }

    /// Has a call wait for its next attempt; the time until which, if it is not to run at once.
    pub(super) fn try_again(
        &mut self,
        index: u64,
        made: u32,
        backoff: Duration,
        now: Time,
    ) -> Option<Time> {
        if let Some(stretch) = self.stretches.remove(&index)
            && let Fate::Running { inputs, at, .. } = stretch.fate
        {
            self.running -= 1;
            let fate = Fate::Waiting {
                inputs,
                at,
                attempts: made,
            };
            self.insert(index, 1, fate);
        }
        if backoff.is_zero() {
            self.set_ready(index);
            return None;
        }
        Some(now.saturating_add(delay(backoff, made, index)))
    }
}
