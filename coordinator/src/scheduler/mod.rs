//! Who runs what, and when: the pool's whole logic, with no input or output, no clock and no thread.
//!
//! The engine uses it, and `payload` knows its words. Nothing belongs here that reads a clock, blocks, or can fail because of
//! the system.
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
//! `map` holds the calls of one map, and cuts batches of them; `slot` holds the state of one slot. Events of both stand in
//! `callers` (maps are opened, filled, cancelled), `reports` (what slots tell, deaths included) and `dooms` (calls that the pool
//! ends: time, memory, cancelling). `separate` is for calls that have a caller each. `leases` serves agents, which are a second kind of taker beside the slots. `pace` says how many calls go together, `throttle` how many slots run one map, and `watch`
//! which slots are woken. `life.md`, below, is a worker's life as a table.

#![doc = include_str!("life.md")]

mod callers;
mod dooms;
#[cfg_attr(
    not(feature = "agents"),
    allow(dead_code, reason = "only agents need it")
)]
mod leases;
mod map;
mod pace;
mod reports;
mod separate;
mod slot;
#[cfg(test)]
mod tests;
mod throttle;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

pub use map::Order;
pub(crate) use map::{Ended, Failures, Limits, MapSpec, Take, Window};
pub(crate) use slot::{Current, Idle, Loss, Running, Seen, Sight, Stage};

use crate::error::Why;
pub(crate) use leases::AgentEffects;
use leases::Leases;
#[cfg(feature = "agents")]
pub(crate) use leases::Recall;
use map::{Map, Rank, Settled};
use pace::Pace;
use slot::{Busy, Doom, Doomed, End, Slot};
use watch::Watch;

/// A point in time: how long the pool has existed.
pub(crate) type Time = Duration;

/// A map: the calls that one caller waits for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MapId(u64);

/// A slot, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(pub(crate) usize);

impl SlotId {
    /// Its number for people, who count from 1.
    pub(crate) fn number(self) -> usize {
        self.0 + 1
    }
}

/// An agent of this pool, for as long as it is joined. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AgentId(pub(crate) u64);

/// A lease. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeaseId(pub(crate) u64);

/// Who runs a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taker {
    Slot(SlotId),
    Lease(LeaseId),
}

/// The most calls in a batch.
pub(crate) const MOST_CALLS: u32 = protocol::black_box::CALLS as u32;
/// How long a call must run before the calls behind it in its batch are given to others.
const STUCK: Duration = Duration::from_millis(1);
/// How much time taking calls back must save at least.
const WORTH: Duration = Duration::from_micros(400);

/// Of how many kinds of maps the paces are remembered: of more than a program has tasks.
const PACES: usize = 1024;

/// Encoded inputs of consecutive calls. Cloning them is cheap.
pub(crate) trait Bundle: Clone {
    /// How many calls they are for.
    fn count(&self) -> u32;
    /// How large some of them are.
    fn bytes(&self, from: u32, count: u32) -> usize;
    /// Adds the inputs of the calls behind them, if they may stand together and nobody else looks at these.
    fn join(&mut self, behind: &Self) -> bool;
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
#[derive(Debug, Clone)]
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
    /// Separate calls that have ended: each has somebody of its own who may wait for it.
    pub(crate) ended: Vec<(MapId, Range<u64>)>,
    /// How many slots have work to pick up.
    pub(crate) work: usize,
    /// Every slot must look again: the pool's phase has changed.
    pub(crate) everyone: bool,
    /// Workers to signal.
    pub(crate) signals: Vec<(SlotId, Stage)>,
    /// The earliest deadline may have changed.
    pub(crate) rearm: bool,
    /// What agents are to be told.
    pub(crate) agents: AgentEffects,
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
    /// It is running this call.
    Run(u64),
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
    /// among those the longest not served, and among those the first that came.
    ready: BTreeSet<(Rank, MapId)>,
    /// Calls that wait for their backoff to pass.
    delayed: BTreeSet<(Time, MapId, u64)>,
    /// The paces of tasks, by the kind of their maps.
    paces: HashMap<u64, Pace>,
    /// Maps are numbered as they come, and separate calls among them, as if each were a map of its own.
    next_map: u64,
    turn: u64,
    /// Since when separate calls have gone before a map of which nobody runs a call.
    kept_waiting: Option<Time>,
    /// Since when nothing starts and no deadline passes, if that is so.
    paused: Option<Time>,
    restart_limit: RestartLimit,
    /// When workers failed to start, within the last `restart_limit.per`.
    failed_starts: Vec<Time>,
    /// Whether any worker ever got ready.
    lived: bool,
    /// How many processors there are to run calls.
    processors: usize,
    /// How many slots were woken up and have not asked for calls since.
    coming: usize,
    /// The slot that looks again, of those that have nothing to do.
    watch: Option<Watch>,
    /// When to look for results of separate calls that stand in black boxes, if they run together.
    glance: Option<Time>,
    leases: Leases,
    effects: Effects,
}

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    pub(crate) fn new(slots: usize, processors: usize, restart_limit: RestartLimit) -> Self {
        Scheduler {
            phase: Phase::Open,
            slots: (0..slots).map(|_| Slot::Starting).collect(),
            maps: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            paces: HashMap::new(),
            next_map: 0,
            turn: 0,
            kept_waiting: None,
            paused: None,
            restart_limit,
            failed_starts: Vec::new(),
            lived: false,
            processors,
            coming: 0,
            watch: None,
            glance: None,
            leases: Leases::default(),
            effects: Effects::default(),
        }
    }

    /// What is to be done because of the calls since the last time.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    // ---- Counting --------------------------------------------------------------------------

    /// How many slots, those of agents included, run a call, and how many calls wait for one: together, those that have not
    /// ended.
    pub(crate) fn load(&self) -> (usize, usize) {
        let busy = self.slots.iter().filter_map(Slot::busy);
        // A slot whose calls have all ended is not idle before its worker has said so.
        let left = busy.map(|busy| busy.limit.saturating_sub(busy.reported) as usize);
        let left: Vec<usize> = left.filter(|left| *left > 0).collect();
        let waiting: usize = self.maps.values().map(Map::waiting).sum();
        let behind = left.iter().map(|left| left - 1).sum::<usize>();
        let (running, held) = self.leases.load();
        (left.len() + running, waiting + behind + held)
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
        let before = map.rank(id).map(|rank| (rank, id));
        let full = !map.has_room();
        let result = change(map);
        if map.spec.separate {
            let news = map.take_news().into_iter();
            self.effects.ended.extend(news.map(|calls| (id, calls)));
        }
        if full && map.has_room() {
            // Wakes whoever has more inputs and can't go on with the results.
            self.effects.wake.insert(id);
        }
        let after = map.rank(id).map(|rank| (rank, id));
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
                // A slot that sleeps until a deadline has to know of this one, too.
                self.call(1);
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

    pub(crate) fn promote_delayed(&mut self, now: Time) {
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
            self.effects.agents.phase = true;
            self.effects.everyone = true;
        }
    }
}
