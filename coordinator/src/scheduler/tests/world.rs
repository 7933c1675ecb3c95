//! The scheduler, played through at random. After every step the world checks what must always
//! hold; in the end it plays everything out and checks that each call has ended once.

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
    /// Cut off by something else than its failures.
    cancelled: bool,
}

impl Known {
    /// An attempt of a call was charged to it and did not succeed.
    fn failed(&mut self, index: u64) {
        if self.begun[&index] > self.retries {
            self.failed.insert(index);
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
                Step::Cancel(_) | Step::Terminate => "is cancelled",
                _ => "is told of another's doing",
            };
            if before[slot] != after[slot] {
                self.life.insert((before[slot], event, after[slot]));
            }
        }
    }

    fn take_step(&mut self, step: &Step) {
        let with_result = self.maps_with_result();
        match *step {
            Step::Open {
                order,
                failures,
                lazy,
                every_attempt,
                retries,
                backoff,
                timeout,
            } => {
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
                    lazy,
                    every_attempt,
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
                        cancelled: false,
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
            Step::Slot(slot, deed) => self.slot(slot, deed),
            Step::Collect(slot) => {
                if let Post::Busy(_, worker) = &self.posts[slot] {
                    let finished = worker.finished;
                    self.collect(slot, finished);
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
        let open = self.maps.iter().filter(|(_, known)| !known.forgotten);
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
        }
    }

    fn take(&mut self, map: MapId) -> bool {
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

    fn slot(&mut self, slot: usize, deed: Deed) {
        let post = std::mem::replace(&mut self.posts[slot], Post::Left);
        self.posts[slot] = match (post, deed) {
            (Post::Left, _) => Post::Left,
            (Post::Starting, _) if !self.jobs.wants_worker() => Post::Left,
            (Post::Starting, Deed::FailToStart) => {
                self.jobs.start_failed("no start", self.now);
                Post::Starting
            }
            (Post::Starting, _) => Post::Idle(self.jobs.ready(SlotId(slot))),
            (Post::Asleep(idle, _) | Post::Idle(idle), Deed::Die) => {
                self.jobs.idle_died(idle);
                Post::Starting
            }
            (Post::Idle(idle), _) => self.next(idle),
            (asleep @ Post::Asleep(..), _) => asleep,
            (Post::Busy(running, worker), deed) => self.busy(slot, running, worker, deed),
        };
        if !matches!(self.posts[slot], Post::Busy(..)) {
            self.signalled.remove(&slot);
        }
    }

    fn next(&mut self, idle: Idle) -> Post {
        let ready = !self.jobs.ready.is_empty();
        let slot = idle.slot.0;
        match self.jobs.next(idle, MOST_CALLS, self.now, &self.workers) {
            Next::Run(running, batch) => {
                assert!(batch.count > 0);
                let parts: u32 = batch.parts.iter().map(|part| part.count).sum();
                assert_eq!(parts, batch.count);
                let mut index = batch.first;
                for part in &batch.parts {
                    assert_eq!(
                        part.inputs.first + u64::from(part.at),
                        index,
                        "another's input"
                    );
                    index += u64::from(part.count);
                }
                let map = running.map();
                let known = self.known(map);
                assert!(batch.attempt <= known.retries + 1);
                let last = batch.first + u64::from(batch.count) - 1;
                let earlier = known.failed.first().is_some_and(|failed| *failed < last);
                let cut = known.failures == Failures::First && earlier;
                assert!(!cut, "runs after the failure of an earlier call");
                assert!(!known.is_over(), "runs after too many failures");
                let one = batch.count == 1 || !matches!(known.failures, Failures::Most { .. });
                assert!(one, "a batch that a failure could not stop");
                self.workers.open(slot, batch.count);
                self.jobs.sent(&running, self.now);
                Post::Busy(
                    running,
                    Worker {
                        map,
                        first: batch.first,
                        sent: batch.count,
                        started: 0,
                        finished: 0,
                        told: 0,
                    },
                )
            }
            Next::Wait(idle, until) => {
                let watched = self.jobs.watch.is_some();
                assert!(
                    !ready || watched || self.jobs.paused.is_some(),
                    "no progress"
                );
                Post::Asleep(idle, until)
            }
            Next::Leave => {
                assert!(self.jobs.refusal().is_some());
                Post::Left
            }
        }
    }

    fn busy(&mut self, slot: usize, running: Running, mut worker: Worker, deed: Deed) -> Post {
        // A worker that was told to end does.
        let deed = if self.signalled.contains_key(&slot) {
            Deed::Die
        } else {
            deed
        };
        match deed {
            Deed::Die => {
                // What it has finished and not told is found, all of it.
                self.posts[slot] = Post::Starting;
                self.collect(slot, worker.finished);
                if worker.started > worker.finished {
                    let index = worker.first + u64::from(worker.finished);
                    self.known(worker.map).failed(index);
                }
                let why = Why::Died(crate::Death::Signal(9));
                let started = worker.started;
                if started == 0 {
                    // The first call may have to answer for it.
                    self.known(worker.map).unbegun += 1;
                }
                self.jobs
                    .died(running, started, why, 0, self.now, &self.workers);
                return Post::Starting;
            }
            Deed::OutOfTurn => {
                let at = worker.told + 1;
                let wrong = self
                    .jobs
                    .reply(&running, at, Ok(()), (0, 0), self.now, &self.workers);
                assert!(wrong.is_err());
            }
            Deed::Tell => self.tell(&running, &mut worker),
            Deed::Advance | Deed::Fail | Deed::FailToStart => {
                if !self.advance(slot, &running, &mut worker, deed) {
                    return self.finish_batch(running, worker);
                }
            }
        }
        if worker.told == worker.sent {
            return self.finish_batch(running, worker);
        }
        Post::Busy(running, worker)
    }

    /// A worker starts a call, or ends the one it has started; whether it could.
    fn advance(&mut self, slot: usize, running: &Running, worker: &mut Worker, deed: Deed) -> bool {
        let index = worker.first + u64::from(worker.finished);
        let known = self.maps.get_mut(&worker.map).unwrap();
        if worker.started == worker.finished {
            if worker.started == worker.sent || !self.workers.start(slot, self.now) {
                return false;
            }
            worker.started += 1;
            assert!(!known.taken.contains_key(&index), "runs after its end");
            assert!(!known.succeeded.contains(&index), "runs after its success");
            assert!(!known.is_over(), "starts after too many failures");
            *known.begun.entry(index).or_default() += 1;
            return true;
        }
        worker.finished += 1;
        self.workers.finish(slot);
        if deed == Deed::Fail {
            known.failed(index);
            worker.finished -= 1;
            self.tell(running, worker);
            worker.finished += 1;
            let at = worker.told;
            worker.told += 1;
            let result = Err(Why::Failed("no".to_owned()));
            self.jobs
                .reply(running, at, result, (0, 5), self.now, &self.workers)
                .unwrap();
        } else {
            known.succeeded.insert(index);
        }
        true
    }

    /// A worker answers for what it has finished.
    fn tell(&mut self, running: &Running, worker: &mut Worker) {
        let count = worker.finished - worker.told;
        if count > 0 {
            self.jobs
                .values(running, worker.told, count, self.now, |news| {
                    (0, 5 * news.len())
                })
                .unwrap();
            worker.told = worker.finished;
        }
    }

    /// What is in a black box is found.
    fn collect(&mut self, slot: usize, finished: u32) {
        if let Some((_, reported)) = self.jobs.unreported(SlotId(slot))
            && finished > reported
        {
            let count = finished - reported;
            self.jobs
                .found(SlotId(slot), count, self.now, |news| (0, 5 * news as usize));
        }
    }

    fn finish_batch(&mut self, running: Running, mut worker: Worker) -> Post {
        self.tell(&running, &mut worker);
        if worker.started < worker.sent {
            self.jobs.stopped(&running, worker.started).unwrap();
        }
        match self.jobs.idle_again(running, self.now) {
            Ok(idle) => Post::Idle(idle),
            // It is about to be killed.
            Err(running) => Post::Busy(running, worker),
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
            assert_eq!(known.taken.len() as u64, known.pushed);
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
