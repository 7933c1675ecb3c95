//! The calls of one map, in input order.
//!
//! Calls that stand side by side and share their fate are kept together, as a stretch: a million short
//! calls are a few hundred stretches, and what is done with them costs as much as that.
//!
//! `running` cuts batches and follows them, `leased` does so for agents, `results` takes what has ended, and `spec` is what the caller asked for.
//! `separate` is for maps whose calls have a caller each, and `spans` a set for it.

mod leased;
mod results;
mod running;
mod separate;
mod spans;
mod spec;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use spec::Order;
pub(crate) use spec::{Failures, Limits, MapSpec, Window};

use separate::Separate;

use super::pace::Pace;
use super::throttle::Throttle;
use super::{Bundle, MapId, STUCK, Taker, Time};
use crate::error::Why;

/// A call that has ended, or an attempt that has, and is followed by another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended<T> {
    pub(crate) result: Result<(), Why>,
    pub(crate) attempts: u32,
    /// What is left of the last attempt; `None` if there was none.
    pub(crate) trace: Option<T>,
    /// What else there is to know of it.
    pub(crate) note: Option<String>,
    /// It is only an attempt: the call is tried again.
    pub(crate) again: bool,
}

/// How often a call that went alone may come back unbegun, because its worker died, before it is charged.
const UNBEGUN: u32 = 2;
/// By what factor the batches of calls that came back in this way become smaller each time.
const SMALLER: u32 = 8;
/// How many bytes of inputs go into a batch, unless a single call has more.
const MOST_BYTES: usize = 256 << 10;
/// How much of a full window is free before more calls are let in: one part of so many.
const REFILL: usize = 8;

/// What there is to take from a map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take<T> {
    /// So many calls from an index on have ended, all in the same way. Or one attempt of a call has ended.
    Ready(u64, u32, Ended<T>),
    /// The next one has not ended yet, or has not been added.
    Pending,
    /// There is none any more.
    Exhausted,
}

/// How urgently a map wants to be served: how many of its calls run, when it was served last, and when it came.
pub(super) type Rank = (u32, u64, u64);

/// Consecutive calls that share their fate.
#[derive(Debug)]
struct Stretch<I, T> {
    count: u32,
    fate: Fate<I, T>,
}

#[derive(Debug)]
enum Fate<I, T> {
    /// `attempts` have been made already. Unless they are in `ready`, their backoff has not passed.
    Waiting { inputs: I, at: u32, attempts: u32 },
    Running {
        inputs: I,
        at: u32,
        attempts: u32,
        by: Taker,
    },
    Ended {
        /// Boxed, because the map of stretches moves them about.
        ended: Box<Ended<T>>,
        bytes: usize,
        /// How many of them have not been taken: only for separate calls.
        left: u32,
    },
}

/// What became of an attempt's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The call is to be tried again: at once, or at a time; `visible` as below.
    Again { at: Option<Time>, visible: bool },
    /// The call has ended; `visible` if that gives [`Map::take`] something.
    Ended { visible: bool },
    /// It has ended, and the calls from an index on are cancelled; `kill` if those that run are, too.
    Cut { from: u64, kill: bool },
}

/// What there is to take from a map whose results come as calls end.
#[derive(Debug)]
enum Completed<T> {
    /// The stretch that begins with this call.
    Calls(u64),
    /// An attempt of this call. Its stretch waits or runs again meanwhile.
    Attempt(u64, Ended<T>),
}

/// A batch that came back unbegun, because its worker died.
#[derive(Debug, Default)]
struct Unbegun {
    /// The first call behind it.
    end: u64,
    /// How many of its calls may go together from here on.
    most: u32,
    /// How often its first call has come back after going alone.
    alone: u32,
}

/// Where a map has been cut off.
#[derive(Debug)]
struct Cut {
    /// Calls from this index on do not run, whether they are there already or are pushed later.
    from: u64,
    /// Why.
    note: String,
    /// Why those end that run, if for another reason.
    running: Option<String>,
    /// Whether the pool's end was what cut the map off.
    with_pool: bool,
}

#[derive(Debug)]
pub(super) struct Map<J, I, T> {
    pub(super) spec: MapSpec<J>,
    pub(super) pace: Pace,
    throttle: Throttle,
    /// How many calls were added.
    end: u64,
    /// The next call to be taken, for [`Order::Input`].
    next: u64,
    /// By the index of their first call. Taken ones are gone.
    stretches: BTreeMap<u64, Stretch<I, T>>,
    /// The waiting stretches that may run now.
    ready: BTreeSet<u64>,
    /// Calls in these.
    ready_calls: usize,
    /// Slots that have a batch of it.
    slots: u32,
    /// What leases of it count like: as many slots as they can occupy.
    leased: u32,
    /// How often calls that have not ended were lost with an agent.
    losses: BTreeMap<u64, u32>,
    running: usize,
    /// Calls that have not ended.
    unfinished: usize,
    /// Calls that have ended without success.
    failed: u64,
    /// Calls that were not taken.
    untaken: usize,
    /// The window is full, or has hardly emptied since it was. Waking the thread that fills it would not be worth
    /// while.
    full: bool,
    /// What the window counts, in bytes.
    bytes: usize,
    /// Ended and not taken, as they ended: only for [`Order::Completion`].
    completed: VecDeque<Completed<T>>,
    /// Calls that came back unbegun, by the first of each batch.
    unbegun: BTreeMap<u64, Unbegun>,
    separate: Separate,
    sealed: bool,
    cut: Option<Cut>,
    pub(super) detached: bool,
    /// When a slot was given calls of it last.
    pub(super) served: Time,
    /// When one of its slots should be back, if its calls take no longer than others.
    pub(super) back: Time,
    /// How many more slots there may be than usual, because calls wait for one that was expected back sooner.
    extra: usize,
    /// When it was served last.
    pub(super) turn: u64,
}

impl<J: Clone, I: Bundle, T: Clone> Map<J, I, T> {
    pub(super) fn new(spec: MapSpec<J>, processors: usize) -> Self {
        Map {
            spec,
            pace: Pace::default(),
            throttle: Throttle::new(processors),
            end: 0,
            next: 0,
            stretches: BTreeMap::new(),
            ready: BTreeSet::new(),
            ready_calls: 0,
            slots: 0,
            leased: 0,
            losses: BTreeMap::new(),
            running: 0,
            unfinished: 0,
            failed: 0,
            untaken: 0,
            full: false,
            bytes: 0,
            completed: VecDeque::new(),
            unbegun: BTreeMap::new(),
            separate: Separate::default(),
            sealed: false,
            cut: None,
            detached: false,
            served: Time::ZERO,
            back: Time::ZERO,
            extra: 0,
            turn: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How urgently it wants to be served, least first; `None` if it has nothing to run. Separate calls are served as if each
    /// were a map of its own: before maps that are under way, in the order in which they came.
    pub(super) fn rank(&self, id: MapId) -> Option<Rank> {
        let first = self.ready.first()?;
        Some(match self.spec.separate {
            true => (0, 0, self.arrival(*first)),
            false => (self.slots + self.leased, self.turn, id.0),
        })
    }

    /// Whether nobody runs a call of it, though some are ready.
    pub(super) fn is_kept_waiting(&self) -> bool {
        !self.spec.separate && self.has_ready() && self.slots + self.leased == 0
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many more slots the calls that are ready are worth waking. None, if they take less than that and a slot is
    /// busy with the map already, and so back soon.
    pub(super) fn worth_waking(&self) -> usize {
        let (ready, busy) = (self.ready_calls, self.slots as usize);
        let worth = self.pace.worth(ready).unwrap_or(ready);
        let worth = worth.max(self.extra);
        let worth = worth.min(self.slot_limit().saturating_sub(busy));
        worth.max(usize::from(busy == 0)).min(ready)
    }

    /// Whether a slot that has just done with something should go on with it.
    pub(super) fn wants_more(&self) -> bool {
        (self.slots as usize) < self.slot_limit()
    }

    /// How many slots may run calls of it. Separate calls that are not known to be short don't wait for each other.
    fn slot_limit(&self) -> usize {
        if self.spec.separate && !self.pace.is_brief() {
            return self.ready_calls.saturating_add(self.slots as usize);
        }
        self.throttle.limit().saturating_add(self.extra)
    }

    /// How many more slots might be busy with it soon, where the next trial gives it twice as many.
    pub(super) fn may_need(&self) -> usize {
        self.slot_limit()
            .saturating_mul(2)
            .saturating_sub(self.slots as usize)
    }

    /// Calls wait. If the slot that was expected back is late, lets one more slot run calls, and after that twice as
    /// many each time, because the missing ones may come back in a moment or in an hour.
    pub(super) fn look_for_late(&mut self, now: Time) {
        if now >= self.back {
            self.extra = (self.extra.saturating_mul(2)).max(1);
        }
    }

    /// A slot was given so many calls.
    pub(super) fn served(&mut self, calls: u32, now: Time) {
        self.served = now;
        if self.slots == 1 {
            self.expect_one(calls, now);
        }
    }

    /// A batch was run, by a slot that is not busy with it any more.
    pub(super) fn learn(&mut self, calls: u32, worked: Duration, now: Time) {
        self.pace.learn(calls, worked);
        let full = self.has_ready() && self.slots as usize + 1 >= self.throttle.limit();
        self.throttle.done(calls, now, full);
        if self.pace.is_short() {
            self.extra = 0;
        }
        self.expect_one(calls, now);
    }

    /// Says when the next slot should be back, of those that run batches of about so many calls.
    fn expect_one(&mut self, calls: u32, now: Time) {
        self.back = now.saturating_add(self.pace.expected(calls).max(STUCK));
    }

    pub(super) fn has_room(&self) -> bool {
        let Window { bytes, least, .. } = self.spec.window;
        let counted = match self.spec.lazy {
            true => self.untaken,
            false => self.unfinished,
        };
        let fits = !self.full && (self.bytes < bytes || counted < least);
        !self.is_sealed() && (fits || self.untaken == 0)
    }

    /// What outputs that wait to be taken count: no less than their inputs did, or small outputs would let any
    /// number of large inputs be read ahead.
    fn held(&self, bytes: usize, read: usize) -> usize {
        match self.spec.lazy {
            true => bytes.max(read),
            false => 0,
        }
    }

    /// How many calls there is room for.
    pub(super) fn room(&self) -> usize {
        match self.has_room() {
            true => self.spec.window.calls.saturating_sub(self.untaken).max(1),
            false => 0,
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed || self.cut.is_some()
    }

    /// Whether all of its calls have ended, and no more will come.
    pub(super) fn is_finished(&self) -> bool {
        self.unfinished == 0 && self.is_sealed()
    }

    pub(super) fn waiting(&self) -> usize {
        self.unfinished - self.running
    }

    /// Adds as many calls as there are inputs; returns the index of the first.
    pub(super) fn push(&mut self, inputs: I) -> u64 {
        let count = inputs.count();
        let first = self.end;
        if self.is_sealed() {
            let note = self.cut.as_ref().map(|cut| cut.note.clone());
            self.push_result(count, cancelled(0, note));
            return first;
        }
        let joined = self.join_last(&inputs);
        self.bytes += inputs.bytes(0, count);
        self.end += u64::from(count);
        self.add_untaken(count);
        self.unfinished += count as usize;
        if joined {
            return first;
        }
        let fate = Fate::Waiting {
            inputs,
            at: 0,
            attempts: 0,
        };
        self.insert(first, count, fate);
        self.set_ready(first);
        first
    }

    /// Whether new calls could be added to the stretch of the last ones, which wait, too.
    fn join_last(&mut self, inputs: &I) -> bool {
        let Some(mut last) = self.stretches.last_entry() else {
            return false;
        };
        let first = *last.key();
        let Stretch { count, fate } = last.get_mut();
        let Fate::Waiting {
            inputs: before,
            at,
            attempts: 0,
        } = fate
        else {
            return false;
        };
        let is_last = first + u64::from(*count) == self.end && *at + *count == before.count();
        if !is_last || !self.ready.contains(&first) || !before.join(inputs) {
            return false;
        }
        *count += inputs.count();
        self.ready_calls += inputs.count() as usize;
        true
    }

    /// Adds a call that has ended before it began; its index, and what follows from it.
    pub(super) fn push_ended(&mut self, why: Why) -> (u64, Settled) {
        let index = self.end;
        self.push_result(
            1,
            Ended {
                result: Err(why),
                attempts: 0,
                trace: None,
                note: None,
                again: false,
            },
        );
        let settled = self.cut_after_failure(index);
        (index, settled.unwrap_or(Settled::Ended { visible: true }))
    }

    fn push_result(&mut self, count: u32, ended: Ended<T>) {
        let first = self.end;
        self.end += u64::from(count);
        self.add_untaken(count);
        self.end_calls(first, count, ended, 0);
    }

    fn add_untaken(&mut self, count: u32) {
        self.untaken += count as usize;
        self.full |= self.untaken >= self.spec.window.calls;
    }

    /// The caller has taken results.
    fn taken(&mut self, count: u32) {
        self.untaken -= count as usize;
        let calls = self.spec.window.calls;
        self.full &= self.untaken > calls - calls / REFILL || self.untaken >= calls;
    }

    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    // ---- Stretches -------------------------------------------------------------------------

    fn insert(&mut self, first: u64, count: u32, fate: Fate<I, T>) {
        if count > 0 {
            self.stretches.insert(first, Stretch { count, fate });
        }
    }

    fn set_ready(&mut self, first: u64) {
        if let Some(stretch) = self.stretches.get(&first)
            && self.ready.insert(first)
        {
            self.ready_calls += stretch.count as usize;
        }
    }

    fn unset_ready(&mut self, first: u64, count: u32) -> bool {
        let was = self.ready.remove(&first);
        if was {
            self.ready_calls -= count as usize;
        }
        was
    }

    /// Makes a stretch begin at this index, if there is one that can be divided there.
    fn split(&mut self, index: u64) {
        let Some((&first, stretch)) = self.stretches.range_mut(..index).next_back() else {
            return;
        };
        let offset = index - first;
        if offset >= u64::from(stretch.count) {
            return;
        }
        let offset = offset as u32;
        let rest = stretch.count - offset;
        let fate = match &stretch.fate {
            Fate::Waiting {
                inputs,
                at,
                attempts,
            } => Fate::Waiting {
                inputs: inputs.clone(),
                at: at + offset,
                attempts: *attempts,
            },
            Fate::Running {
                inputs,
                at,
                attempts,
                by,
            } => Fate::Running {
                inputs: inputs.clone(),
                at: at + offset,
                attempts: *attempts,
                by: *by,
            },
            // Completed attempts are taken as they are.
            Fate::Ended { .. } => return,
        };
        stretch.count = offset;
        let was_ready = self.ready.contains(&first);
        self.insert(index, rest, fate);
        if was_ready {
            self.ready.insert(index);
        }
    }

    /// The firsts of the stretches that lie in a range, after they were divided at its ends.
    fn within(&mut self, first: u64, end: u64) -> Vec<u64> {
        self.split(first);
        self.split(end);
        self.stretches
            .range(first..end)
            .map(|(at, _)| *at)
            .collect()
    }
}

fn cancelled<T>(attempts: u32, note: Option<String>) -> Ended<T> {
    Ended {
        result: Err(Why::Cancelled),
        attempts,
        trace: None,
        note,
        again: false,
    }
}

/// How long to wait before the next attempt: doubled each time, and stretched by up to a half, so that
/// calls that failed together don't come back together. The stretch depends on the call alone.
fn delay(backoff: Duration, attempts: u32, index: u64) -> Duration {
    let doubled = backoff.saturating_mul(1 << (attempts - 1).min(16));
    // Knuth's multiplicative hash: neighbouring indexes land far apart.
    let stretch = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as u32;
    doubled.saturating_add(doubled / 2048 * stretch)
}

/// Whether trying again could help.
fn may_retry(why: &Why) -> bool {
    !matches!(why, Why::Cancelled | Why::Undecodable(_))
}
