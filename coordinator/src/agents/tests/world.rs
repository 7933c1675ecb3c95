//! A play: one coordinator with the real scheduler, a few agents, and what happens to them.

mod machines;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protocol::agent::{About, All, Carried, Down, Ending, Lease, Named, Up, Values, What};
use protocol::message::{Encoding, Runs};

use super::super::fleet::{self, Fleet};
use super::super::member::{self, Member};
use super::Broken;
use super::network::{Cut, Dice, Weather};
use crate::error::{Death, Why};
use crate::scheduler::{
    Bundle, Failures, LeaseId, Limits, MapId, MapSpec, Order, RestartLimit, Scheduler, Seen, Sight,
    SlotId, Take, Window,
};
use machines::{Agent, scaled};

const LEASE: Duration = Duration::from_secs(5);
/// How long a coordinator that pauses may be silent.
const PAUSE: Duration = Duration::from_secs(60);
/// How long a call runs before its agent names it.
const NAMED: Duration = Duration::from_millis(100);
/// When a play must be over, after the weather has become fair.
const PATIENCE: Duration = Duration::from_secs(600);

/// So many calls, without inputs worth mentioning.
#[derive(Debug, Clone, Copy)]
struct Calls(u32);

impl Bundle for Calls {
    fn count(&self) -> u32 {
        self.0
    }
    fn bytes(&self, _: u32, count: u32) -> usize {
        count as usize
    }
    fn join(&mut self, _: &Self) -> bool {
        false
    }
}

/// There are no workers here.
struct Nobody;

impl Sight for Nobody {
    fn look(&self, _: SlotId) -> Seen {
        unreachable!("there are no slots")
    }
    fn lower(&self, _: SlotId, _: u32) -> u32 {
        unreachable!("there are no slots")
    }
}

#[derive(Debug, Clone)]
enum Event {
    Up(usize, Up),
    Down(usize, Down),
    /// An agent has something to do by its clock.
    Tick(usize),
    /// A call has run for so long that it should be named.
    Name(usize),
    /// A call may have ended.
    Ends(usize),
    Fleet,
    /// The kernel's timer for an agent.
    Fuse(usize),
    Stops(usize),
    Dies(usize),
    Returns(usize),
    /// The coordinator pauses its run, or goes on.
    Pauses,
    Resumes,
    /// An agent hears that.
    All(usize, All),
}

pub(super) struct World {
    now: Duration,
    dice: Dice,
    weather: Weather,
    events: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    jobs: Scheduler<(), Calls, (u64, u32)>,
    map: MapId,
    fleet: Fleet,
    pace: u64,
    /// The coordinator is stopped from one time to another.
    frozen: (Duration, Duration),
    /// It pauses its run from one time to another. Where it is stopped meanwhile, these times are just before and behind that.
    paused: Option<(Duration, Duration)>,
    /// What is said of the pause reaches an agent once more, when it is over and a moment before the agent is cut off.
    straggler: Option<(usize, Duration)>,
    agents: Vec<Agent>,
    calls: u64,
    retries: u32,
    /// Where each call runs now.
    running: BTreeMap<u64, usize>,
    /// Calls that were ever begun.
    begun: BTreeSet<u64>,
    /// Attempts that have run to their end, as the world saw it.
    finished: BTreeSet<(u64, u32)>,
}

/// An agent with this many slots.
fn about(slots: u32) -> About {
    About {
        slots,
        ..About::default()
    }
}

/// Whether a call misbehaves: it ends with an error each time.
fn fails(index: u64) -> bool {
    index % 23 == 7
}

impl World {
    /// Plays what follows from a seed. An error says what went wrong.
    pub(super) fn play(seed: u64, broken: Option<Broken>) -> Result<(), String> {
        let mut world = World::new(seed, broken);
        world.begin();
        while let Some(((at, _), event)) = world.events.pop_first() {
            world.now = at;
            if world.is_over() {
                return world.check();
            }
            if at > world.weather.until + PATIENCE {
                return Err(format!(
                    "it hangs: {:?} of {} calls wait",
                    world.jobs.load(),
                    world.calls
                ));
            }
            world.happens(event)?;
        }
        Err("nothing happens any more".to_owned())
    }

    fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut dice = Dice::new(seed);
        let agents = 1 + dice.number(3) as usize;
        let until = Duration::from_secs(10 + dice.number(40));
        let often = |dice: &mut Dice, many: u64| {
            if dice.one_in(2) {
                0
            } else {
                2 + dice.number(many)
            }
        };
        let mut weather = Weather {
            lost: often(&mut dice, 30),
            doubled: often(&mut dice, 10),
            late: often(&mut dice, 20),
            delay: 1 + dice.number(3 * LEASE.as_millis() as u64),
            until,
            cuts: (0..dice.number(4))
                .map(|_| {
                    let from = dice.millis(until.as_millis() as u64);
                    Cut {
                        agent: dice.number(agents as u64) as usize,
                        from,
                        to: from + dice.millis(4 * LEASE.as_millis() as u64),
                        holds: dice.one_in(2),
                    }
                })
                .collect(),
        };
        let retries = dice.number(3) as u32;
        let restart_limit = RestartLimit {
            count: 1,
            per: Duration::from_secs(1),
        };
        let mut jobs = Scheduler::new(0, 2, restart_limit);
        let spec = MapSpec {
            job: (),
            limits: Limits {
                retries,
                ..Limits::default()
            },
            order: Order::Input,
            window: Window {
                calls: 1 << 20,
                bytes: 1 << 30,
                least: 1,
            },
            failures: Failures::Any,
            lazy: false,
            every_attempt: false,
            separate: false,
            at_most_once: false,
            kind: None,
        };
        let map = jobs.open(spec).unwrap();
        let calls = 1 + dice.number(120);
        jobs.push(map, Calls(calls as u32));
        jobs.seal(map);
        let mut fleet = Fleet::new(LEASE);
        fleet.broken = broken;
        let pace = |dice: &mut Dice| 990_000 + dice.number(20_000);
        let make = |dice: &mut Dice| {
            let slots = 1 + dice.number(4) as u32;
            let grace = Duration::from_millis(100 + dice.number(1900));
            let (pace, offset) = (pace(dice), Duration::from_secs(dice.number(1000)));
            let mut member = Member::new(about(slots), 1, LEASE, grace, offset);
            member.broken = broken;
            Agent {
                member,
                epoch: 1,
                slots,
                pace,
                offset,
                grace,
                queue: VecDeque::new(),
                runs: Vec::new(),
                dead_until: None,
                stopped_until: Duration::ZERO,
                ending: false,
                paused: false,
                tick_at: Duration::ZERO,
            }
        };
        let agents: Vec<Agent> = (0..agents).map(|_| make(&mut dice)).collect();
        let frozen_from = dice.millis(until.as_millis() as u64);
        let silence = (
            frozen_from,
            frozen_from + dice.millis(3 * LEASE.as_millis() as u64),
        );
        let frozen = match dice.one_in(3) {
            true => silence,
            false => (Duration::ZERO, Duration::ZERO),
        };
        let paused = dice.one_in(3).then_some(silence);
        let straggler = paused.filter(|_| dice.one_in(2)).map(|(_, to)| {
            let agent = dice.number(agents.len() as u64) as usize;
            (agent, to + dice.millis(3000))
        });
        if let Some((agent, at)) = straggler {
            let from = at + Duration::from_millis(1);
            let to = from + dice.millis(4 * LEASE.as_millis() as u64);
            let holds = dice.one_in(2);
            weather.cuts.push(Cut {
                agent,
                from,
                to,
                holds,
            });
        }
        World {
            now: Duration::ZERO,
            weather,
            events: BTreeMap::new(),
            next_event: 0,
            jobs,
            map,
            fleet,
            pace: pace(&mut dice),
            frozen,
            paused,
            straggler,
            agents,
            calls,
            retries,
            running: BTreeMap::new(),
            begun: BTreeSet::new(),
            finished: BTreeSet::new(),
            dice,
        }
    }

    fn begin(&mut self) {
        if let Some((from, to)) = self.paused {
            // A moment before it is stopped, and in the moment in which it goes on.
            self.at(from.saturating_sub(Duration::from_millis(1)), Event::Pauses);
            self.at(to, Event::Resumes);
        }
        for agent in 0..self.agents.len() {
            let at = self.dice.millis(3000);
            self.at(at, Event::Tick(agent));
            for event in [Event::Dies(agent), Event::Stops(agent)] {
                if self.dice.one_in(2) {
                    let at = self.dice.millis(self.weather.until.as_millis() as u64);
                    self.at(at, event);
                }
            }
        }
    }

    /// The coordinator tells all agents something, as far as the network lets it.
    fn tells_all(&mut self, all: All) {
        for agent in 0..self.agents.len() {
            for at in self.weather.arrivals(agent, self.now, &mut self.dice) {
                self.at(at, Event::All(agent, all));
            }
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.next_event += 1;
        self.events
            .insert((at.max(self.now), self.next_event), event);
    }

    fn clock(&self) -> Duration {
        scaled(self.now, self.pace)
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        let is_of_coordinator = matches!(event, Event::Up(..) | Event::Fleet);
        if is_of_coordinator && (self.frozen.0..self.frozen.1).contains(&self.now) {
            self.at(self.frozen.1, event);
            return Ok(());
        }
        if let Event::Tick(agent)
        | Event::Down(agent, _)
        | Event::Name(agent)
        | Event::Ends(agent)
        | Event::All(agent, _) = event
            && self.agents[agent].stopped_until > self.now
        {
            if matches!(event, Event::Ends(_)) {
                self.end_unseen(agent);
            }
            self.at(self.agents[agent].stopped_until, event);
            return Ok(());
        }
        match event {
            Event::Up(agent, up) => {
                let now = self.clock();
                let deeds = self.fleet.hear(&agent.to_string(), up, now);
                self.do_all(deeds)?;
            }
            Event::Fleet => {
                let now = self.clock();
                let deeds = self.fleet.tick(now);
                self.do_all(deeds)?;
            }
            Event::Down(agent, down) => {
                if self.agents[agent].dead_until.is_none() {
                    let clock = self.agents[agent].clock(self.now);
                    let deeds = self.agents[agent].member.hear(down, clock);
                    self.agent_does(agent, deeds)?;
                    self.set_fuse(agent);
                    self.set_timer(agent);
                }
            }
            Event::Tick(agent) => self.tick(agent)?,
            Event::Name(agent) => {
                if self.agents[agent].dead_until.is_none() && self.agents[agent].member.is_working()
                {
                    let clock = self.agents[agent].clock(self.now);
                    let deed = self.agents[agent].member.beat(clock, self.named(agent));
                    self.agent_does(agent, vec![deed])?;
                }
            }
            Event::Ends(agent) => self.ends(agent)?,
            Event::Fuse(agent) => self.burns(agent)?,
            Event::Pauses => {
                let now = self.clock();
                self.jobs.pause(now);
                let turns = self.fleet.pause(PAUSE, now);
                let patience = PAUSE.as_nanos() as u64;
                let pause = All::Pause { patience, turns };
                self.tells_all(pause);
                if let Some((agent, at)) = self.straggler {
                    self.at(at, Event::All(agent, pause));
                }
            }
            Event::Resumes => {
                let now = self.clock();
                self.jobs.resume(now);
                let turns = self.fleet.resume();
                self.tells_all(All::Resume { turns });
                let offers = self.fleet.offer();
                self.do_all(offers)?;
            }
            Event::All(agent, all) => self.hears_all(agent, all)?,
            Event::Stops(agent) => {
                self.agents[agent].stopped_until =
                    self.now + self.dice.millis(3 * LEASE.as_millis() as u64);
            }
            Event::Dies(agent) => self.dies(agent),
            Event::Returns(agent) => self.returns(agent)?,
        }
        Ok(())
    }

    // ---- The coordinator -------------------------------------------------------------------

    fn do_all(&mut self, deeds: Vec<fleet::Deed>) -> Result<(), String> {
        let mut deeds = VecDeque::from(deeds);
        while let Some(deed) = deeds.pop_front() {
            self.does(deed)?;
            let effects = self.jobs.take_effects().agents;
            let now = self.clock();
            for (agent, lease) in effects.closed {
                deeds.extend(self.fleet.closed(agent, lease, now));
            }
            deeds.extend(
                effects
                    .recalls
                    .into_iter()
                    .filter_map(|recall| self.fleet.recall(recall)),
            );
            if effects.offer {
                deeds.extend(self.fleet.offer());
            }
        }
        if let Some(at) = self.fleet.next_tick() {
            let at = Duration::from_secs_f64(at.as_secs_f64() * 1e6 / self.pace as f64)
                + Duration::from_micros(1);
            self.at(at, Event::Fleet);
        }
        Ok(())
    }

    fn does(&mut self, deed: fleet::Deed) -> Result<(), String> {
        let now = self.clock();
        match deed {
            fleet::Deed::Send { to, what } => {
                let agent: usize = to.parse().unwrap();
                for at in self.weather.arrivals(agent, self.now, &mut self.dice) {
                    self.at(at, Event::Down(agent, what.clone()));
                }
            }
            fleet::Deed::Join { agent, slots } => self.jobs.join(agent, slots),
            fleet::Deed::Lost { agent, named } => {
                // They are charged, so they must have begun.
                if let Some((_, index)) =
                    named.iter().find(|(_, index)| !self.begun.contains(index))
                {
                    return Err(format!("call {index} was named and had not begun"));
                }
                self.jobs.leaves(agent);
                self.jobs
                    .agent_lost(agent, &named, |_, _| (u64::MAX, 0), now, &Nobody);
            }
            fleet::Deed::Wants { agent, most } => {
                if let Some((id, batch, _)) = self.jobs.lease(agent, most, 1 << 20, now) {
                    let mut lens = Runs::default();
                    (0..batch.count).for_each(|_| lens.push(1));
                    let message = Lease {
                        epoch: 0,
                        number: id.0,
                        task: String::new(),
                        types: None,
                        encoding: Encoding::Postcard,
                        first: batch.first,
                        attempt: batch.attempt,
                        timeout: None,
                        grace: 0,
                        memory: None,
                        inputs: Carried::Here,
                        shared: Vec::new(),
                        files: Vec::new(),
                        lens,
                    };
                    return match self.fleet.leased(agent, message, now) {
                        Some(deed) => self.does(deed),
                        None => Err(format!("{agent:?} wants a lease, and is not there")),
                    };
                }
            }
            fleet::Deed::Values { lease, report } => {
                let What::Values(values) = report.what else {
                    unreachable!("it is one of values");
                };
                for Values { first, lens, .. } in values {
                    let calls = first..first + lens.count();
                    self.jobs
                        .leased_values(lease, calls, |part| ((part.start, report.epoch as u32), 1));
                }
            }
            fleet::Deed::Ended { lease, report } => self.ended(lease, &report.what, now),
            fleet::Deed::Left { agent } => self.jobs.has_left(agent),
            fleet::Deed::Returned { lease, calls } => {
                for calls in calls {
                    self.jobs.returned(lease, calls);
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, lease: LeaseId, what: &What, now: Duration) {
        let What::Ended { index, ending, .. } = what else {
            unreachable!("it is one call");
        };
        let result = match ending {
            Ending::Value => Ok(()),
            _ => Err(Why::Failed("no".to_owned())),
        };
        self.jobs
            .leased_ended(lease, *index, result, ((*index, 0), 1), now, &Nobody);
    }

    // ---- The end ---------------------------------------------------------------------------

    fn is_over(&self) -> bool {
        self.jobs.load() == (0, 0)
    }

    /// Each call has one outcome, and the right one.
    fn check(mut self) -> Result<(), String> {
        let mut taken = 0;
        while let Take::Ready(first, count, ended) = self.jobs.take(self.map) {
            taken += u64::from(count);
            for index in first..first + u64::from(count) {
                let attempts = self.finished.iter().filter(|(of, _)| *of == index).count();
                let is_right = match &ended.result {
                    Ok(()) => !fails(index) && attempts > 0,
                    Err(Why::Failed(_)) => {
                        fails(index) && attempts > 0 && ended.attempts == self.retries + 1
                    }
                    Err(Why::Died(Death::Machine)) => ended.attempts == self.retries + 1,
                    Err(_) => false,
                };
                if !is_right {
                    return Err(format!(
                        "call {index} ended as {ended:?}, and ran to its end {attempts} times"
                    ));
                }
            }
        }
        match taken == self.calls {
            true => Ok(()),
            false => Err(format!("{taken} of {} calls have an outcome", self.calls)),
        }
    }
}
