//! Agents and their leases, played at random beside a slot. An agent here says what an agent may say: in any order, late,
//! twice, and after it was taken for dead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::prelude::*;

use super::super::*;
use crate::error::Death;
use crate::scheduler::leases::Recall;

const SLOTS: [u32; 3] = [1, 2, 4];

/// What an agent has of a lease.
#[derive(Debug, Clone)]
struct Held {
    agent: u64,
    map: MapId,
    attempt: u32,
    calls: Range<u64>,
}

/// A step of a play. Numbers choose among what there is, so that every step makes sense.
#[derive(Debug, Clone)]
enum Step {
    Push(u32),
    Lease {
        agent: usize,
        most: u32,
    },
    Values {
        lease: usize,
        at: usize,
        count: u32,
    },
    Fails {
        lease: usize,
        at: usize,
    },
    Returns {
        lease: usize,
        at: usize,
    },
    /// What was said before, once more.
    Again(usize),
    Lost {
        agent: usize,
        named: Vec<usize>,
    },
    Slot,
    Cancel,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<u16>().prop_map(usize::from);
    prop_oneof![
        2 => (1..40_u32).prop_map(Step::Push),
        4 => (0..3_usize, 1..20_u32).prop_map(|(agent, most)| Step::Lease { agent, most }),
        4 => (any.clone(), any.clone(), 1..6_u32).prop_map(|(lease, at, count)| Step::Values { lease, at, count }),
        2 => (any.clone(), any.clone()).prop_map(|(lease, at)| Step::Fails { lease, at }),
        1 => (any.clone(), any.clone()).prop_map(|(lease, at)| Step::Returns { lease, at }),
        1 => any.clone().prop_map(Step::Again),
        1 => (0..3_usize, prop::collection::vec(any.clone(), 0..3)).prop_map(|(agent, named)| Step::Lost { agent, named }),
        2 => Just(Step::Slot),
        1 => Just(Step::Cancel),
        1 => (1..200_u64).prop_map(Step::Wait),
    ]
}

struct World {
    jobs: Jobs,
    workers: Workers,
    map: MapId,
    now: Time,
    /// The agents by place; a lost one comes back under a new number.
    agents: [u64; 3],
    next_agent: u64,
    /// All leases there ever were, by number.
    leases: Vec<(LeaseId, Held)>,
    /// Which lease holds each call now.
    holder: BTreeMap<u64, LeaseId>,
    ended: BTreeMap<u64, Result<(), Why>>,
    attempts: BTreeMap<u64, u32>,
    losses: BTreeMap<u64, u32>,
    pushed: u64,
    retries: u32,
    at_most_once: bool,
    cancelled: bool,
    /// The slot's worker, if it is idle.
    idle: Option<Idle>,
}

impl World {
    fn new(retries: u32, at_most_once: bool) -> Self {
        let (mut jobs, workers) = (jobs(1), Workers::default());
        let spec = MapSpec {
            window: Window {
                calls: 100_000,
                bytes: 1 << 30,
                least: 1,
            },
            limits: Limits {
                retries,
                ..limits()
            },
            at_most_once,
            ..spec()
        };
        let map = jobs.open(spec).unwrap();
        for (agent, slots) in SLOTS.into_iter().enumerate() {
            jobs.join(AgentId(agent as u64), slots);
        }
        let idle = Some(jobs.ready(SlotId(0)));
        World {
            jobs,
            workers,
            map,
            now: millis(1),
            agents: [0, 1, 2],
            next_agent: 3,
            leases: Vec::new(),
            holder: BTreeMap::new(),
            ended: BTreeMap::new(),
            attempts: BTreeMap::new(),
            losses: BTreeMap::new(),
            pushed: 0,
            retries,
            at_most_once,
            cancelled: false,
            idle,
        }
    }

    /// An attempt of a call has ended.
    fn attempt_ends(&mut self, index: u64, result: Result<(), Why>) {
        self.holder.remove(&index);
        let attempts = self.attempts.entry(index).or_default();
        *attempts += 1;
        let is_tried_again = result.is_err() && *attempts <= self.retries && !self.cancelled;
        if !is_tried_again {
            assert!(
                self.ended.insert(index, result).is_none(),
                "call {index} ended twice"
            );
            self.losses.remove(&index);
        }
    }

    /// A call waits again.
    fn waits(&mut self, index: u64) {
        self.holder.remove(&index);
        if self.cancelled {
            self.ended.insert(index, Err(Why::Cancelled));
        }
    }

    fn lease(&mut self, agent: usize, most: u32) {
        let agent = self.agents[agent];
        let given = self.jobs.lease(AgentId(agent), most, 1 << 20, self.now);
        let Some((id, batch, _)) = given else {
            return;
        };
        let calls = batch.first..batch.first + u64::from(batch.count);
        assert!(!self.cancelled && batch.count <= most && !calls.is_empty());
        assert!(
            self.leases.iter().all(|(known, _)| *known != id),
            "a number twice"
        );
        for index in calls.clone() {
            assert!(!self.ended.contains_key(&index), "call {index} has ended");
            assert_eq!(
                self.holder.insert(index, id),
                None,
                "call {index} runs twice"
            );
            let made = self.attempts.get(&index).copied().unwrap_or(0);
            assert_eq!(batch.attempt, made + 1);
        }
        let held = Held {
            agent,
            map: self.map,
            attempt: batch.attempt,
            calls,
        };
        self.leases.push((id, held));
    }

    fn values(&mut self, lease: usize, at: usize, count: u32) {
        let Some((id, calls)) = self.part(lease, at, count) else {
            return;
        };
        let counts: Vec<u64> = calls
            .clone()
            .filter(|index| self.holder.get(index) == Some(&id))
            .collect();
        let mut asked = Vec::new();
        let counted = self.jobs.leased_values(id, calls, |part| {
            asked.extend(part);
            (7, 1)
        });
        assert_eq!((counted as usize, &asked), (counts.len(), &counts));
        for index in counts {
            self.attempt_ends(index, Ok(()));
        }
    }

    fn fails(&mut self, lease: usize, at: usize) {
        let Some((id, calls)) = self.part(lease, at, 1) else {
            return;
        };
        let why = Why::Failed("no".to_owned());
        let counts = self.holder.get(&calls.start) == Some(&id);
        let counted = self.jobs.leased_ended(
            id,
            calls.start,
            Err(why.clone()),
            (8, 1),
            self.now,
            &self.workers,
        );
        assert_eq!(counted, counts);
        if counts {
            self.attempt_ends(calls.start, Err(why));
        }
    }

    fn returns(&mut self, lease: usize, at: usize) {
        let Some((id, calls)) = self.part(lease, at, u32::MAX) else {
            return;
        };
        let back: Vec<u64> = calls
            .clone()
            .filter(|index| self.holder.get(index) == Some(&id))
            .collect();
        assert_eq!(self.jobs.returned(id, calls) as usize, back.len());
        for index in back {
            self.waits(index);
        }
    }

    /// Some calls of some lease, of which there may be none any more.
    fn part(&mut self, lease: usize, at: usize, count: u32) -> Option<(LeaseId, Range<u64>)> {
        let (id, held) = self.leases.get(lease.checked_rem(self.leases.len())?)?;
        let from = held.calls.start + at as u64 % (held.calls.end - held.calls.start);
        let end = from
            .saturating_add(count.into())
            .min(held.calls.end.saturating_add(2));
        Some((*id, from..end))
    }

    fn lost(&mut self, agent: usize, named: &[usize]) {
        let lost = self.agents[agent];
        let held: Vec<(u64, LeaseId)> = self
            .holder
            .iter()
            .map(|(index, id)| (*index, *id))
            .collect();
        let of_agent = |id: LeaseId| {
            self.leases
                .iter()
                .any(|(known, held)| *known == id && held.agent == lost)
        };
        let held: Vec<(u64, LeaseId)> = held.into_iter().filter(|(_, id)| of_agent(*id)).collect();
        let named = named
            .iter()
            .filter_map(|at| held.get(at.checked_rem(held.len())?));
        let named: BTreeSet<(LeaseId, u64)> = named.map(|(index, id)| (*id, *index)).collect();
        self.jobs.leaves(AgentId(lost));
        self.jobs
            .agent_lost(AgentId(lost), &named, |_, _| 9, self.now, &self.workers);
        for (index, id) in held {
            let is_charged = named.contains(&(id, index)) || self.at_most_once || {
                let losses = self.losses.entry(index).or_default();
                *losses += 1;
                *losses >= 3
            };
            match is_charged {
                true => self.attempt_ends(index, Err(Why::Died(Death::Machine))),
                false => self.waits(index),
            }
        }
        self.agents[agent] = self.next_agent;
        self.jobs.join(AgentId(self.next_agent), SLOTS[agent]);
        self.next_agent += 1;
    }

    /// The slot's worker runs what it is given, and answers.
    fn slot(&mut self) {
        let Some(idle) = self.idle.take() else {
            return;
        };
        match self.jobs.next(idle, MOST_CALLS, self.now, &self.workers) {
            Next::Run(running, batch) => {
                self.workers.open(0, batch.count);
                for at in 0..batch.count {
                    let index = batch.first + u64::from(at);
                    assert_eq!(
                        self.holder.get(&index),
                        None,
                        "call {index} runs at an agent, too"
                    );
                    assert!(self.workers.start(0, self.now));
                    self.workers.finish(0);
                }
                self.jobs
                    .values(&running, 0, batch.count, self.now, |_| (1, 1))
                    .unwrap();
                for at in 0..batch.count {
                    self.attempt_ends(batch.first + u64::from(at), Ok(()));
                }
                self.idle = Some(self.jobs.idle_again(running, self.now).unwrap());
            }
            Next::Wait(idle, _) => self.idle = Some(idle),
            Next::Leave => {}
        }
    }

    fn cancel(&mut self) {
        if self.cancelled {
            return;
        }
        self.cancelled = true;
        self.jobs
            .cancel(self.map, self.now, "enough", &self.workers);
        for index in 0..self.pushed {
            if !self.holder.contains_key(&index) {
                self.ended.entry(index).or_insert(Err(Why::Cancelled));
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Push(_) if self.cancelled => {}
            Step::Push(count) => {
                let (first, count) = (self.pushed, *count);
                self.jobs.push(self.map, Numbers { first, count });
                self.pushed += u64::from(count);
            }
            Step::Lease { agent, most } => self.lease(*agent, *most),
            Step::Values { lease, at, count } => self.values(*lease, *at, *count),
            Step::Fails { lease, at } => self.fails(*lease, *at),
            Step::Returns { lease, at } => self.returns(*lease, *at),
            Step::Again(lease) => {
                self.values(*lease, 0, 3);
                self.values(*lease, 0, 3);
            }
            Step::Lost { agent, named } => self.lost(*agent, named),
            Step::Slot => self.slot(),
            Step::Cancel => self.cancel(),
            Step::Wait(time) => self.now += millis(*time),
        }
        self.check();
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let recalls = self.jobs.take_effects().agents.recalls;
        for Recall { lease, from, .. } in recalls {
            let (_, held) = self
                .leases
                .iter()
                .find(|(id, _)| *id == lease)
                .expect("a lease there was");
            assert!(held.calls.contains(&from) && held.map == self.map && held.attempt > 0);
        }
        let (running, waiting) = self.jobs.load();
        assert_eq!(
            (running + waiting) as u64,
            self.pushed - self.ended.len() as u64
        );
        assert!(running <= self.holder.len());
    }

    /// Plays everything out: each call has one outcome, and it is the one that the world knows.
    fn finish(mut self) {
        self.jobs.seal(self.map);
        for _ in 0..100_000 {
            if self.ended.len() as u64 == self.pushed {
                break;
            }
            self.now += millis(1);
            (0..3).for_each(|agent| self.lease(agent, 10));
            for (index, id) in self.holder.clone() {
                assert_eq!(self.jobs.leased_values(id, index..index + 1, |_| (7, 1)), 1);
                self.attempt_ends(index, Ok(()));
            }
            self.slot();
        }
        let mut taken = BTreeMap::new();
        while let Take::Ready(first, count, ended) = self.jobs.take(self.map) {
            taken.extend((first..first + u64::from(count)).map(|index| (index, ended.clone())));
        }
        assert_eq!(self.jobs.take(self.map), Take::Exhausted);
        assert_eq!(taken.len() as u64, self.pushed);
        for (index, ended) in taken {
            assert_eq!(ended.result, self.ended[&index], "call {index}");
            let made = self.attempts.get(&index).copied().unwrap_or(0);
            assert_eq!(ended.attempts, made, "call {index}");
        }
        assert_eq!(self.jobs.load(), (0, 0));
        self.jobs.forget(self.map);
        assert!(self.jobs.maps.is_empty());
    }
}

proptest! {
    #[test]
    fn each_call_has_one_outcome_whatever_agents_say(
        steps in prop::collection::vec(step(), 0..120),
        retries in 0..3_u32,
        at_most_once in any::<bool>(),
    ) {
        let mut world = World::new(retries, at_most_once);
        steps.iter().for_each(|step| world.take(step));
        world.finish();
    }
}
