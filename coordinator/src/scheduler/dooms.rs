//! Deadlines and other ends of running calls, and taking back those that have not begun.

use std::time::Duration;

use super::{
    Bundle, Busy, Doom, Doomed, End, MapId, Must, Running, STUCK, Scheduler, Seen, Sight, Slot,
    SlotId, Stage, Time, WORTH,
};

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    /// The next time [`overdue`](Self::overdue) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        if self.paused.is_some() {
            return None;
        }
        let busy = self.slots.iter().filter_map(Slot::busy);
        busy.filter_map(Busy::deadline).min()
    }

    /// Lets deadlines take effect that have passed.
    pub(crate) fn overdue(&mut self, now: Time, sight: &impl Sight) {
        if self.paused.is_some() {
            return;
        }
        for slot in self.busy_slots() {
            let Some(busy) = self.slots[slot.0].busy_mut() else {
                continue;
            };
            match busy.end {
                End::Limited { at, limit } if at <= now => {
                    self.out_of_time(slot, limit, now, sight);
                }
                End::Owing { kill_at } if kill_at <= now => {
                    let doom = Doomed {
                        doom: Doom::Silent,
                        call: None,
                    };
                    busy.end = End::Killed { doom };
                    self.effects.signals.push((slot, Stage::Kill));
                }
                End::Terminated { doom, kill_at } if kill_at <= now => {
                    busy.end = End::Killed { doom };
                    self.effects.signals.push((slot, Stage::Kill));
                }
                _ => {}
            }
        }
    }

    /// The call that a slot runs has reached its limit, unless it began later than was known.
    fn out_of_time(&mut self, slot: SlotId, limit: Duration, now: Time, sight: &impl Sight) {
        let Some(seen) = self.look(slot, sight) else {
            return;
        };
        if let Some(busy) = self.open_to(slot)
            && busy.begins_again(seen, now)
        {
            busy.next_call(seen.began);
            if busy.deadline().is_none_or(|at| at > now) {
                return;
            }
        }
        self.doom(slot, Doom::TimedOut(limit), now, sight, Must::HaveACall);
    }

    /// The slots whose workers may have only so much memory for what they are running.
    pub(crate) fn memory_limits(&self) -> impl Iterator<Item = (SlotId, u64)> {
        let limits = self.slots.iter().map(Slot::memory_limit).enumerate();
        limits.filter_map(|(number, limit)| Some((SlotId(number), limit?)))
    }

    /// A worker has more memory than the call it runs allows.
    pub(crate) fn out_of_memory(
        &mut self,
        slot: SlotId,
        limit: u64,
        now: Time,
        sight: &impl Sight,
    ) {
        self.doom(slot, Doom::OutOfMemory(limit), now, sight, Must::HaveACall);
    }

    /// Decides that the call which a slot runs is ended from outside. The calls that its worker has not started are
    /// given back.
    pub(super) fn doom(
        &mut self,
        slot: SlotId,
        doom: Doom,
        now: Time,
        sight: &impl Sight,
        must: Must,
    ) {
        let Some(busy) = self.open_to(slot) else {
            return;
        };
        // A worker that has started no call has to answer for the first one.
        let least = match must {
            Must::HaveACall => busy.reported + 1,
            Must::Die | Must::BeRunning(_) | Must::Run(_) => 0,
        };
        self.lower(slot, least, now, sight);
        let Some(seen) = self.look(slot, sight) else {
            return;
        };
        let Some(busy) = self.slots[slot.0].busy_mut() else {
            return;
        };
        let last = busy
            .limit
            .checked_sub(1)
            .filter(|last| *last >= busy.reported && (seen.finished <= *last || must == Must::Die));
        let is_meant = match (must, last) {
            (Must::Die, _) => true,
            (Must::HaveACall, last) => last.is_some(),
            (Must::BeRunning(from), last) => {
                last.is_some_and(|last| seen.started > last && busy.first + u64::from(last) >= from)
            }
            (Must::Run(call), last) => {
                last.is_some_and(|last| seen.started > last && busy.first + u64::from(last) == call)
            }
        };
        if is_meant {
            let stage = busy.condemn(doom, last, now);
            self.effects.signals.push((slot, stage));
        } else if seen.finished >= busy.limit && busy.limit > busy.reported {
            // By the worker's own word all its calls have ended, so it has only to say so.
            busy.has_to_answer(now);
        } else if busy.deadline().is_some_and(|at| at <= now) {
            // The call has just finished, and the next one has a limit of its own.
            busy.next_call(now);
        }
        self.effects.rearm = true;
    }

    /// Cancels what runs of a map, from an index on.
    pub(super) fn doom_map(&mut self, map: MapId, from: u64, now: Time, sight: &impl Sight) {
        self.recall_of(Some(map), from, true);
        for slot in self.busy_slots() {
            let concerned = self.slots[slot.0]
                .busy()
                .is_some_and(|busy| busy.map == map && busy.first + u64::from(busy.limit) > from);
            if concerned {
                self.doom(slot, Doom::Cancelled, now, sight, Must::BeRunning(from));
            }
        }
    }

    /// A map was cut: what workers have not started of it does not start, and what runs is killed if it
    /// is to be.
    pub(super) fn cut(&mut self, map: MapId, from: u64, kill: bool, now: Time, sight: &impl Sight) {
        if kill {
            return self.doom_map(map, from, now, sight);
        }
        self.recall_of(Some(map), from, false);
        for slot in self.slots_of(map) {
            // A doomed call ends as was decided, whether it had begun or not.
            self.lower(slot, 0, now, sight);
        }
    }

    // ---- What a worker shows ---------------------------------------------------------------

    /// A slot's batch, if its worker may still be told to do something about it.
    fn open_to(&mut self, slot: SlotId) -> Option<&mut Busy> {
        let busy = self.slots[slot.0].busy_mut()?;
        (!busy.is_gone && busy.doomed().is_none()).then_some(busy)
    }

    /// How far a slot's worker has come, if anything depends on it. A worker whose black box shows what can't be is
    /// killed.
    pub(super) fn look(&mut self, slot: SlotId, sight: &impl Sight) -> Option<Seen> {
        let seen = self.open_to(slot)?.note(sight.look(slot));
        if seen.is_none() {
            self.convict(slot);
        }
        seen
    }

    /// A slot's worker is to start no more than `to` calls of its batch: the others wait again.
    pub(super) fn lower(&mut self, slot: SlotId, to: u32, now: Time, sight: &impl Sight) {
        let Some(busy) = self.open_to(slot) else {
            return;
        };
        match busy.keeps(to, sight.lower(slot, to)) {
            Some(kept) => self.retract(slot, kept, now),
            None => self.convict(slot),
        }
    }

    /// A slot's worker lies: it is killed. What it runs is not known any more, but it has to answer for a call.
    fn convict(&mut self, slot: SlotId) {
        if let Some(busy) = self.slots[slot.0].busy_mut() {
            busy.end = End::Killed { doom: Doomed::LIED };
            self.effects.signals.push((slot, Stage::Kill));
        }
    }

    /// Why the worker was killed, where the end of its calls does not say it.
    pub(crate) fn why_killed(&self, running: &Running) -> Option<&'static str> {
        let doomed = self.slots[running.slot.0].busy()?.doomed()?;
        doomed.doom.note()
    }

    // ---- Taking back -----------------------------------------------------------------------

    /// Whether a worker has calls that it may not have started.
    pub(super) fn has_spare(&self) -> bool {
        let mut busy = self.slots.iter().filter_map(Slot::busy);
        busy.any(|busy| busy.doomed().is_none() && busy.limit > busy.reported + 1)
    }

    /// Takes back calls that a worker has not started, for one that has nothing to do: all of them if
    /// the call before them takes long, or else half, if there is enough to make it worth while. Whether there are
    /// any to take now.
    pub(super) fn take_back(&mut self, now: Time, sight: &impl Sight) -> bool {
        let mut best: Option<(u32, SlotId, u32)> = None;
        for slot in self.busy_slots() {
            let Some(busy) = self.open_to(slot) else {
                continue;
            };
            let (limit, map, begun) = (busy.limit, busy.map, busy.since);
            if limit <= busy.reported + 1 {
                continue;
            }
            let Some(seen) = self.look(slot, sight) else {
                continue;
            };
            let spare = limit.saturating_sub(seen.started.max(1));
            let since = match seen.started {
                0 => begun,
                _ => seen.began.max(begun),
            };
            let stuck = now.saturating_sub(since) >= STUCK;
            let pace = self.maps.get(&map).map(|map| map.pace);
            let worth = pace.is_some_and(|pace| pace.estimate(spare) >= WORTH);
            if spare > 0 && (stuck || worth) && best.is_none_or(|(most, ..)| spare > most) {
                let keep = match stuck {
                    true => 1,
                    false => limit - spare.div_ceil(2),
                };
                best = Some((spare, slot, keep));
            }
        }
        if let Some((_, slot, keep)) = best {
            self.lower(slot, keep, now, sight);
        }
        !self.ready.is_empty()
    }

    /// A slot's worker keeps only so many calls of its batch: the others wait again.
    fn retract(&mut self, slot: SlotId, kept: u32, now: Time) {
        let Some(busy) = self.slots[slot.0].busy_mut() else {
            return;
        };
        let kept = kept.max(busy.reported).max(busy.heard).max(busy.started);
        let Some(count) = busy.limit.checked_sub(kept).filter(|count| *count > 0) else {
            return;
        };
        busy.limit = kept;
        self.effects.rearm |= busy.owes(now);
        let (map, first) = (busy.map, busy.first + u64::from(kept));
        if self.maps.contains_key(&map) {
            self.with_map(map, |map| map.give_back(first, count));
            self.call_for(map);
            self.effects.wake.insert(map);
            self.forget_if_done(map);
        }
    }
}
