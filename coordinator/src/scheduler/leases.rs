//! Agents: takers that hold many calls at once, for a time, on other machines. What they are told and when they are believed
//! dead is not decided here; this is the ledger of who holds which calls.
//!
//! A lease is consecutive calls of one map for one agent. The agent runs as many of them at once as it has slots, so they end
//! in any order. An outcome counts only if its lease holds the call at that moment: what comes twice, late, or from somebody
//! who was taken for dead finds that it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::{AgentId, Batch, Bundle, LeaseId, Limits, Map, MapId, Scheduler, Sight, Slot, Time};
use crate::error::{Death, Why};

/// How often a call may be lost with an agent before it is charged, whether it is known to have run or not.
const LOSSES: u32 = 3;
/// How old a lease has to be before calls of it are wanted back for somebody who has nothing to do: calls were longer then
/// than whoever sized the lease thought.
const OLD: Duration = Duration::from_millis(100);

/// What agents are to be told.
#[derive(Debug, Default)]
pub(crate) struct AgentEffects {
    /// Calls are ready that an agent could take.
    pub(crate) offer: bool,
    /// Calls that agents are to give back, or to end.
    pub(crate) recalls: Vec<Recall>,
    /// Leases of which no call is open any more.
    pub(crate) closed: Vec<(AgentId, LeaseId)>,
    /// Everything is paused, or goes on.
    pub(crate) paused: Option<bool>,
    /// The pool has come nearer to its end.
    pub(crate) phase: bool,
    /// The pool was terminated: what agents run is being ended.
    pub(crate) terminated: bool,
}

impl AgentEffects {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        !self.offer
            && self.recalls.is_empty()
            && self.closed.is_empty()
            && self.paused.is_none()
            && !self.phase
            && !self.terminated
    }

    /// Adds what has come since.
    pub(crate) fn add(&mut self, later: AgentEffects) {
        self.offer |= later.offer;
        self.recalls.extend(later.recalls);
        self.closed.extend(later.closed);
        self.paused = later.paused.or(self.paused);
        self.phase |= later.phase;
        self.terminated |= later.terminated;
    }
}

/// Calls that an agent is to give back if it has not begun them, or to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recall {
    pub(crate) agent: AgentId,
    pub(crate) lease: LeaseId,
    /// The calls from this index of the map on.
    pub(crate) from: u64,
    /// Those that run are ended, too.
    pub(crate) kill: bool,
}

#[derive(Debug)]
struct Lease {
    agent: AgentId,
    map: MapId,
    calls: Range<u64>,
    /// How many of its calls have neither ended nor come back.
    open: u32,
    /// How many slots it counted like when it was given out.
    weight: u32,
    since: Time,
    /// Calls were wanted back, from this index on, and the agent has not answered yet.
    recalled: Option<u64>,
}

/// All agents and leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// How many slots each agent has.
    agents: BTreeMap<AgentId, u32>,
    leases: BTreeMap<LeaseId, Lease>,
    next: u64,
}

impl Leases {
    pub(super) fn has_agents(&self) -> bool {
        !self.agents.is_empty()
    }

    /// How many calls run, as far as one can tell, and how many wait behind them.
    pub(super) fn load(&self) -> (usize, usize) {
        let mut open: BTreeMap<AgentId, usize> = BTreeMap::new();
        for lease in self.leases.values() {
            *open.entry(lease.agent).or_default() += lease.open as usize;
        }
        open.iter()
            .fold((0, 0), |(running, waiting), (agent, open)| {
                let slots = self
                    .agents
                    .get(agent)
                    .map_or(*open, |slots| *slots as usize);
                let runs = slots.min(*open);
                (running + runs, waiting + open - runs)
            })
    }

    fn of(&self, agent: AgentId) -> Vec<LeaseId> {
        let of_agent = |(_, lease): &(&LeaseId, &Lease)| lease.agent == agent;
        self.leases
            .iter()
            .filter(of_agent)
            .map(|(id, _)| *id)
            .collect()
    }
}

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    /// An agent with this many slots will take calls.
    pub(crate) fn join(&mut self, agent: AgentId, slots: u32) {
        self.leases.agents.insert(agent, slots.max(1));
        self.effects.agents.offer |= !self.ready.is_empty();
    }

    /// An agent takes no further calls. What it holds stays with it.
    pub(crate) fn leaves(&mut self, agent: AgentId) {
        self.leases.agents.remove(&agent);
    }

    /// An agent has left: what it holds it has not begun, and that waits again.
    pub(crate) fn has_left(&mut self, agent: AgentId) {
        self.leaves(agent);
        for id in self.leases.of(agent) {
            if let Some(calls) = self.calls_of(id) {
                self.returned(id, calls);
            }
        }
    }

    /// Gives an agent calls, at most `most`, with inputs of at most `bytes` bytes unless a single call has more. `None` if there
    /// is nothing for it now.
    pub(crate) fn lease(
        &mut self,
        agent: AgentId,
        most: u32,
        bytes: usize,
        now: Time,
    ) -> Option<(LeaseId, Batch<J, I>, Limits)> {
        self.promote_delayed(now);
        let slots = *self.leases.agents.get(&agent)?;
        if self.paused.is_some() || self.is_drained() {
            return None;
        }
        let Some(map) = self.next_for(agent, now) else {
            self.recall_some(now);
            return None;
        };
        let id = LeaseId(self.leases.next);
        self.leases.next += 1;
        self.turn += 1;
        let (turn, share) = (self.turn, self.share(map, slots));
        let batch = self.with_map(map, |map| {
            map.turn = turn;
            map.next_lease(id, most.min(share).max(1), bytes, slots)
        });
        let lease = Lease {
            agent,
            map,
            calls: batch.first..batch.first + u64::from(batch.count),
            open: batch.count,
            weight: slots.min(batch.count),
            since: now,
            recalled: None,
        };
        self.leases.leases.insert(id, lease);
        self.pass_on();
        let limits = self.maps.get(&map).map(|map| map.spec.limits);
        Some((id, batch, limits.unwrap_or_default()))
    }

    /// The agent that holds a lease.
    pub(crate) fn agent_of(&self, lease: LeaseId) -> Option<AgentId> {
        Some(self.leases.leases.get(&lease)?.agent)
    }

    /// The calls that a lease was given out with.
    pub(crate) fn calls_of(&self, lease: LeaseId) -> Option<Range<u64>> {
        Some(self.leases.leases.get(&lease)?.calls.clone())
    }

    /// From which index on calls of a lease are wanted back, where the agent has not answered.
    pub(crate) fn recalled_from(&self, lease: LeaseId) -> Option<u64> {
        self.leases.leases.get(&lease)?.recalled
    }

    /// How many calls an agent holds.
    pub(crate) fn held_by(&self, agent: AgentId) -> u32 {
        let leases = self.leases.leases.values();
        leases
            .filter(|lease| lease.agent == agent)
            .map(|lease| lease.open)
            .sum()
    }

    /// Whether nobody takes the results of the map that a lease is of.
    pub(crate) fn is_lease_detached(&self, lease: LeaseId) -> bool {
        let lease = self.leases.leases.get(&lease);
        // A separate call has a lease of its own.
        lease.is_none_or(|lease| self.is_let_go(lease.map, lease.calls.start))
    }

    /// A call that a lease holds: what it runs, and which attempt it is.
    pub(crate) fn leased_call(&self, lease: LeaseId, index: u64) -> Option<(&J, u32)> {
        let known = self.leases.leases.get(&lease)?;
        let map = self.maps.get(&known.map)?;
        Some((&map.spec.job, map.attempt_by(lease, index)?))
    }

    /// Whether agents hold anything.
    pub(crate) fn has_leases(&self) -> bool {
        !self.leases.leases.is_empty()
    }

    /// When the backoff of a call passes, if one waits for that.
    pub(crate) fn next_delayed(&self) -> Option<Time> {
        self.delayed.first().map(|(at, ..)| *at)
    }

    /// The pool is over, and agents have not said in time what became of what they hold: it ends as cancelled.
    pub(crate) fn abandon_leases(&mut self, trace: &T, now: Time, sight: &impl Sight) {
        let leases: Vec<LeaseId> = self.leases.leases.keys().copied().collect();
        for id in leases {
            let Some(lease) = self.leases.leases.get(&id) else {
                continue;
            };
            let (map, calls) = (lease.map, lease.calls.clone());
            let held = self.held(id, calls);
            self.close_some(id, u32::MAX);
            for index in held.into_iter().flatten() {
                let why = Err(Why::Cancelled);
                self.settle((map, index), why, trace.clone(), 0, now, sight);
            }
        }
    }

    /// The map that an agent should serve next. A few calls are left to workers here that have nothing to do: they are nearer.
    fn next_for(&mut self, agent: AgentId, now: Time) -> Option<MapId> {
        let idle = |slot: &&Slot| matches!(slot, Slot::Idle);
        let idle = self.slots.iter().filter(idle).count();
        self.map_in_turn(now, |this, map, id| {
            let mut leases = this.leases.leases.values();
            let mut has_lease = || leases.any(|lease| lease.agent == agent && lease.map == id);
            map.ready_calls() > idle && !(map.goes_one_by_one() && has_lease())
        })
    }

    /// Half of what an agent would get if all calls that are ready were shared out by slots.
    fn share(&self, map: MapId, slots: u32) -> u32 {
        let ready = self.maps.get(&map).map_or(0, Map::ready_calls);
        let theirs: usize = self
            .leases
            .agents
            .values()
            .map(|slots| *slots as usize)
            .sum();
        let all = (theirs + self.slots.len()).max(1);
        let share = (ready * slots as usize).div_ceil(2 * all);
        u32::try_from(share).unwrap_or(u32::MAX)
    }

    /// Calls of a lease have returned values, by the agent's word. `trace` is asked for each part of them that counts. Returns
    /// how many do.
    pub(crate) fn leased_values(
        &mut self,
        lease: LeaseId,
        calls: Range<u64>,
        mut trace: impl FnMut(Range<u64>) -> (T, usize),
    ) -> u32 {
        let mut counted = 0;
        for part in self.held(lease, calls) {
            let (map, count) = (self.map_of(lease), length(&part));
            let (trace, bytes) = trace(part.clone());
            if let Some(map) = map {
                self.settled_values(map, part.start, count, trace, bytes);
            }
            counted += count;
        }
        self.close_some(lease, counted);
        counted
    }

    /// A call of a lease has ended, by the agent's word. Returns whether that counts.
    pub(crate) fn leased_ended(
        &mut self,
        lease: LeaseId,
        index: u64,
        result: Result<(), Why>,
        (trace, bytes): (T, usize),
        now: Time,
        sight: &impl Sight,
    ) -> bool {
        if self.held(lease, index..index.saturating_add(1)).is_empty() {
            return false;
        }
        let map = self.map_of(lease);
        self.close_some(lease, 1);
        if let Some(map) = map {
            self.settle((map, index), result, trace, bytes, now, sight);
        }
        true
    }

    /// An agent gives calls back that it has not begun, or has ended without an outcome that counts: they wait again. Returns how
    /// many did.
    pub(crate) fn returned(&mut self, lease: LeaseId, calls: Range<u64>) -> u32 {
        let held = self.held(lease, calls);
        let map = self.map_of(lease);
        if let Some(lease) = self.leases.leases.get_mut(&lease) {
            lease.recalled = None;
        }
        let count = held.iter().map(length).sum();
        self.close_some(lease, count);
        if let Some(map) = map.filter(|_| count > 0) {
            self.give_back(map, &held);
        }
        count
    }

    /// All that an agent holds is lost: it is dead, or says itself that it has ended everything. Calls that are known to have run
    /// (`named`, by lease and index) are charged, and all that may have if the map wants each to run at most once; the others wait
    /// again, unless they were lost too often. Returns how many are charged.
    pub(crate) fn agent_lost(
        &mut self,
        agent: AgentId,
        named: &BTreeSet<(LeaseId, u64)>,
        trace: impl Fn(LeaseId, u64) -> T,
        now: Time,
        sight: &impl Sight,
    ) -> u64 {
        let mut all_charged = 0;
        for id in self.leases.of(agent) {
            let Some(lease) = self.leases.leases.get(&id) else {
                continue;
            };
            let (map, calls) = (lease.map, lease.calls.clone());
            let held = self.held(id, calls);
            let mut charged = Vec::new();
            let mut uncharged = Vec::new();
            for part in held {
                let Some(map) = self.maps.get_mut(&map) else {
                    continue;
                };
                for index in part {
                    let is_charged = named.contains(&(id, index))
                        || map.spec.at_most_once
                        || map.lost(index) >= LOSSES;
                    match is_charged {
                        true => charged.push(index),
                        false => uncharged.push(index..index + 1),
                    }
                }
            }
            self.close_some(id, u32::MAX);
            self.give_back(map, &uncharged);
            all_charged += charged.len() as u64;
            for index in charged {
                let why = Why::Died(Death::Machine);
                self.settle((map, index), Err(why), trace(id, index), 0, now, sight);
            }
        }
        all_charged
    }

    /// Wants calls back from the agent that has most of them waiting, for somebody who has nothing to do.
    pub(super) fn recall_some(&mut self, now: Time) {
        let mut free = self.leases.agents.clone();
        let wanted = self.leases.leases.iter().filter_map(|(id, lease)| {
            // An agent begins the calls of its first lease first, as far as it has slots.
            let slots = free.entry(lease.agent).or_default();
            let run = lease.open.min(*slots);
            *slots -= run;
            let spare = lease.open - run;
            let is_old = now.saturating_sub(lease.since) >= OLD;
            (is_old && lease.recalled.is_none() && spare > 0).then_some((spare, *id))
        });
        let Some((spare, id)) = wanted.max() else {
            return;
        };
        if let Some(lease) = self.leases.leases.get_mut(&id) {
            // Agents begin calls in order, so those at the end have not begun.
            let from = lease.calls.end - u64::from(spare.div_ceil(2));
            lease.recalled = Some(from);
            self.effects.agents.recalls.push(Recall {
                agent: lease.agent,
                lease: id,
                from,
                kill: false,
            });
        }
    }

    /// A map was cut off at an index, or all are: agents give back what they have not begun of it, and end what runs if it is to
    /// be killed.
    pub(super) fn recall_of(&mut self, map: Option<MapId>, from: u64, kill: bool) {
        for (id, lease) in &mut self.leases.leases {
            let is_meant = map.is_none_or(|map| lease.map == map);
            if is_meant && lease.calls.end > from {
                let from = lease.calls.start.max(from);
                lease.recalled = Some(lease.recalled.map_or(from, |earlier| earlier.min(from)));
                self.effects.agents.recalls.push(Recall {
                    agent: lease.agent,
                    lease: *id,
                    from,
                    kill,
                });
            }
        }
    }

    /// A separate call was cancelled, which has a lease of its own: its agent does not begin it, or ends it.
    pub(super) fn recall_one(&mut self, id: LeaseId, index: u64) {
        if let Some(lease) = self.leases.leases.get_mut(&id) {
            lease.recalled = Some(index);
            self.effects.agents.recalls.push(Recall {
                agent: lease.agent,
                lease: id,
                from: index,
                kill: true,
            });
        }
    }

    /// The parts of these calls that a lease holds now.
    fn held(&mut self, lease: LeaseId, calls: Range<u64>) -> Vec<Range<u64>> {
        let Some(known) = self.leases.leases.get(&lease) else {
            return Vec::new();
        };
        // An agent may say anything.
        let calls = calls.start.max(known.calls.start)..calls.end.min(known.calls.end);
        let map = self.maps.get_mut(&known.map).filter(|_| !calls.is_empty());
        map.map_or_else(Vec::new, |map| map.held_by(lease, calls))
    }

    fn map_of(&self, lease: LeaseId) -> Option<MapId> {
        let map = self.leases.leases.get(&lease)?.map;
        self.maps.contains_key(&map).then_some(map)
    }

    /// So many calls of a lease are not open any more. Without open calls it is over.
    fn close_some(&mut self, lease: LeaseId, count: u32) {
        let Some(open) = self.leases.leases.get_mut(&lease) else {
            return;
        };
        open.open = open.open.saturating_sub(count);
        if open.open > 0 {
            return;
        }
        let Some(ended) = self.leases.leases.remove(&lease) else {
            return;
        };
        self.effects.agents.closed.push((ended.agent, lease));
        if self.maps.contains_key(&ended.map) {
            self.with_map(ended.map, |map| map.lease_ended(ended.weight));
        }
    }

    fn give_back(&mut self, map: MapId, calls: &[Range<u64>]) {
        if calls.is_empty() || !self.maps.contains_key(&map) {
            return;
        }
        self.with_map(map, |map| {
            for part in calls {
                map.give_back(part.start, length(part));
            }
        });
        self.effects.wake.insert(map);
        self.call_for(map);
        self.forget_if_done(map);
        self.leave_if_drained();
    }
}

fn length(calls: &Range<u64>) -> u32 {
    u32::try_from(calls.end.saturating_sub(calls.start)).unwrap_or(u32::MAX)
}
