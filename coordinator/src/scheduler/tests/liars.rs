//! A worker that writes what it likes into its black box and says what it likes, among others that are honest. It may
//! make its own calls end sooner, never later, and costs nobody else's.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::*;
use super::{GRACE, Jobs, Lie, Numbers, Workers, jobs, limits, spec};

const SLOTS: usize = 3;
const LIAR: usize = 0;
const TICK: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
enum Deed {
    Lie(Lie),
    /// Answers with values for so many calls, from there on.
    Say(u32, u32),
    /// Claims that it will run no more than so many.
    Stop(u32),
    Die,
    Nothing,
}

fn deed() -> impl Strategy<Value = Deed> {
    // Small numbers are near the truth; the others are rubbish.
    let number = || prop_oneof![4 => 0..12_u32, 1 => any::<u32>()];
    let lie = (number(), number(), 0..3000_u64, number()).prop_map(
        |(started, finished, began, allowed)| {
            Deed::Lie(Lie {
                started,
                finished,
                began,
                allowed,
            })
        },
    );
    prop_oneof![
        6 => lie,
        2 => (0..6_u32, 0..6_u32).prop_map(|(at, count)| Deed::Say(at, count)),
        1 => (0..6_u32).prop_map(Deed::Stop),
        1 => Just(Deed::Die),
        3 => Just(Deed::Nothing),
    ]
}

/// A worker with a batch.
struct Batched {
    running: Running,
    first: u64,
    count: u32,
    since: Time,
    /// Of an honest one: calls begun, calls finished.
    begun: u32,
    finished: u32,
}

enum Post {
    Starting,
    Idle(Idle),
    Busy(Batched),
    Left,
}

struct World {
    jobs: Jobs,
    workers: Workers,
    map: MapId,
    timeout: Option<Duration>,
    now: Time,
    posts: Vec<Post>,
    /// Failures may cancel calls that run.
    may_be_cut: bool,
    /// Slots whose workers were killed.
    killed: BTreeSet<usize>,
    /// How often each call was given to the liar.
    lent: BTreeMap<u64, u32>,
    /// How often each died with it.
    lost: BTreeMap<u64, u32>,
    /// How often honest workers ran each.
    ran: BTreeMap<u64, u32>,
}

impl World {
    fn new(calls: u32, failures: Failures, timeout: Option<Duration>) -> Self {
        let mut jobs = jobs(SLOTS);
        let limits = Limits {
            timeout,
            ..limits()
        };
        let window = Window {
            calls: 1000,
            bytes: 1 << 20,
            least: 1,
        };
        let map = jobs
            .open(MapSpec {
                limits,
                window,
                failures,
                ..spec()
            })
            .unwrap();
        jobs.push(
            map,
            Numbers {
                first: 0,
                count: calls,
            },
        );
        jobs.seal(map);
        World {
            jobs,
            workers: Workers::default(),
            map,
            timeout,
            now: Time::ZERO,
            posts: (0..SLOTS).map(|_| Post::Starting).collect(),
            may_be_cut: failures != Failures::Any,
            killed: BTreeSet::new(),
            lent: BTreeMap::new(),
            lost: BTreeMap::new(),
            ran: BTreeMap::new(),
        }
    }

    fn carry_out(&mut self) {
        for (slot, stage) in self.jobs.take_effects().signals {
            assert!(
                matches!(self.posts[slot.0], Post::Busy(_)),
                "a signal for nobody"
            );
            let is_meant = slot.0 == LIAR || self.may_be_cut;
            assert!(is_meant, "an honest worker is signalled");
            if stage == Stage::Kill || slot.0 != LIAR {
                self.killed.insert(slot.0);
            }
        }
    }

    fn tick(&mut self, deed: &Deed) {
        self.now += TICK;
        self.jobs.overdue(self.now, &self.workers);
        self.carry_out();
        for slot in 0..SLOTS {
            let post = std::mem::replace(&mut self.posts[slot], Post::Left);
            self.posts[slot] = match post {
                Post::Left => Post::Left,
                Post::Starting if !self.jobs.wants_worker() => Post::Left,
                Post::Starting => Post::Idle(self.jobs.ready(SlotId(slot))),
                Post::Idle(idle) => self.next(idle),
                Post::Busy(batch) if self.killed.remove(&slot) => self.bury(batch),
                Post::Busy(batch) if slot == LIAR => self.lie(batch, deed),
                Post::Busy(batch) => self.work(slot, batch),
            };
            self.carry_out();
        }
    }

    fn next(&mut self, idle: Idle) -> Post {
        let slot = idle.slot.0;
        match self.jobs.next(idle, MOST_CALLS, self.now, &self.workers) {
            Next::Run(running, batch) => {
                self.workers.open(slot, batch.count);
                self.jobs.sent(&running, self.now);
                if slot == LIAR {
                    for index in batch.first..batch.first + u64::from(batch.count) {
                        *self.lent.entry(index).or_default() += 1;
                    }
                }
                Post::Busy(Batched {
                    running,
                    first: batch.first,
                    count: batch.count,
                    since: self.now,
                    begun: 0,
                    finished: 0,
                })
            }
            Next::Wait(idle, _) => Post::Idle(idle),
            Next::Leave => Post::Left,
        }
    }

    /// An honest worker begins a call or finishes one, and answers for it.
    fn work(&mut self, slot: usize, mut batch: Batched) -> Post {
        if batch.begun == batch.finished {
            if self.workers.start(slot, self.now) {
                batch.begun += 1;
                let index = batch.first + u64::from(batch.finished);
                *self.ran.entry(index).or_default() += 1;
                return Post::Busy(batch);
            }
            if batch.begun < batch.count {
                self.jobs.stopped(&batch.running, batch.begun).unwrap();
            }
        } else {
            self.workers.finish(slot);
            let said = self
                .jobs
                .values(&batch.running, batch.finished, 1, self.now, |_| (0, 0));
            said.unwrap();
            batch.finished += 1;
            if batch.finished < batch.count {
                return Post::Busy(batch);
            }
        }
        Post::Idle(self.jobs.idle_again(batch.running, self.now).unwrap())
    }

    /// The liar does something.
    fn lie(&mut self, batch: Batched, deed: &Deed) -> Post {
        let longest = LIMIT + slot::SET_BACK + GRACE + slot::ANSWER + TICK * 5;
        let is_limited = self.timeout.is_some();
        assert!(
            !is_limited || self.now - batch.since < longest * batch.count,
            "a limit that does not hold"
        );
        let said = match deed {
            Deed::Die => return self.bury(batch),
            Deed::Nothing => Ok(()),
            Deed::Lie(lie) => {
                self.workers.lie(LIAR, *lie);
                Ok(())
            }
            Deed::Say(at, count) => self
                .jobs
                .values(&batch.running, *at, *count, self.now, |_| (0, 0)),
            Deed::Stop(at) => self.jobs.stopped(&batch.running, *at),
        };
        if said.is_err() {
            // Rubbish: the seat kills it.
            return self.bury(batch);
        }
        match self.jobs.idle_again(batch.running, self.now) {
            Ok(idle) => Post::Idle(idle),
            Err(running) => Post::Busy(Batched { running, ..batch }),
        }
    }

    fn bury(&mut self, batch: Batched) -> Post {
        let slot = batch.running.slot;
        if let (LIAR, Some(busy)) = (slot.0, self.jobs.slots[LIAR].busy()) {
            for call in busy.reported..busy.limit {
                *self.lost.entry(busy.first + u64::from(call)).or_default() += 1;
            }
        }
        let started = self.jobs.gone(&batch.running, &self.workers);
        let why = Why::Died(crate::Death::Signal(9));
        self.jobs
            .died(batch.running, started, why, 0, self.now, &self.workers);
        Post::Starting
    }

    fn results(&mut self) -> Vec<Ended<u32>> {
        let mut results = Vec::new();
        while let Take::Ready(first, count, ended) = self.jobs.take(self.map) {
            assert_eq!(first, results.len() as u64);
            results.extend((0..count).map(|_| ended.clone()));
        }
        results
    }
}

/// Plays until all has ended, for at most so many steps.
fn play(world: &mut World, mut deeds: impl Iterator<Item = Deed>, steps: u32) -> bool {
    for _ in 0..steps {
        if world.posts.iter().all(|post| matches!(post, Post::Left)) {
            return true;
        }
        let Some(deed) = deeds.next() else {
            return false;
        };
        world.tick(&deed);
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn a_lying_worker_costs_itself(
        calls in 1..60_u32,
        most in prop::option::of(1..3_u64),
        deeds in prop::collection::vec(deed(), 1..80),
    ) {
        let failures = most.map_or(Failures::Any, |calls| Failures::Most { calls, now: true });
        let mut world = World::new(calls, failures, Some(LIMIT));
        world.jobs.close();
        // The last deed goes on and on.
        let last = deeds[deeds.len() - 1].clone();
        let ended = play(&mut world, deeds.into_iter().chain(std::iter::repeat(last)), 200_000);
        prop_assert!(ended, "it never ends");
        let results = world.results();
        prop_assert_eq!(results.len(), calls as usize);
        let failed = results.iter().filter(|it| matches!(it.result, Err(Why::Died(_) | Why::TimedOut(_))));
        let is_cut = failed.count() as u64 >= most.unwrap_or(u64::MAX);
        for (index, ended) in (0..).zip(&results) {
            let of = |counts: &BTreeMap<u64, u32>| counts.get(&index).copied().unwrap_or(0);
            let (lent, lost, ran) = (of(&world.lent), of(&world.lost), of(&world.ran));
            prop_assert!(ended.attempts <= 1);
            // A few times it may have died with the liar and come back as one that was not begun: in ever smaller batches,
            // and alone until it was charged.
            prop_assert!(lost <= 6, "call {index} was lost with the liar {lost} times");
            if lent == 0 {
                prop_assert!(ran == 1 || is_cut && ended.result == Err(Why::Cancelled), "call {index} ran {ran} times");
                prop_assert!(ended.result == Ok(()) || is_cut);
            }
            // Once by an honest worker, if the liar said that it had not begun it.
            prop_assert!(ran <= 1);
        }
    }

    #[test]
    fn a_lying_worker_can_be_cancelled(
        calls in 1..60_u32,
        deeds in prop::collection::vec(deed(), 0..80),
    ) {
        let mut world = World::new(calls, Failures::Any, None);
        world.jobs.close();
        if !play(&mut world, deeds.into_iter(), 1000) {
            world.may_be_cut = true;
            world.jobs.cancel(world.map, world.now, "enough", &world.workers);
            world.carry_out();
            let left = ((slot::ANSWER + GRACE).as_millis() / TICK.as_millis()) as u32 + 10;
            prop_assert!(play(&mut world, std::iter::repeat(Deed::Nothing), left), "it can't be cancelled");
        }
        prop_assert_eq!(world.results().len(), calls as usize);
    }
}
