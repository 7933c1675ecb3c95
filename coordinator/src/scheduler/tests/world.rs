//! The scheduler, played through at random. After every step the world checks what must always
//! hold; in the end it plays everything out and checks that each call has ended once.

mod leases;
mod separate;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::*;
use super::deeds::{Deed, Step, step};
use super::{Jobs, Numbers, Workers, jobs, limits, millis, one, spec};

pub(super) const SLOTS: usize = 3;

/// What a slot of the world is doing.
enum Post {
    Starting,
    Idle(Idle),
    /// Waits to be woken up, or until a time.
    Asleep(Idle, Option<Time>),
    Busy(Running, Worker),
    Left,
}

/// A worker and its batch.
struct Worker {
    map: MapId,
    first: u64,
    sent: u32,
    started: u32,
    finished: u32,
    /// Finished calls that the coordinator has been told of.
    told: u32,
    /// Those of the others that failed.
    failed: BTreeSet<u32>,
}

/// What the world knows of a map.
struct Known {
    pushed: u64,
    /// Results taken, by index.
    taken: BTreeMap<u64, Ended<u32>>,
    every_attempt: bool,
    /// Attempts taken that were not the call's last.
    again: BTreeMap<u64, u32>,
    order: Order,
    sealed: bool,
    retries: u32,
    /// How often each call was begun.
    begun: BTreeMap<u64, u32>,
    /// Workers that were killed before they had begun a call that they had to answer for.
    unbegun: u32,
    /// Calls whose end has been decided: they must not be handed out again.
    succeeded: BTreeSet<u64>,
    forgotten: bool,
    failures: Failures,
    /// The calls that failed for good.
    failed: BTreeSet<u64>,
    /// Those of them that the scheduler has heard of.
    heard: BTreeSet<u64>,
    /// Cut off by something else than its failures.
    cancelled: bool,
    separate: bool,
    /// Separate calls that nobody waits for, and had not ended when they were let go.
    let_go: BTreeSet<u64>,
    /// Separate calls that were cancelled before they had ended.
    cancelled_calls: BTreeSet<u64>,
}

impl Known {
    /// An attempt of a call was charged to it and did not succeed.
    fn failed(&mut self, index: u64) {
        if self.begun[&index] > self.retries {
            self.failed.insert(index);
        }
    }

    /// The scheduler has heard of an attempt that did not succeed.
    fn heard(&mut self, index: u64) {
        if self.failed.contains(&index) {
            self.heard.insert(index);
        }
    }

    /// Whether too many calls have failed for any other to start.
    fn is_over(&self) -> bool {
        match self.failures {
            Failures::Most { calls, .. } => self.failed.len() as u64 >= calls,
            Failures::Any | Failures::First => false,
        }
    }
}

pub(super) struct World {
    jobs: Jobs,
    /// How workers' states have changed, and by what.
    pub(super) life: BTreeSet<Change>,
    workers: Workers,
    now: Time,
    posts: Vec<Post>,
    maps: BTreeMap<MapId, Known>,
    closed: bool,
    paused: bool,
    /// How many steps there were.
    steps: usize,
    /// Slots that were told to be killed, and how hard.
    signalled: BTreeMap<usize, Stage>,
    /// Which slots' workers are stopped.
    halted: [bool; SLOTS],
}

/// A worker's state, what happened, and its state then.
pub(super) type Change = (&'static str, &'static str, &'static str);

impl World {
    pub(super) fn new() -> Self {
        World {
            jobs: jobs(SLOTS),
            life: BTreeSet::new(),
            workers: Workers::default(),
            now: Time::ZERO,
            posts: (0..SLOTS).map(|_| Post::Starting).collect(),
            maps: BTreeMap::new(),
            closed: false,
            paused: false,
            steps: 0,
            signalled: BTreeMap::new(),
            halted: [false; SLOTS],
        }
    }

    fn nth(&self, number: usize) -> Option<MapId> {
        let open: Vec<_> = self
            .maps
            .iter()
            .filter(|(_, known)| !known.forgotten)
            .collect();
        open.get(number % open.len().max(1)).map(|(id, _)| **id)
    }

    fn known(&mut self, map: MapId) -> &mut Known {
        self.maps.get_mut(&map).unwrap()
    }

    /// What each slot's worker is doing, as the scheduler has it.
    fn states(&self) -> [&'static str; SLOTS] {
        std::array::from_fn(|slot| match (&self.posts[slot], &self.jobs.slots[slot]) {
            (Post::Left, _) => "left",
            (_, Slot::Starting) => "starting",
            (_, Slot::Idle) => "idle",
            (_, Slot::Busy(busy)) => match busy.end {
                End::Open | End::Limited { .. } => "running",
                End::Owing { .. } => "owing",
                End::Terminated { .. } => "ending",
                End::Killed { .. } => "killed",
            },
        })
    }

    pub(super) fn step(&mut self, step: &Step) {
        let before = self.states();
        self.take_step(step);
        let after = self.states();
        for slot in 0..SLOTS {
            let event = match step {
                Step::Slot(of, deed) if *of == slot => match (before[slot], deed) {
                    ("starting", Deed::FailToStart) => "does not start",
                    ("starting", _) => "gets ready",
                    ("ending" | "killed", _) | (_, Deed::Die) => "dies",
                    _ => "goes on",
                },
                Step::Collect(of) if *of == slot => "is looked at",
                Step::Pass(_) => "time passes",
                Step::OutOfMemory(of) if *of == slot => "has too much memory",
                Step::Cancel(_) | Step::CancelOne(..) | Step::Terminate => "is cancelled",
                _ => "is told of another's doing",
            };
            if before[slot] != after[slot] {
                self.life.insert((before[slot], event, after[slot]));
            }
        }
    }

    fn take_step(&mut self, step: &Step) {
        let (with_result, with_end) = (self.maps_with_result(), self.ended_separately());
        match *step {
            Step::Open {
                order,
                failures,
                lazy,
                every_attempt,
                retries,
                backoff,
                timeout,
                separate,
            } => {
                let (failures, every_attempt) = match separate {
                    true => (Failures::Any, false),
                    false => (failures, every_attempt),
                };
                let order = if order && !every_attempt {
                    Order::Input
                } else {
                    Order::Completion
                };
                let backoff = millis(backoff);
                let limits = Limits {
                    timeout: timeout.map(millis),
                    retries,
                    backoff,
                    memory: timeout,
                    ..limits()
                };
                let opened = self.jobs.open(MapSpec {
                    limits,
                    order,
                    failures,
                    lazy: lazy && !separate,
                    every_attempt,
                    separate,
                    kind: Some(u64::from(retries % 2)),
                    ..spec()
                });
                assert_eq!(opened.is_err(), self.jobs.refusal().is_some());
                if let Ok(map) = opened {
                    let known = Known {
                        pushed: 0,
                        taken: BTreeMap::new(),
                        every_attempt,
                        again: BTreeMap::new(),
                        order,
                        sealed: false,
                        retries,
                        begun: BTreeMap::new(),
                        unbegun: 0,
                        succeeded: BTreeSet::new(),
                        forgotten: false,
                        failures,
                        failed: BTreeSet::new(),
                        heard: BTreeSet::new(),
                        cancelled: false,
                        separate,
                        let_go: BTreeSet::new(),
                        cancelled_calls: BTreeSet::new(),
                    };
                    self.maps.insert(map, known);
                }
            }
            Step::Push(n, count) => self.push(n, Some(count)),
            Step::PushEnded(n) => self.push(n, None),
            Step::Seal(n) => {
                if let Some(map) = self.nth(n) {
                    self.jobs.seal(map);
                    self.known(map).sealed = true;
                }
            }
            Step::Take(n) => {
                if let Some(map) = self.nth(n) {
                    self.take(map);
                }
            }
            Step::Cancel(n) => {
                if let Some(map) = self.nth(n) {
                    self.jobs.cancel(map, self.now, "cancelled", &self.workers);
                    self.known(map).sealed = true;
                    self.known(map).cancelled = true;
                }
            }
            Step::Forget(n) => {
                if let Some(map) = self.nth(n) {
                    self.jobs.forget(map);
                    self.known(map).forgotten = true;
                }
            }
            Step::TakeOne(n, call) => self.take_one(n, call),
            Step::LetGo(n, call) => self.let_go(n, call),
            Step::CancelOne(n, call) => self.cancel_one(n, call),
            Step::Slot(slot, deed) => self.slot(slot, deed),
            Step::Collect(slot) => {
                if let Post::Busy(_, worker) = &self.posts[slot] {
                    let (map, finished) = (worker.map, worker.finished);
                    let failed = worker.failed.clone();
                    self.collect(slot, map, finished, &failed);
                }
            }
            Step::Pass(ms) => {
                self.now += millis(ms);
                self.jobs.overdue(self.now, &self.workers);
            }
            Step::Pause => {
                self.jobs.pause(self.now);
                self.paused = true;
            }
            Step::Resume => {
                self.jobs.resume(self.now);
                self.paused = false;
            }
            Step::OutOfMemory(slot) => {
                let limit = self.jobs.memory_limits().find(|(id, _)| id.0 == slot);
                if let Some((slot, limit)) = limit {
                    self.jobs
                        .out_of_memory(slot, limit, self.now, &self.workers);
                }
            }
            Step::Stop => {
                self.jobs.stop(self.now, "stopped");
                self.closed = true;
            }
            Step::Close => {
                self.jobs.close();
                self.closed = true;
            }
            Step::Terminate => {
                self.jobs.terminate(self.now, "terminated", &self.workers);
                self.closed = true;
            }
        }
        let effects = self.jobs.take_effects();
        for (slot, stage) in effects.signals {
            if stage == Stage::Continue {
                self.halted[slot.0] = false;
                continue;
            }
            assert!(
                matches!(self.posts[slot.0], Post::Busy(..)),
                "a signal for no running call"
            );
            if stage == Stage::Stop {
                self.halted[slot.0] = true;
                continue;
            }
            let before = self.signalled.insert(slot.0, stage);
            assert!(
                before != Some(Stage::Kill) && before != Some(stage),
                "the same signal twice"
            );
            if let Post::Busy(_, worker) = &self.posts[slot.0]
                && worker.started == worker.finished
            {
                self.maps.get_mut(&worker.map).unwrap().unbegun += 1;
            }
        }
        assert!(
            self.paused || self.halted == [false; SLOTS],
            "stopped for ever"
        );
        for map in self.maps_with_result().difference(&with_result) {
            // A map that is new, or that was just looked at, needs no waking.
            let opened = matches!(step, Step::Open { .. } | Step::Take(_));
            assert!(
                opened || effects.wake.contains(map) || effects.everyone,
                "not woken: {map:?}"
            );
        }
        for (map, index) in self.ended_separately().difference(&with_end) {
            let mut told = effects.ended.iter();
            assert!(
                told.any(|(of, calls)| of == map && calls.contains(index)),
                "its caller is not woken"
            );
        }
        self.wake(if effects.everyone {
            SLOTS
        } else {
            effects.work
        });
    }

    /// Wakes some of the slots that sleep, from either end: which ones, nobody promises.
    fn wake(&mut self, mut many: usize) {
        self.steps += 1;
        let mut order: Vec<usize> = (0..SLOTS).collect();
        if self.steps.is_multiple_of(2) {
            order.reverse();
        }
        for slot in order {
            let post = std::mem::replace(&mut self.posts[slot], Post::Left);
            self.posts[slot] = match post {
                Post::Asleep(idle, until) if until.is_some_and(|until| until <= self.now) => {
                    Post::Idle(idle)
                }
                Post::Asleep(idle, _) if many > 0 => {
                    many -= 1;
                    self.jobs.woken(1);
                    Post::Idle(idle)
                }
                post => post,
            };
        }
        let paused = self.jobs.paused.is_some();
        let due = self
            .jobs
            .delayed
            .first()
            .is_some_and(|(time, ..)| *time <= self.now);
        if !paused && (due || !self.jobs.ready.is_empty()) {
            let awake = self.posts.iter().any(|post| matches!(post, Post::Idle(_)));
            let mut asleep = self.posts.iter().filter_map(|post| match post {
                Post::Asleep(_, until) => Some(*until),
                _ => None,
            });
            // Calls that take next to no time wait for those that are busy with their map, and somebody keeps watch.
            let soon = self.now + STUCK;
            let watched = asleep.clone().flatten().any(|until| until <= soon);
            assert!(
                awake || watched || asleep.next().is_none(),
                "all sleep while a call could run"
            );
        }
    }

    fn maps_with_result(&self) -> BTreeSet<MapId> {
        let maps = self.maps.iter();
        let open = maps.filter(|(_, known)| !known.forgotten && !known.separate);
        open.map(|(id, _)| *id)
            .filter(|id| self.jobs.has_result(*id))
            .collect()
    }

    fn push(&mut self, n: usize, count: Option<u32>) {
        let Some(map) = self.nth(n) else { return };
        if !self.jobs.has_room(map) || self.known(map).sealed {
            return;
        }
        let first = self.known(map).pushed;
        let index = match count {
            None => {
                let why = Why::Undecodable("bad".to_owned());
                self.jobs.push_ended(map, why, self.now, &self.workers)
            }
            Some(1) => self.jobs.push(map, one(first)),
            Some(count) => self.jobs.push(map, Numbers { first, count }),
        };
        assert_eq!(index, first);
        let known = self.known(map);
        known.pushed += u64::from(count.unwrap_or(1));
        if count.is_none() {
            known.failed.insert(index);
            known.heard(index);
        }
    }

    fn take(&mut self, map: MapId) -> bool {
        if self.maps[&map].separate {
            return self.take_all_separate(map);
        }
        let ready = self.jobs.has_result(map);
        match self.jobs.take(map) {
            Take::Ready(first, count, ended) => {
                assert!(ready && count > 0);
                let known = self.known(map);
                assert!(ended.attempts <= known.retries + 1, "too many attempts");
                if ended.again {
                    assert!(known.every_attempt && count == 1 && ended.result.is_err());
                    assert!(
                        !known.taken.contains_key(&first),
                        "an attempt after the end"
                    );
                    let before = known.again.insert(first, ended.attempts).unwrap_or(0);
                    assert_eq!(ended.attempts, before + 1, "an attempt twice, or none");
                    return true;
                }
                for index in first..first + u64::from(count) {
                    if known.every_attempt {
                        let again = known.again.get(&index).copied().unwrap_or(0);
                        // One that was cancelled while it waited has had no further attempt.
                        let last = u32::from(ended.trace.is_some());
                        assert_eq!(ended.attempts, again + last, "an attempt without a report");
                    }
                    if known.order == Order::Input {
                        assert_eq!(index, known.taken.len() as u64, "out of order");
                    }
                    assert!(index < known.pushed);
                    let before = known.taken.insert(index, ended.clone());
                    assert!(before.is_none(), "ended twice");
                }
                true
            }
            Take::Pending => {
                assert!(!ready);
                false
            }
            Take::Exhausted => {
                let known = self.known(map);
                assert_eq!(
                    known.taken.len() as u64,
                    known.pushed,
                    "a call without an end"
                );
                false
            }
        }
    }

    /// Plays everything out: nothing is pushed any more, all that runs succeeds.
    pub(super) fn finish(&mut self) {
        let maps: Vec<_> = self
            .maps
            .iter()
            .filter(|(_, known)| !known.forgotten)
            .map(|(id, _)| *id)
            .collect();
        for map in &maps {
            self.jobs.seal(*map);
        }
        self.step(&Step::Resume);
        self.step(&Step::Close);
        for _ in 0..4000 {
            (0..SLOTS).for_each(|slot| self.step(&Step::Slot(slot, Deed::Advance)));
            for map in &maps {
                while self.take(*map) {}
            }
            self.step(&Step::Pass(10));
            if self.posts.iter().all(|post| matches!(post, Post::Left)) {
                break;
            }
        }
        assert!(
            self.posts.iter().all(|post| matches!(post, Post::Left)),
            "it never ends"
        );
        for map in maps {
            assert_eq!(self.jobs.take(map), Take::Exhausted);
            let known = &self.maps[&map];
            match known.separate {
                true => self.check_separate(map),
                false => assert_eq!(known.taken.len() as u64, known.pushed),
            }
            let over = matches!(self.jobs.phase, Phase::Over(_));
            if let (Failures::Most { calls, now }, false) =
                (known.failures, known.cancelled || over)
            {
                let is_cancelled = |ended: &Ended<u32>| ended.result == Err(Why::Cancelled);
                let outcomes = || known.taken.values();
                let failed = outcomes().filter(|it| it.result.is_err() && !is_cancelled(it));
                if outcomes().any(is_cancelled) {
                    assert!(failed.count() as u64 >= calls, "cut too early");
                }
                let killed = |it: &Ended<u32>| is_cancelled(it) && it.trace.is_some();
                assert!(
                    now || !outcomes().any(killed),
                    "killed for another's failure"
                );
            }
            for (index, ended) in &known.taken {
                let begun = known.begun.get(index).copied().unwrap_or(0);
                assert!(
                    begun <= ended.attempts,
                    "it ran more often than it was charged"
                );
                assert!(
                    ended.attempts <= begun + known.unbegun,
                    "charged for what it did not run"
                );
                if known.succeeded.contains(index) && known.unbegun == 0 {
                    assert_eq!(ended.result, Ok(()), "a value was lost");
                }
                assert!(ended.result.is_err() || ended.attempts > 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn each_call_ends_exactly_once(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}
