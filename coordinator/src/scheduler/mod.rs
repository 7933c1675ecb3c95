//! Who runs what, and when: the pool's whole logic, with no input or output, no clock and no thread.
//!
//! The rest of the pool tells the scheduler what has happened and what time it is; the scheduler
//! answers what to do, and collects in [`Effects`] whom to wake and whom to kill. So everything that
//! can happen can be played through in a test, in any order, without a process.
//!
//! Each slot is in one of a few states, and the tokens [`Idle`] and [`Running`] make sure that it is
//! asked only for what its state allows: there is one token per living worker, it can't be copied,
//! and each step uses it up and returns the next.
//!
//! ```text
//!             ready              next                    reply, for each call
//!  (starting) ─────▶ Idle ────────────────▶ Running ─────────────────────────▶ Idle
//!      ▲              │                        │
//!      └──────────────┴── died ◀───────────────┘
//! ```
//!
//! `map` holds the calls of one map, `slot` the state of one slot; here is what concerns both.

mod map;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use map::{Ended, Limits, MapSpec, Order, Take, Window};
pub(crate) use slot::{Idle, Running, Stage};

use crate::error::Why;
use map::{Map, Settled};
use slot::{Doom, Slot};

/// A point in time: how long the pool has existed.
pub(crate) type Time = Duration;

/// A map: the calls that one caller waits for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MapId(u64);

/// A slot, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(pub(crate) usize);

/// Calls for a worker to run.
#[derive(Debug)]
pub(crate) struct Batch<J, I> {
    pub(crate) job: J,
    /// How much memory the worker may have meanwhile.
    pub(crate) memory: Option<u64>,
    pub(crate) calls: Vec<BatchCall<I>>,
}

#[derive(Debug)]
pub(crate) struct BatchCall<I> {
    pub(crate) index: u64,
    pub(crate) attempt: u32,
    pub(crate) input: I,
}

/// What a slot with an idle worker is to do.
#[derive(Debug)]
pub(crate) enum Next<J, I> {
    /// Run this.
    Run(Running, Batch<J, I>),
    /// Nothing to do until something changes, or until this time.
    Wait(Idle, Option<Time>),
    /// There will never be anything to do again: let the worker go.
    Leave,
}

/// Whom to wake and whom to kill. The scheduler collects them; the caller carries them out.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Maps with something new for whoever waits for them.
    pub(crate) wake: BTreeSet<MapId>,
    /// How many slots have work to pick up.
    pub(crate) work: usize,
    /// Every slot must look again: the pool's phase has changed.
    pub(crate) everyone: bool,
    /// Workers to signal.
    pub(crate) signals: Vec<(SlotId, Stage)>,
    /// The earliest deadline may have changed.
    pub(crate) rearm: bool,
}

/// How far the pool's life has come. It only ever moves down this list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Takes calls.
    Open,
    /// Takes no calls, but finishes those it has.
    Closed,
    /// Finishes nothing; the reason is what calls that did not run are told.
    Over(String),
}

/// How many workers may fail to start within a time before the pool gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RestartLimit {
    pub(crate) count: u32,
    pub(crate) per: Duration,
}

/// The scheduler. `J` says what a map's calls are to run, `I` is an encoded input, `T` what is left
/// of an attempt: its output, or its traces.
#[derive(Debug)]
pub(crate) struct Scheduler<J, I, T> {
    phase: Phase,
    slots: Vec<Slot>,
    maps: BTreeMap<MapId, Map<J, I, T>>,
    /// Maps with calls that could run now, the one to serve next first: the fewest running calls,
    /// and among those the longest not served.
    ready: BTreeSet<(u32, u64, MapId)>,
    /// Calls that wait for their backoff to pass.
    delayed: BTreeSet<(Time, MapId, u64)>,
    next_map: u64,
    turn: u64,
    /// Since when nothing starts and no deadline passes, if that is so.
    paused: Option<Time>,
    restart_limit: RestartLimit,
    /// When workers failed to start, within the last `restart_limit.per`.
    failed_starts: Vec<Time>,
    /// Whether any worker ever got ready.
    lived: bool,
    effects: Effects,
}

impl<J: Clone, I: Clone, T> Scheduler<J, I, T> {
    pub(crate) fn new(slots: usize, restart_limit: RestartLimit) -> Self {
        Scheduler {
            phase: Phase::Open,
            slots: (0..slots).map(|_| Slot::Starting).collect(),
            maps: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            next_map: 0,
            turn: 0,
            paused: None,
            restart_limit,
            failed_starts: Vec::new(),
            lived: false,
            effects: Effects::default(),
        }
    }

    /// What is to be done because of the calls since the last time.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    // ---- What callers do -------------------------------------------------------------------

    /// Opens a map, or says why the pool takes no more calls.
    pub(crate) fn open(&mut self, spec: MapSpec<J>) -> Result<MapId, String> {
        self.refusal().map_or(Ok(()), Err)?;
        let id = MapId(self.next_map);
        self.next_map += 1;
        self.maps.insert(id, Map::new(spec));
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

    /// Whether a map will never again run a call that it is given.
    pub(crate) fn is_sealed(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(Map::is_sealed)
    }

    /// Adds a call of `bytes` to a map and returns its index. Whether there is room is the caller's
    /// business; a map that is sealed cancels it at once.
    pub(crate) fn push(&mut self, map: MapId, input: I, bytes: usize) -> u64 {
        let index = self.with_map(map, |map| map.push(input, bytes));
        self.effects.work += 1;
        index
    }

    /// Adds a call that has ended before it began.
    pub(crate) fn push_ended(&mut self, map: MapId, why: Why) -> u64 {
        let index = self.with_map(map, |map| map.push_ended(why));
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

    /// Whether a map was cut off by an error or a cancellation.
    pub(crate) fn is_cut(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(Map::was_cut)
    }

    /// How many calls were added to a map.
    pub(crate) fn pushed(&self, map: MapId) -> u64 {
        self.maps.get(&map).map_or(0, Map::end)
    }

    /// Cancels what has not ended of a map: nothing more of it starts, and what runs is killed.
    pub(crate) fn cancel(&mut self, map: MapId, now: Time, note: &str) {
        self.with_map(map, |map| {
            map.seal();
            map.cut_from(0, note);
        });
        self.doom_running(now, |running, _| running == map, Doom::Cancelled);
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

    /// A map that was detached is gone for whoever held it.
    pub(crate) fn forget(&mut self, map: MapId) {
        self.detach(map);
        self.forget_if_done(map);
    }

    /// Takes no further calls, but finishes those it has. Maps that are read lazily take no further
    /// inputs either: whoever reads them may be the one who waits for the pool to end.
    pub(crate) fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closed;
            let lazy = self.maps.iter().filter(|(_, map)| map.spec.lazy);
            for map in lazy.map(|(id, _)| *id).collect::<Vec<_>>() {
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
    pub(crate) fn terminate(&mut self, now: Time, note: &str) {
        self.stop(now, note);
        self.doom_running(now, |_, _| true, Doom::Cancelled);
    }

    /// Ends the pool because it can't work: calls that wait are cancelled with the cause.
    pub(crate) fn give_up(&mut self, cause: &str) {
        self.end(cause);
    }

    /// Stops the workers that run calls, and starts nothing, until [`resume`](Self::resume).
    pub(crate) fn pause(&mut self, now: Time) {
        if self.paused.is_none() && !matches!(self.phase, Phase::Over(_)) {
            self.paused = Some(now);
            self.signal_busy(Stage::Stop);
        }
    }

    /// Lets the workers go on. The pause does not count for their deadlines.
    pub(crate) fn resume(&mut self, now: Time) {
        if let Some(since) = self.paused.take() {
            self.postpone(now.saturating_sub(since));
            self.signal_busy(Stage::Continue);
            self.effects.everyone = true;
        }
    }

    /// Moves all deadlines, for time that does not count.
    pub(crate) fn postpone(&mut self, by: Duration) {
        self.slots.iter_mut().for_each(|slot| slot.postpone(by));
        self.effects.rearm = true;
    }

    fn signal_busy(&mut self, stage: Stage) {
        let busy = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.is_busy());
        let signals = busy.map(|(number, _)| (SlotId(number), stage));
        self.effects.signals.extend(signals);
    }

    fn end(&mut self, note: &str) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.phase = Phase::Over(note.to_owned());
        for map in self.maps.keys().copied().collect::<Vec<_>>() {
            self.with_map(map, |map| {
                map.seal();
                map.cut_from(0, note);
            });
            self.effects.wake.insert(map);
        }
        self.effects.everyone = true;
    }

    // ---- What slots report -----------------------------------------------------------------

    /// A slot's worker is ready for calls.
    pub(crate) fn ready(&mut self, slot: SlotId) -> Idle {
        self.lived = true;
        self.slots[slot.0] = Slot::Idle;
        Idle { slot }
    }

    /// What a slot with an idle worker is to do.
    pub(crate) fn next(&mut self, idle: Idle, now: Time) -> Next<J, I> {
        self.promote_delayed(now);
        if self.is_drained() {
            return Next::Leave;
        }
        if self.paused.is_some() {
            return Next::Wait(idle, None);
        }
        let delayed = self.delayed.first().map(|(time, ..)| *time);
        let Some((_, _, map)) = self.ready.first().copied() else {
            return Next::Wait(idle, delayed);
        };
        self.turn += 1;
        let turn = self.turn;
        let batch = self.with_map(map, |map| {
            map.turn = turn;
            map.next_batch()
        });
        self.pass_on();
        let running = Running::new(idle, map, batch.calls.iter().map(|call| call.index));
        self.slots[running.slot.0] = self.busy(&running, now);
        Next::Run(running, batch)
    }

    /// A worker has answered for the call it was running. Fails if that is not the call it claims.
    pub(crate) fn reply(
        &mut self,
        running: &mut Running,
        index: u64,
        result: Result<(), Why>,
        trace: T,
        bytes: usize,
        now: Time,
    ) -> Result<(), String> {
        let expected = running.front();
        if expected != Some(index) {
            return Err(match expected {
                Some(expected) => format!("a reply to call {index} instead of {expected}"),
                None => format!("a reply to call {index}, where none was running"),
            });
        }
        if self.doom_of(running.slot).is_some() {
            // It has been decided that this call ends otherwise. Its worker is about to die.
            return Ok(());
        }
        running.answered();
        self.settle(running.map, index, result, Some(trace), bytes, now);
        self.slots[running.slot.0] = self.busy(running, now);
        Ok(())
    }

    /// The worker has answered for all of its calls.
    pub(crate) fn idle_again(&mut self, running: Running) -> Result<Idle, Running> {
        if running.front().is_some() {
            return Err(running);
        }
        self.slots[running.slot.0] = Slot::Idle;
        Ok(Idle { slot: running.slot })
    }

    /// The worker died. The call it was running is charged; those behind it are not.
    pub(crate) fn died(&mut self, mut running: Running, why: Why, trace: T, now: Time) {
        let doom = self.doom_of(running.slot);
        self.slots[running.slot.0] = Slot::Starting;
        let map = running.map;
        if let Some(index) = running.front() {
            running.answered();
            let why = match doom {
                Some(Doom::TimedOut(limit)) => Why::TimedOut(limit),
                Some(Doom::OutOfMemory(limit)) => Why::OutOfMemory { limit },
                Some(Doom::Cancelled) => Why::Cancelled,
                None => why,
            };
            self.settle(map, index, Err(why), Some(trace), 0, now);
        }
        self.return_all(running);
    }

    /// The worker died before it had read the calls: none of them has begun, none is charged.
    pub(crate) fn died_unstarted(&mut self, running: Running, trace: T, now: Time) -> bool {
        if self.doom_of(running.slot).is_some() {
            // It has been decided how the first of them ends.
            self.died(running, Why::Cancelled, trace, now);
            return false;
        }
        self.slots[running.slot.0] = Slot::Starting;
        self.return_all(running);
        true
    }

    fn return_all(&mut self, running: Running) {
        let map = running.map;
        let behind: Vec<u64> = running.rest().collect();
        if !behind.is_empty() {
            self.with_map(map, |map| {
                behind.iter().for_each(|index| map.give_back(*index))
            });
            self.effects.work += behind.len();
            self.effects.wake.insert(map);
            self.forget_if_done(map);
            self.leave_if_drained();
        }
    }

    /// The worker died, or was let go, while it had nothing to do.
    pub(crate) fn idle_died(&mut self, idle: Idle) {
        self.slots[idle.slot.0] = Slot::Starting;
        self.pass_on();
    }

    /// A worker could not be started. Ends the pool if that happens too often, or before any worker
    /// ever got ready.
    pub(crate) fn start_failed(&mut self, cause: &str, now: Time) {
        let RestartLimit { count, per } = self.restart_limit;
        self.failed_starts
            .retain(|failed| failed.saturating_add(per) > now);
        self.failed_starts.push(now);
        if !self.lived || self.failed_starts.len() >= count as usize {
            self.give_up(cause);
        }
    }

    /// Whether a slot still needs a worker.
    pub(crate) fn wants_worker(&self) -> bool {
        !self.is_drained()
    }

    // ---- Deadlines -------------------------------------------------------------------------

    /// The next time [`overdue`](Self::overdue) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        if self.paused.is_some() {
            return None;
        }
        self.slots.iter().filter_map(Slot::deadline).min()
    }

    /// Lets deadlines take effect that have passed.
    pub(crate) fn overdue(&mut self, now: Time) {
        if self.paused.is_some() {
            return;
        }
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if let Some(stage) = slot.overdue(now) {
                self.effects.signals.push((SlotId(number), stage));
            }
        }
    }

    /// The slots whose workers may have only so much memory for what they are running.
    pub(crate) fn memory_limits(&self) -> impl Iterator<Item = (SlotId, u64)> {
        let limits = self.slots.iter().map(Slot::memory_limit).enumerate();
        limits.filter_map(|(number, limit)| Some((SlotId(number), limit?)))
    }

    /// A worker has more memory than the call it runs allows.
    pub(crate) fn out_of_memory(&mut self, slot: SlotId, limit: u64, now: Time) {
        let stage = self.slots[slot.0].condemn(Doom::OutOfMemory(limit), now);
        self.effects
            .signals
            .extend(stage.map(|stage| (slot, stage)));
    }

    // ---- Counting --------------------------------------------------------------------------

    /// How many slots run a call, and how many calls wait for one.
    pub(crate) fn load(&self) -> (usize, usize) {
        let busy = self.slots.iter().filter(|slot| slot.is_busy()).count();
        (busy, self.maps.values().map(Map::waiting).sum())
    }

    /// The call a slot is running.
    pub(crate) fn running_on(&self, slot: SlotId) -> Option<(&J, u64, Time)> {
        let (map, index, since) = self.slots[slot.0].running()?;
        Some((&self.maps.get(&map)?.spec.job, index, since))
    }

    // ---- Inside ----------------------------------------------------------------------------

    /// Changes a map and keeps `ready` in step with it. The map exists: ids are only handed out for
    /// maps, and a map is forgotten when no one has its id any more.
    fn with_map<R>(&mut self, id: MapId, change: impl FnOnce(&mut Map<J, I, T>) -> R) -> R {
        let map = self
            .maps
            .get_mut(&id)
            .expect("a map whose id is still in use");
        let before = map.rank().map(|(running, turn)| (running, turn, id));
        let result = change(map);
        let after = map.rank().map(|(running, turn)| (running, turn, id));
        if before != after {
            before.map(|key| self.ready.remove(&key));
            after.map(|key| self.ready.insert(key));
        }
        result
    }

    /// The state of a slot that has just sent, or heard of, the calls of `running`.
    fn busy(&mut self, running: &Running, now: Time) -> Slot {
        let limits = self.maps.get(&running.map).map(|map| map.spec.limits);
        let slot = Slot::busy(running, now, limits.unwrap_or_default());
        self.effects.rearm |= slot.deadline().is_some() || slot.memory_limit().is_some();
        slot
    }

    fn doom_of(&self, slot: SlotId) -> Option<Doom> {
        self.slots[slot.0].doom()
    }

    /// Decides that running calls end otherwise than by themselves.
    fn doom_running(&mut self, now: Time, which: impl Fn(MapId, u64) -> bool, doom: Doom) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let id = SlotId(number);
            let meant = slot
                .running()
                .is_some_and(|(map, index, _)| which(map, index));
            if meant && let Some(stage) = slot.condemn(doom, now) {
                self.effects.signals.push((id, stage));
                self.effects.rearm = true;
            }
        }
    }

    /// An attempt has ended: either the call has, too, or it is tried again.
    fn settle(
        &mut self,
        id: MapId,
        index: u64,
        result: Result<(), Why>,
        trace: Option<T>,
        bytes: usize,
        now: Time,
    ) {
        let settled = self.with_map(id, |map| map.settle(index, result, trace, bytes, now));
        match settled {
            Settled::Again(None) => self.effects.work += 1,
            Settled::Again(Some(at)) => {
                self.delayed.insert((at, id, index));
                // A slot that waits must wait for this, too.
                self.effects.work += 1;
            }
            Settled::Ended { visible } => {
                if visible {
                    self.effects.wake.insert(id);
                }
            }
            Settled::Cut => {
                self.doom_running(
                    now,
                    |map, running| map == id && running > index,
                    Doom::Cancelled,
                );
                self.effects.wake.insert(id);
            }
        }
        self.forget_if_done(id);
        self.leave_if_drained();
    }

    /// A slot that may have been woken up for what there is to do does something else: another one
    /// must look.
    fn pass_on(&mut self) {
        if !self.ready.is_empty() || !self.delayed.is_empty() {
            self.effects.work += 1;
        }
    }

    fn promote_delayed(&mut self, now: Time) {
        while let Some((time, id, index)) = self.delayed.first().copied() {
            if time > now {
                break;
            }
            self.delayed.pop_first();
            if self.maps.contains_key(&id) {
                self.with_map(id, |map| map.give_back(index));
            }
        }
    }

    fn forget_if_done(&mut self, id: MapId) {
        let Some(map) = self.maps.get(&id) else {
            return;
        };
        if map.detached && map.is_finished() {
            self.with_map(id, Map::clear);
            self.maps.remove(&id);
        }
    }

    /// Whether there is nothing to do, and never will be.
    fn is_drained(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Closed => self.maps.values().all(Map::is_finished),
            Phase::Over(_) => true,
        }
    }

    fn leave_if_drained(&mut self) {
        if self.phase != Phase::Open && self.is_drained() {
            self.effects.everyone = true;
        }
    }
}
