//! What callers do: maps are opened, filled, taken from, cancelled, and the whole is stopped.

use std::time::Duration;

use super::{
    Bundle, Doom, Map, MapId, MapSpec, Must, Phase, Scheduler, Settled, Sight, Slot, SlotId, Stage,
    Take, Time,
};
use crate::error::Why;

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    /// Opens a map, or says why the pool takes no more calls.
    pub(crate) fn open(&mut self, spec: MapSpec<J>) -> Result<MapId, String> {
        self.refusal().map_or(Ok(()), Err)?;
        let id = MapId(self.next_map);
        self.next_map += 1;
        self.maps.insert(id, Map::new(spec, self.processors));
        self.remind(id);
        Ok(id)
    }

    /// Why the pool takes no more calls, if it does not.
    pub(crate) fn refusal(&self) -> Option<String> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closed => Some("the pool is closed: it takes no further calls".to_owned()),
            Phase::Over(cause) => Some(cause.clone()),
        }
    }

    /// Whether a map has room for another call, and would run it.
    pub(crate) fn has_room(&self, map: MapId) -> bool {
        self.maps.get(&map).is_some_and(Map::has_room)
    }

    /// How many calls a map has room for, unless they are large.
    pub(crate) fn room(&self, map: MapId) -> usize {
        self.maps.get(&map).map_or(0, Map::room)
    }

    /// Whether a map will never again run a call that it is given.
    pub(crate) fn is_sealed(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(Map::is_sealed)
    }

    /// Adds calls to a map and returns the index of the first. Whether there is room is the caller's
    /// business; a map that is sealed cancels them at once.
    pub(crate) fn push(&mut self, map: MapId, inputs: I) -> u64 {
        let sealed = self.is_sealed(map);
        let number = self.next_map;
        let first = self.with_map(map, |map| {
            if map.spec.separate {
                map.arrive(number);
            }
            map.push(inputs)
        });
        if self.maps.get(&map).is_some_and(|map| map.spec.separate) {
            self.next_map += self.pushed(map) - first;
        }
        match sealed {
            true => _ = self.effects.wake.insert(map),
            false => self.call_for(map),
        }
        first
    }

    /// Adds a call that has ended before it began.
    pub(crate) fn push_ended(
        &mut self,
        map: MapId,
        why: Why,
        now: Time,
        sight: &impl Sight,
    ) -> u64 {
        let (index, settled) = self.with_map(map, |map| map.push_ended(why));
        if let Settled::Cut { from, kill } = settled {
            self.cut(map, from, kill, now, sight);
        }
        self.effects.wake.insert(map);
        index
    }

    /// No call will be added to this map.
    pub(crate) fn seal(&mut self, map: MapId) {
        self.with_map(map, Map::seal);
        self.effects.wake.insert(map);
        self.leave_if_drained();
    }

    /// Takes a map's next result.
    pub(crate) fn take(&mut self, map: MapId) -> Take<T> {
        self.maps.get_mut(&map).map_or(Take::Exhausted, Map::take)
    }

    /// Whether [`take`](Self::take) would say something else than that it is pending.
    pub(crate) fn has_result(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(Map::has_result)
    }

    /// Whether a map was cut off by an error or a cancellation of its own, and not by the pool's end. A map that is
    /// forgotten counts as cut off as long as the pool is open.
    pub(crate) fn is_cut(&self, map: MapId) -> bool {
        let is_open = matches!(self.phase, Phase::Open);
        self.maps.get(&map).map_or(is_open, Map::was_cut)
    }

    /// How many calls were added to a map.
    pub(crate) fn pushed(&self, map: MapId) -> u64 {
        self.maps.get(&map).map_or(0, Map::end)
    }

    /// Cancels what has not ended of a map: nothing more of it starts, and what runs is killed.
    pub(crate) fn cancel(&mut self, map: MapId, now: Time, note: &str, sight: &impl Sight) {
        self.with_map(map, |map| {
            map.seal();
            map.cut_from(0, note);
        });
        self.doom_map(map, 0, now, sight);
        self.effects.wake.insert(map);
        self.leave_if_drained();
    }

    /// Takes back the calls of a map from an index on that have not begun: they end as cancelled, without an attempt. Those that
    /// run are finished, or with `kill` ended, too.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    pub(crate) fn withdraw(
        &mut self,
        map: MapId,
        from: u64,
        kill: bool,
        now: Time,
        sight: &impl Sight,
    ) {
        if !self.maps.contains_key(&map) {
            return;
        }
        self.with_map(map, |map| map.cut_from(from, "it was taken back"));
        self.cut(map, from, kill, now, sight);
        self.effects.wake.insert(map);
        self.leave_if_drained();
    }

    /// Nobody will take this map's results any more: its calls run, and are forgotten.
    pub(crate) fn detach(&mut self, map: MapId) {
        if let Some(detached) = self.maps.get_mut(&map) {
            detached.seal();
            detached.detached = true;
        }
        self.leave_if_drained();
    }

    /// Whether nobody will take a map's results any more.
    pub(crate) fn is_detached(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(|map| map.detached)
    }

    /// Nobody holds this map's id any more: it is dropped as soon as its calls have ended.
    pub(crate) fn forget(&mut self, map: MapId) {
        self.detach(map);
        self.forget_if_done(map);
    }

    /// Takes no further calls, but finishes those it has. Maps that are read lazily take no further
    /// inputs either: whoever reads them may be the one who waits for the pool to end. Nor do maps of separate calls, of
    /// which each has been opened by its own right.
    pub(crate) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closed;
            let maps = self.maps.iter();
            let no_more = maps.filter(|(_, map)| map.spec.lazy || map.spec.separate);
            for map in no_more.map(|(id, _)| *id).collect::<Vec<_>>() {
                self.with_map(map, Map::seal);
                self.effects.wake.insert(map);
            }
        }
        self.leave_if_drained();
    }

    /// Starts nothing more: calls that wait, for a further attempt too, are cancelled. Those that run
    /// may finish.
    pub(crate) fn stop(&mut self, now: Time, note: &str) {
        self.resume(now);
        self.end(note);
    }

    /// Ends everything: calls that wait are cancelled, and those that run are killed.
    pub(crate) fn terminate(&mut self, now: Time, note: &str, sight: &impl Sight) {
        self.stop(now, note);
        for map in self.maps.keys().copied().collect::<Vec<_>>() {
            self.with_map(map, |map| map.say_why_running_end(note));
        }
        self.recall_of(None, 0, true);
        self.effects.agents.terminated = true;
        for slot in self.busy_slots() {
            self.doom(slot, Doom::Cancelled, now, sight, Must::Die);
        }
    }

    /// Ends the pool because it can't work: calls that wait are cancelled with the cause.
    pub(crate) fn give_up(&mut self, cause: &str) {
        self.end(cause);
    }

    /// Stops the workers that run calls, and starts nothing, until [`resume`](Self::resume).
    pub(crate) fn pause(&mut self, now: Time) {
        if self.paused.is_none() && !matches!(self.phase, Phase::Over(_)) {
            self.paused = Some(now);
            self.effects.agents.paused = Some(true);
            let stops = self.busy_slots().into_iter();
            self.effects
                .signals
                .extend(stops.map(|slot| (slot, Stage::Stop)));
        }
    }

    /// Lets the workers go on. The pause does not count for their deadlines.
    pub(crate) fn resume(&mut self, now: Time) {
        if let Some(since) = self.paused.take() {
            self.effects.agents.paused = Some(false);
            self.effects.agents.offer = true;
            self.postpone(now.saturating_sub(since));
            // Idle workers, too: one may have been stopped while its reply was under way.
            let all = (0..self.slots.len()).map(SlotId);
            self.effects
                .signals
                .extend(all.map(|slot| (slot, Stage::Continue)));
            self.effects.everyone = true;
        }
    }

    /// Moves all deadlines, for time that does not count.
    pub(crate) fn postpone(&mut self, by: Duration) {
        self.slots.iter_mut().for_each(|slot| slot.postpone(by));
        self.effects.rearm = true;
    }

    pub(super) fn busy_slots(&self) -> Vec<SlotId> {
        let busy = |(_, slot): &(usize, &Slot)| slot.busy().is_some();
        let slots = self.slots.iter().enumerate().filter(busy);
        slots.map(|(number, _)| SlotId(number)).collect()
    }

    pub(super) fn end(&mut self, note: &str) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.phase = Phase::Over(note.to_owned());
        for map in self.maps.keys().copied().collect::<Vec<_>>() {
            self.with_map(map, |map| {
                map.seal();
                map.cut_with_pool(note);
            });
            self.effects.wake.insert(map);
        }
        self.recall_of(None, 0, false);
        self.effects.agents.phase = true;
        self.effects.everyone = true;
    }
}
