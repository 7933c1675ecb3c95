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
mod pace;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use map::{Ended, Failures, Limits, MapSpec, Order, Take, Window};
pub(crate) use slot::{Current, Idle, Running, Seen, Sight, Stage};

use crate::error::Why;
use map::{Map, Settled};
use slot::{Busy, Doom, End, Slot};

/// A point in time: how long the pool has existed.
pub(crate) type Time = Duration;

/// A map: the calls that one caller waits for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MapId(u64);

/// A slot, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(pub(crate) usize);

/// The most calls in a batch.
pub(crate) const MOST_CALLS: u32 = protocol::black_box::CALLS as u32;
/// What a call must take at least for the calls behind it to be given to others.
const STUCK: Duration = Duration::from_millis(1);
/// What taking calls back must save at least.
const WORTH: Duration = Duration::from_micros(400);

/// Encoded inputs of consecutive calls. Cloning them is cheap.
pub(crate) trait Inputs: Clone {
    /// How many calls they are for.
    fn count(&self) -> u32;
    /// How large some of them are.
    fn bytes(&self, from: u32, count: u32) -> usize;
}

/// Consecutive calls for a worker to run.
#[derive(Debug)]
pub(crate) struct Batch<J, I> {
    pub(crate) job: J,
    /// How much memory the worker may have meanwhile.
    pub(crate) memory: Option<u64>,
    pub(crate) first: u64,
    /// Which try of the calls it is, from 1.
    pub(crate) attempt: u32,
    pub(crate) count: u32,
    pub(crate) parts: Vec<Part<I>>,
}

/// Some of these inputs.
#[derive(Debug)]
pub(crate) struct Part<I> {
    pub(crate) inputs: I,
    pub(crate) at: u32,
    pub(crate) count: u32,
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

/// What must be true of a worker that is to be killed for what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// Nothing.
    Die,
    /// It has a call to answer for, be it one that it has not begun.
    HaveACall,
    /// It is running a call, of this index or a later one.
    BeRunning(u64),
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

impl<J: Clone, I: Inputs, T: Clone> Scheduler<J, I, T> {
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
        let count = inputs.count() as usize;
        let first = self.with_map(map, |map| map.push(inputs));
        match sealed {
            true => _ = self.effects.wake.insert(map),
            false => self.effects.work += count,
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

    /// Whether a map was cut off by an error or a cancellation.
    pub(crate) fn is_cut(&self, map: MapId) -> bool {
        self.maps.get(&map).is_none_or(Map::was_cut)
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
    pub(crate) fn terminate(&mut self, now: Time, note: &str, sight: &impl Sight) {
        self.stop(now, note);
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
        let signals = self.busy_slots().into_iter().map(|slot| (slot, stage));
        self.effects.signals.extend(signals);
    }

    fn busy_slots(&self) -> Vec<SlotId> {
        let busy = |(_, slot): &(usize, &Slot)| slot.busy().is_some();
        let slots = self.slots.iter().enumerate().filter(busy);
        slots.map(|(number, _)| SlotId(number)).collect()
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

    /// What a slot with an idle worker is to do, which may run at most so many calls.
    pub(crate) fn next(
        &mut self,
        idle: Idle,
        most: u32,
        now: Time,
        sight: &impl Sight,
    ) -> Next<J, I> {
        self.promote_delayed(now);
        if self.is_drained() {
            return Next::Leave;
        }
        if self.paused.is_some() {
            return Next::Wait(idle, None);
        }
        if self.ready.is_empty() {
            self.take_back(now, sight);
        }
        let Some((_, _, map)) = self.ready.first().copied() else {
            let delayed = self.delayed.first().map(|(time, ..)| *time);
            // What a worker has not begun may be worth taking in a moment.
            let look = self.has_spare().then(|| now.saturating_add(STUCK));
            return Next::Wait(idle, delayed.into_iter().chain(look).min());
        };
        self.turn += 1;
        let (turn, slots) = (self.turn, self.slots.len());
        let batch = self.with_map(map, |map| {
            map.turn = turn;
            map.next_batch(most.clamp(1, MOST_CALLS), slots)
        });
        self.pass_on();
        let limits = self.maps.get(&map).map(|map| map.spec.limits);
        let limits = limits.unwrap_or_default();
        self.effects.rearm |= limits.timeout.is_some() || limits.memory.is_some();
        let busy = Busy::new(map, &batch, now, limits);
        self.slots[idle.slot.0] = Slot::Busy(busy);
        let running = Running {
            slot: idle.slot,
            map,
        };
        Next::Run(running, batch)
    }

    /// Whether there is, or will be, something that nobody may have been woken up for: a call that is
    /// ready, or waits for its time, or may be taken back in a moment.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.delayed.is_empty() || self.has_spare()
    }

    /// A call that somebody was to be woken up for runs already.
    pub(crate) fn spare_a_waking(&mut self) {
        self.effects.work = self.effects.work.saturating_sub(1);
    }

    /// Whether a call of this map would be the next to run, and the only one.
    pub(crate) fn is_next(&self, map: MapId) -> bool {
        let next = self.ready.first().map(|(_, _, next)| *next);
        self.paused.is_none() && self.ready.len() == 1 && next == Some(map)
    }

    /// The batch has been sent: its first call begins about now.
    pub(crate) fn sent(&mut self, running: &Running, now: Time) {
        if let Some(busy) = self.slots[running.slot.0].busy_mut() {
            busy.next_call(now);
        }
    }

    /// Calls have returned values, by the worker's word.
    pub(crate) fn values(
        &mut self,
        running: &Running,
        at: u32,
        count: u32,
        now: Time,
        trace: impl FnOnce(std::ops::Range<u32>) -> (T, usize),
    ) -> Result<(), String> {
        let busy = self.slots[running.slot.0].busy_mut();
        let busy = busy.ok_or("a reply, where nothing was running")?;
        let news = busy.hear(at, count)?;
        busy.next_call(now);
        let (map, first) = (busy.map, busy.first + u64::from(news.start));
        if !news.is_empty() {
            let count = news.end - news.start;
            let (trace, bytes) = trace(news);
            self.settled_values(map, first, count, trace, bytes);
        }
        Ok(())
    }

    /// One call has ended, by the worker's word; what is left of it has so many bytes.
    /// Says whether that was news.
    pub(crate) fn reply(
        &mut self,
        running: &Running,
        at: u32,
        result: Result<(), Why>,
        (trace, bytes): (T, usize),
        now: Time,
        sight: &impl Sight,
    ) -> Result<bool, String> {
        let busy = self.slots[running.slot.0].busy_mut();
        let busy = busy.ok_or("a reply, where nothing was running")?;
        let news = busy.hear(at, 1)?;
        busy.next_call(now);
        let (map, index) = (busy.map, busy.first + u64::from(at));
        let is_new = !news.is_empty();
        if is_new {
            self.settle((map, index), result, trace, bytes, now, sight);
        }
        Ok(is_new)
    }

    /// The worker will run no more than so many calls of its batch.
    pub(crate) fn stopped(&mut self, running: &Running, at: u32) -> Result<(), String> {
        let busy = self.slots[running.slot.0].busy_mut();
        let busy = busy.ok_or("the end of a batch, where none was running")?;
        if at != busy.heard || at != busy.limit {
            return Err(format!(
                "that it ran {at} calls of its batch, where it has answered for {} and may run {}",
                busy.heard, busy.limit
            ));
        }
        busy.heard = busy.sent;
        Ok(())
    }

    /// The first call that a slot's worker has not been heard to finish, by its place in the batch.
    pub(crate) fn unreported(&self, slot: SlotId) -> Option<(u64, u32)> {
        let busy = self.slots[slot.0].busy()?;
        let spared = busy.doomed().and_then(|doomed| doomed.call);
        let end = spared.unwrap_or(busy.limit).min(busy.limit);
        (busy.reported < end).then_some((busy.first, busy.reported))
    }

    /// The next calls have returned values that were found in the black box, unless it has been decided
    /// that they end otherwise. Says how many of them are news; `trace` is asked for as many.
    pub(crate) fn found(
        &mut self,
        slot: SlotId,
        count: u32,
        trace: impl FnOnce(u32) -> (T, usize),
    ) -> u32 {
        let Some(busy) = self.slots[slot.0].busy_mut() else {
            return 0;
        };
        let (map, first) = (busy.map, busy.first + u64::from(busy.reported));
        let spared = busy.doomed().and_then(|doomed| doomed.call);
        let end = spared.unwrap_or(busy.limit).min(busy.limit);
        let count = count.min(end.saturating_sub(busy.reported));
        if count > 0 {
            busy.reported += count;
            let (trace, bytes) = trace(count);
            self.settled_values(map, first, count, trace, bytes);
        }
        count
    }

    /// Whether the worker has answered for all of its calls, and may go on living.
    pub(crate) fn is_answered(&self, running: &Running) -> bool {
        let busy = self.slots[running.slot.0].busy();
        busy.is_none_or(|busy| busy.is_answered() && busy.doomed().is_none())
    }

    /// The worker has answered for all of its calls.
    pub(crate) fn idle_again(&mut self, running: Running, now: Time) -> Result<Idle, Running> {
        if !self.is_answered(&running) {
            return Err(running);
        }
        if let Some(busy) = self.slots[running.slot.0].busy() {
            let (calls, took) = (busy.limit, now.saturating_sub(busy.begun));
            self.released(running.map, |map| map.pace.learn(calls, took));
        }
        self.slots[running.slot.0] = Slot::Idle;
        self.leave_if_drained();
        Ok(Idle { slot: running.slot })
    }

    fn released(&mut self, id: MapId, and: impl FnOnce(&mut Map<J, I, T>)) {
        if self.maps.contains_key(&id) {
            self.with_map(id, |map| {
                map.released();
                and(map);
            });
            self.forget_if_done(id);
        }
    }

    /// The worker died, having started so many calls. The one that was running is charged, if there was
    /// one; those behind it are not. Says whether one was.
    pub(crate) fn died(
        &mut self,
        running: Running,
        started: u32,
        why: Why,
        trace: T,
        now: Time,
        sight: &impl Sight,
    ) -> bool {
        let slot = std::mem::replace(&mut self.slots[running.slot.0], Slot::Starting);
        let Slot::Busy(busy) = slot else { return false };
        let doomed = busy.doomed();
        let doomed_call = doomed
            .and_then(|doomed| doomed.call)
            .filter(|call| *call >= busy.reported && *call < busy.limit);
        // There are several only if their outputs were lost with a link that broke: they have run, and
        // must not run again.
        let behind = doomed_call
            .map_or(0, |call| call + 1)
            .max(started)
            .clamp(busy.reported, busy.limit);
        let index = |call: u32| busy.first + u64::from(call);
        // A call that no worker survives reading is charged in the end, or it would go round for ever.
        let behind = match behind == 0 && busy.limit > 0 && self.is_deadly(busy.map, busy.first) {
            true => 1,
            false => behind,
        };
        if behind < busy.limit && self.maps.contains_key(&busy.map) {
            let count = busy.limit - behind;
            self.with_map(busy.map, |map| map.give_back(index(behind), count));
            self.effects.work += count as usize;
        }
        for call in busy.reported..behind {
            let why = match doomed.filter(|doomed| doomed.call == Some(call)) {
                Some(doomed) => doomed.doom.why(),
                None => why.clone(),
            };
            self.settle(
                (busy.map, index(call)),
                Err(why),
                trace.clone(),
                0,
                now,
                sight,
            );
        }
        self.effects.wake.insert(busy.map);
        self.released(busy.map, |_| ());
        self.leave_if_drained();
        behind > busy.reported || doomed.is_some()
    }

    /// Whether workers have died several times before they had begun a batch that starts with this call.
    fn is_deadly(&mut self, map: MapId, first: u64) -> bool {
        self.maps
            .get_mut(&map)
            .is_some_and(|map| map.is_deadly(first))
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
                    let seen = sight.look(slot);
                    if seen.started > 0 && seen.began > busy.since {
                        // It is another call by now, which has its own time.
                        busy.next_call(seen.began);
                    }
                    if busy.deadline().is_some_and(|at| at <= now) {
                        self.doom(slot, Doom::TimedOut(limit), now, sight, Must::HaveACall);
                    }
                }
                End::Terminated { doom, kill_at } if kill_at <= now => {
                    busy.end = End::Killed { doom };
                    self.effects.signals.push((slot, Stage::Kill));
                }
                _ => {}
            }
        }
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

    /// Decides that what a slot's worker is running ends otherwise than by itself. What it has not
    /// started is given back.
    fn doom(&mut self, slot: SlotId, doom: Doom, now: Time, sight: &impl Sight, must: Must) {
        let busy = self.slots[slot.0].busy();
        let Some(busy) = busy.filter(|busy| busy.doomed().is_none()) else {
            return;
        };
        // A worker that never gets as far as the first call has to answer for that one.
        let least = match must {
            Must::HaveACall => busy.reported + 1,
            Must::Die | Must::BeRunning(_) => 0,
        };
        let kept = sight.lower(slot, least);
        self.retract(slot, kept);
        let seen = sight.look(slot);
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
        };
        if is_meant {
            let stage = busy.condemn(doom, last, now);
            self.effects.signals.push((slot, stage));
        } else if busy.deadline().is_some_and(|at| at <= now) {
            // It has just finished; what comes next has its own time.
            busy.next_call(now);
        }
        self.effects.rearm = true;
    }

    /// Cancels what runs of a map, from an index on.
    fn doom_map(&mut self, map: MapId, from: u64, now: Time, sight: &impl Sight) {
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
    fn cut(&mut self, map: MapId, from: u64, kill: bool, now: Time, sight: &impl Sight) {
        if kill {
            return self.doom_map(map, from, now, sight);
        }
        for slot in self.slots_of(map) {
            // What is doomed ends as was decided, begun or not.
            let doomed = self.slots[slot.0].busy().and_then(Busy::doomed);
            if doomed.is_none() {
                let kept = sight.lower(slot, 0);
                self.retract(slot, kept);
            }
        }
    }

    // ---- Taking back -----------------------------------------------------------------------

    /// Whether a worker has calls that it may not have started.
    fn has_spare(&self) -> bool {
        let mut busy = self.slots.iter().filter_map(Slot::busy);
        busy.any(|busy| busy.doomed().is_none() && busy.limit > busy.reported + 1)
    }

    /// Takes back calls that a worker has not started, for one that has nothing to do: all of them if
    /// the call before them takes long, or else half, if there is enough to make it worth while.
    fn take_back(&mut self, now: Time, sight: &impl Sight) {
        let mut best: Option<(u32, SlotId, u32)> = None;
        for slot in self.busy_slots() {
            let Some(busy) = self.slots[slot.0].busy() else {
                continue;
            };
            if busy.doomed().is_some() || busy.limit <= busy.reported + 1 {
                continue;
            }
            let seen = sight.look(slot);
            let spare = busy.limit.saturating_sub(seen.started.max(1));
            let since = match seen.started {
                0 => busy.since,
                _ => seen.began.max(busy.since),
            };
            let stuck = now.saturating_sub(since) >= STUCK;
            let pace = self.maps.get(&busy.map).map(|map| map.pace);
            let worth = pace.is_some_and(|pace| pace.estimate(spare) >= WORTH);
            if spare > 0 && (stuck || worth) && best.is_none_or(|(most, ..)| spare > most) {
                let keep = match stuck {
                    true => 1,
                    false => busy.limit - spare.div_ceil(2),
                };
                best = Some((spare, slot, keep));
            }
        }
        if let Some((_, slot, keep)) = best {
            let kept = sight.lower(slot, keep);
            self.retract(slot, kept);
        }
    }

    /// A slot's worker keeps only so many calls of its batch: the others wait again.
    fn retract(&mut self, slot: SlotId, kept: u32) {
        let Some(busy) = self.slots[slot.0].busy_mut() else {
            return;
        };
        let kept = kept.max(busy.reported).max(busy.heard);
        let Some(count) = busy.limit.checked_sub(kept).filter(|count| *count > 0) else {
            return;
        };
        busy.limit = kept;
        let (map, first) = (busy.map, busy.first + u64::from(kept));
        if self.maps.contains_key(&map) {
            self.with_map(map, |map| map.give_back(first, count));
            self.effects.work += count as usize;
            self.effects.wake.insert(map);
            self.forget_if_done(map);
        }
    }

    // ---- Counting --------------------------------------------------------------------------

    /// How many slots run a call, and how many calls wait for one: together, those that have not ended.
    pub(crate) fn load(&self) -> (usize, usize) {
        let busy = self.slots.iter().filter_map(Slot::busy);
        // A slot whose calls have all ended is not idle before its worker has said so.
        let left = busy.map(|busy| busy.limit.saturating_sub(busy.reported) as usize);
        let left: Vec<usize> = left.filter(|left| *left > 0).collect();
        let waiting: usize = self.maps.values().map(Map::waiting).sum();
        let behind = left.iter().map(|left| left - 1).sum::<usize>();
        (left.len(), waiting + behind)
    }

    /// The call a slot is running.
    pub(crate) fn running_on(&self, slot: SlotId, sight: &impl Sight) -> Option<Current<'_, J>> {
        let busy = self.slots[slot.0].busy()?;
        let seen = sight.look(slot);
        let (call, since) = match seen.started.min(busy.limit).checked_sub(1) {
            Some(call) if seen.began > busy.since => (call, seen.began),
            Some(call) => (call, busy.since),
            None => (0, busy.since),
        };
        // Between two calls, or before the worker says that it was the last.
        if call < busy.reported {
            return None;
        }
        Some(Current {
            job: &self.maps.get(&busy.map)?.spec.job,
            index: busy.first + u64::from(call),
            attempt: busy.attempt,
            since,
            is_next: call == busy.reported,
        })
    }

    /// Whether workers run calls of a map several at a time: then outputs may wait in a black box.
    pub(crate) fn is_batching(&self, map: MapId) -> bool {
        let mut busy = self.slots.iter().filter_map(Slot::busy);
        busy.any(|busy| busy.map == map && busy.sent > 1)
    }

    /// The slots that run calls of a map.
    pub(crate) fn slots_of(&self, map: MapId) -> Vec<SlotId> {
        let slots = self.busy_slots().into_iter();
        let of_map = |slot: &SlotId| {
            self.slots[slot.0]
                .busy()
                .is_some_and(|busy| busy.map == map)
        };
        slots.filter(of_map).collect()
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

    fn settled_values(&mut self, id: MapId, first: u64, count: u32, trace: T, bytes: usize) {
        if !self.maps.contains_key(&id) {
            return;
        }
        let settled = self.with_map(id, |map| map.values(first, count, trace, bytes));
        if settled == (Settled::Ended { visible: true }) {
            self.effects.wake.insert(id);
        }
        self.forget_if_done(id);
        self.leave_if_drained();
    }

    /// An attempt has ended: either the call has, too, or it is tried again.
    fn settle(
        &mut self,
        (id, index): (MapId, u64),
        result: Result<(), Why>,
        trace: T,
        bytes: usize,
        now: Time,
        sight: &impl Sight,
    ) {
        if !self.maps.contains_key(&id) {
            return;
        }
        let settled = self.with_map(id, |map| map.settle(index, result, trace, bytes, now));
        match settled {
            Settled::Again { at, visible } => {
                if let Some(at) = at {
                    self.delayed.insert((at, id, index));
                }
                // A slot that waits must wait for this, too.
                self.effects.work += 1;
                if visible {
                    self.effects.wake.insert(id);
                }
            }
            Settled::Ended { visible } => {
                if visible {
                    self.effects.wake.insert(id);
                }
            }
            Settled::Cut { from, kill } => {
                self.cut(id, from, kill, now, sight);
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
                self.with_map(id, |map| map.backoff_passed(index));
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
