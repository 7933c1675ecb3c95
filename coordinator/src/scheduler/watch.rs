//! Which slots are woken up, and which one keeps watch.
//!
//! To wake a slot takes as long as hundreds of short calls, and where there are more workers than processors, those
//! that are awake take turns with the caller who has the next inputs. So a slot is woken for what is worth it, and
//! wakes others if there is more. Calls that are worth less wait for the slots that are busy with their map, and are
//! back in a moment.
//!
//! They may be held up. So as long as any call might have to wait for that, one slot of those that have nothing to do
//! keeps watch: it looks again after a while, for calls that wait and for those that stand behind a long one.

use std::time::Duration;

use super::{Bundle, Idle, Map, MapId, Next, STUCK, Scheduler, Slot, SlotId, Time};

/// How many slots are woken up at once. Each wakes as many if there is more to do.
const FAN: usize = 2;

/// A map that was served within this time goes on.
const RECENT: Duration = Duration::from_millis(10);

/// How many workers for each processor start in any case.
const FEW: usize = 4;

/// A slot with nothing to do that is going to look again.
#[derive(Debug)]
pub(super) struct Watch {
    slot: SlotId,
    at: Time,
    /// It looks for calls that are held up, and does not only wait for one whose backoff passes.
    looks: bool,
}

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    /// Calls of a map have become ready: wakes slots for them.
    pub(super) fn call_for(&mut self, id: MapId) {
        let Some(map) = self.maps.get(&id) else {
            return;
        };
        self.effects.agents.offer |= map.has_ready() && self.leases.has_agents();
        match map.worth_waking() {
            0 if map.has_ready() => self.want_watch(),
            worth => self.call(worth),
        }
    }

    /// So many slots should look for something to do, those that are on their way already included.
    pub(super) fn call(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.coming + self.effects.work);
        self.effects.work += missing.min(FAN);
    }

    /// So many slots have been woken up, and will ask for calls.
    pub(crate) fn woken(&mut self, slots: usize) {
        self.coming += slots;
    }

    /// A slot that may have been woken up for what there is to do does something else: others must look.
    pub(super) fn pass_on(&mut self) {
        let next = self.ready.first().map(|(.., map)| *map);
        if let Some(map) = next {
            self.call_for(map);
        }
        if self.has_spare() {
            self.want_watch();
        }
        if !self.delayed.is_empty() && self.watch.is_none() {
            self.call(1);
        }
    }

    /// Somebody has to look for calls that are held up.
    fn want_watch(&mut self) {
        let looks = self.watch.as_ref().is_some_and(|watch| watch.looks);
        if !looks {
            self.call(1);
        }
    }

    /// Ends a slot's watch; whether its time had come.
    pub(super) fn end_watch(&mut self, slot: SlotId, now: Time) -> bool {
        let ended = self.watch.take_if(|watch| watch.slot == slot);
        let is_due = ended.is_some_and(|watch| watch.at <= now);
        if is_due {
            for (.., id) in &self.ready {
                if let Some(map) = self.maps.get_mut(id) {
                    map.look_for_late(now);
                }
            }
        }
        is_due
    }

    /// The map to serve next. A slot that was asleep leaves calls to those that are back in a moment, and one that is
    /// awake leaves them if there are enough others.
    pub(super) fn next_map(&mut self, was_asleep: bool, now: Time) -> Option<MapId> {
        self.map_in_turn(now, |_, map, _| match was_asleep {
            true => map.worth_waking() > 0,
            false => map.wants_more(),
        })
    }

    /// Whether another worker could do something, where so many live. If nobody has anything to do, it could as soon as
    /// there are calls. In between, one looks at those that there are: while some of them are idle, or there are enough
    /// for as many slots as are tried, it could only take their processor. A few for each of those do no harm.
    pub(crate) fn has_use_for_another(&self, living: usize, now: Time) -> bool {
        if living < FEW * self.processors {
            return true;
        }
        let ready = self.ready.iter().filter_map(|(.., map)| self.maps.get(map));
        let busy = self.slots.iter().filter_map(Slot::busy).count();
        if let Some(more) = ready.map(Map::may_need).max() {
            return living < busy.saturating_add(more);
        }
        let is_recent = |map: &Map<J, I, T>| now.saturating_sub(map.served) < RECENT;
        busy >= living || !self.maps.values().any(is_recent)
    }

    /// There is nothing for a slot to do. One of those that wait looks again, if that might be worth it.
    pub(super) fn wait(&mut self, slot: SlotId, now: Time) -> Next<J, I> {
        let idle = Idle::waiting(slot);
        let looks = !self.ready.is_empty() || self.has_spare();
        let look = looks.then(|| now.saturating_add(STUCK));
        let delayed = self.delayed.first().map(|(time, ..)| *time);
        let Some(at) = look.into_iter().chain(delayed).min() else {
            return Next::Wait(idle, None);
        };
        let is_kept = self
            .watch
            .as_ref()
            .is_some_and(|watch| watch.at <= at && (watch.looks || !looks));
        if is_kept {
            return Next::Wait(idle, None);
        }
        self.watch = Some(Watch { slot, at, looks });
        Next::Wait(idle, Some(at))
    }
}
