//! Calls that have a caller each: see `map/separate.rs`.

use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::{
    Bundle, Doom, Ended, MOST_CALLS, Map, MapId, Must, STUCK, Scheduler, Sight, SlotId, Taker, Time,
};

/// How long a result may stand in a black box before somebody looks there.
const GLANCE: Duration = Duration::from_millis(5);
/// How long separate calls go before a map of which nobody runs a call, or as long as one of its calls takes, if that is
/// longer.
const BEFORE: Duration = Duration::from_millis(20);

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    /// How a call has ended, if it has. Each is asked for once, by the one who has it.
    pub(crate) fn take_one(&mut self, map: MapId, index: u64) -> Option<Ended<T>> {
        self.maps.get_mut(&map)?.take_one(index)
    }

    /// Whether [`take_one`](Self::take_one) would find something.
    pub(crate) fn has_ended(&self, map: MapId, index: u64) -> bool {
        self.maps.get(&map).is_none_or(|map| map.has_ended(index))
    }

    /// Nobody will take a call's result any more. What it is, if it has ended already; else it runs, and is forgotten.
    pub(crate) fn let_go(&mut self, map: MapId, index: u64) -> Option<Ended<T>> {
        self.maps.get_mut(&map)?.let_go(index)
    }

    /// Whether nobody will take what a call prints.
    pub(crate) fn is_let_go(&self, map: MapId, index: u64) -> bool {
        let map = self.maps.get(&map);
        map.is_none_or(|map| map.detached || map.is_let_go(index))
    }

    /// The slot that has a call in a batch with others, whose results may stand in its black box.
    pub(crate) fn batch_of(&self, map: MapId, index: u64) -> Option<SlotId> {
        match self.maps.get(&map)?.taker(index)? {
            Taker::Slot(slot) => self.slots[slot.0]
                .busy()
                .filter(|busy| busy.sent > 1)
                .map(|_| slot),
            Taker::Lease(_) => None,
        }
    }

    /// Whether a map has neither calls that have not ended, nor results that somebody will take.
    pub(crate) fn is_unused(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(super::Map::is_unused)
    }

    /// Cancels one call, if it has not ended: it ends as cancelled, and no other call does.
    pub(crate) fn cancel_one(
        &mut self,
        map: MapId,
        index: u64,
        now: Time,
        note: &str,
        sight: &impl Sight,
    ) {
        if !self.maps.contains_key(&map) {
            return;
        }
        match self.with_map(map, |map| map.cancel_one(index, note)) {
            Some(Taker::Slot(slot)) => self.cancel_on(slot, index, now, sight),
            Some(Taker::Lease(lease)) => self.recall_one(lease, index),
            None => {}
        }
        self.leave_if_drained();
    }

    /// Cancels a call that a slot has. If its worker has not begun it, it goes back, and those behind it do; if it runs,
    /// its worker is killed.
    fn cancel_on(&mut self, slot: SlotId, index: u64, now: Time, sight: &impl Sight) {
        let Some(busy) = self.slots[slot.0].busy() else {
            return;
        };
        let place = u32::try_from(index.saturating_sub(busy.first)).unwrap_or(u32::MAX);
        self.lower(slot, place, now, sight);
        let busy = self.slots[slot.0].busy();
        if busy.is_some_and(|busy| busy.limit > place) {
            self.doom(slot, Doom::Cancelled, now, sight, Must::Run(index));
        }
    }

    /// Lets go of the calls that wait behind one that takes long, where other calls are ready: who waits for them has
    /// nothing to do with the others. Without others, an idle slot takes them back.
    pub(super) fn free_stuck(&mut self, now: Time, sight: &impl Sight) {
        if self.glance.is_none() {
            return; // No separate calls run together.
        }
        for slot in self.separate_batches() {
            let busy = self.slots[slot.0].busy();
            let is_late = |since: Time| now.saturating_sub(since) >= STUCK;
            let Some(since) = busy.map(|busy| busy.since).filter(|since| is_late(*since)) else {
                continue;
            };
            if let Some(seen) = self.look(slot, sight)
                && (seen.started == 0 || is_late(seen.began.max(since)))
            {
                self.lower(slot, 1, now, sight);
            }
        }
    }

    /// The map to serve next, of those that are wanted. Separate calls go before maps that are under way. Where more of them
    /// come than are run, such a map has its turn all the same.
    pub(super) fn map_in_turn(
        &mut self,
        now: Time,
        is_wanted: impl Fn(&Self, &Map<J, I, T>, MapId) -> bool,
    ) -> Option<MapId> {
        let this = &*self;
        let ready = this
            .ready
            .iter()
            .filter_map(|(.., id)| Some((*id, this.maps.get(id)?)));
        let mut wanted = ready.filter(|(id, map)| is_wanted(this, map, *id));
        let first = wanted.next();
        let is_separate = first.is_some_and(|(_, map)| map.spec.separate);
        let behind = wanted.find(|(_, map)| is_separate && map.is_kept_waiting());
        let first = first.map(|(id, _)| id);
        let Some((other, map)) = behind else {
            self.kept_waiting = None;
            return first;
        };
        let limit = BEFORE.max(map.pace.estimate(1));
        let since = *self.kept_waiting.get_or_insert(now);
        if now.saturating_sub(since) < limit {
            return first;
        }
        self.kept_waiting = None;
        Some(other)
    }

    /// How many calls of a map may go together. Separate calls start in the order in which they came, so those that came
    /// after a call of another kind that waits go behind it.
    pub(super) fn most_in_turn(&self, id: MapId) -> u32 {
        let Some(map) = self.maps.get(&id).filter(|map| map.spec.separate) else {
            return MOST_CALLS;
        };
        let own = map.rank(id).map(|rank| (rank, id));
        let behind = own.and_then(|own| self.ready.range((Excluded(own), Unbounded)).next());
        match behind {
            Some(((0, 0, number), _)) => map.came_before(*number, MOST_CALLS),
            // Nobody waits who is as urgent.
            _ => MOST_CALLS,
        }
    }

    // ---- Results in black boxes ------------------------------------------------------------

    /// A batch of separate calls begins. Whoever waits for one of them can't look into the black box, because it may be a
    /// task of an async runtime; so the supervisor does, now and then.
    pub(super) fn glance_at(&mut self, now: Time) {
        if self.glance.is_none() {
            self.glance = Some(now.saturating_add(GLANCE));
            self.effects.rearm = true;
        }
    }

    /// When to ask [`glances_due`](Self::glances_due) again.
    pub(crate) fn next_glance(&self) -> Option<Time> {
        self.glance.filter(|_| self.paused.is_none())
    }

    /// The slots into whose black boxes somebody has to look now.
    pub(crate) fn glances_due(&mut self, now: Time) -> Vec<SlotId> {
        if self.next_glance().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let slots = self.separate_batches();
        self.glance = (!slots.is_empty()).then(|| now.saturating_add(GLANCE));
        slots
    }

    /// The slots that run several separate calls.
    fn separate_batches(&self) -> Vec<SlotId> {
        let runs_several = |slot: &&SlotId| {
            let busy = self.slots[slot.0].busy();
            busy.is_some_and(|busy| {
                let map = self.maps.get(&busy.map);
                busy.limit > busy.reported + 1 && map.is_some_and(|map| map.spec.separate)
            })
        };
        self.busy_slots()
            .iter()
            .filter(runs_several)
            .copied()
            .collect()
    }
}
