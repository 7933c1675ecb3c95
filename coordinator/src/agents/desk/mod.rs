//! The coordinator's thread that speaks to agents: between the pool's state, the fleet, and the broker.
//!
//! It hears the broker and the pool's bell, does what the fleet and the scheduler say, and waits until either has something to do.
//! What that does to the pool's state is the ledger's.
//!
//! `hear` is what it hears, `awaiting` what belongs to that and is large, `leasing` how an agent gets a lease, `watch` what a run says by itself.

mod awaiting;
mod hear;
mod leasing;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use protocol::agent::{self, All, Bulk, Carried, Down, Open};

use super::access::{Reach, Wanted};
use super::awaited::Awaited;
use super::broker::{Access, Broker, Event as Heard};
use super::bulk::{Fetching, Store};
use super::carriage::{Inputs, nanos};
use super::fleet::{Deed, Fleet};
use super::ledger::{self, Given, Ledger};
use super::measure::Measured;
use super::opening::Values;
use super::rights::Refusals;
use super::ssh::crew::{Crew, Told};
use super::{opening, subjects};
use crate::engine::shared::PoolShared;
use crate::error::PoolError;
use crate::os::boot_time;
use crate::scheduler::{AgentId, LeaseId};

/// How often a run says that it wants machines, and the desk looks around.
const TICK: Duration = Duration::from_secs(1);
/// How often it says so while a machine that is reached by ssh is on its way: nobody else is disturbed, and it is waited for.
const SOON: Duration = Duration::from_millis(100);
/// How long a run without a worker here waits for agents.
const NOBODY: Duration = Duration::from_secs(600);
/// How long the broker may be away before a line says so.
const AWAY: Duration = Duration::from_secs(3);
/// How long a coordinator may be silent while its run is paused.
const PAUSE: Duration = Duration::from_secs(3600);
/// How long agents have, beyond the grace, to end what they run when a pool is terminated.
const TO_END: Duration = Duration::from_secs(1);
/// How many names agents of a run may have. Whoever has an agent's key can call himself anything.
const MOST_NAMES: usize = 10_000;
/// How long such a name may be, in bytes.
const MOST_NAME: usize = 256;
/// How long what was said last may take on its way.
const FLUSH: Duration = Duration::from_millis(300);

pub(crate) enum Event {
    Broker(Heard),
    /// Of a machine that is reached by ssh.
    Machine(Told),
    /// The pool has something to tell.
    Bell,
    /// It is known what the files of a lease's calls are called.
    Measured(AgentId, Box<Given>, Measured),
}

/// A lease that is out.
struct Out {
    inputs: Arc<Inputs>,
    /// What can be asked for as long as it is out.
    offered: Vec<Bulk>,
    files: Vec<agent::Files>,
}

struct Desk {
    shared: Arc<PoolShared>,
    ledger: Ledger,
    wanted: Wanted,
    run: String,
    url: String,
    broker: Broker,
    /// Stands behind the connection to its broker, which is to be closed first.
    crew: Option<Crew>,
    events: Receiver<Event>,
    fleet: Fleet,
    open: Open,
    initializer: Vec<u8>,
    out: BTreeMap<LeaseId, Out>,
    store: Store,
    values: Values,
    fetching: Fetching,
    /// Reports that wait for what belongs to them, by the agent that has sent them.
    waiting: BTreeMap<String, Vec<Awaited>>,
    /// Agents that will get a lease when it is known what its files are called.
    measuring: BTreeSet<AgentId>,
    to: Bell,
    /// All that were heard so far.
    names: BTreeSet<String>,
    /// Agents that have sent what makes no sense: they are not heard any more.
    turned_away: BTreeSet<String>,
    /// Who has said why it can't take part.
    complained: BTreeSet<String>,
    /// Machines reached by ssh that do not take part, and why.
    absent: BTreeMap<String, String>,
    refusals: Refusals,
    /// For how long there has been nobody to run anything, and when that was looked at last.
    alone: Duration,
    looked_at: Instant,
    /// Nobody has said yet that nobody is there.
    waits_in_silence: bool,
    away_since: Option<Instant>,
    was_connected: bool,
    /// When the pool was terminated.
    terminated: Option<Instant>,
    next_open: Instant,
}

/// Speaks to agents until the pool has ended and nothing of it runs anywhere. The bell is the pool's already.
pub(crate) fn run(shared: &Arc<PoolShared>, wanted: Wanted, to: &Bell, events: Receiver<Event>) {
    let leaving = Leaving(shared);
    match Desk::new(shared, wanted, to, events) {
        Ok(desk) => desk.run(),
        Err(error) => give_up(shared, &error.to_string()),
    }
    drop(leaving);
}

/// Wakes the desk.
#[derive(Clone)]
pub(crate) struct Bell(Sender<Event>);

/// What a desk hears, and how it is woken.
pub(crate) fn bell() -> (Bell, Receiver<Event>) {
    let (sender, receiver) = channel();
    (Bell(sender), receiver)
}

impl Bell {
    pub(crate) fn ring(&self) {
        // A desk that has ended needs no waking.
        let _ = self.0.send(Event::Bell);
    }
}

/// Says that nobody attends to agents any more, however that has come.
struct Leaving<'s>(&'s PoolShared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.break_down(None);
        }
        let now = self.0.now();
        self.0.act(|state| {
            let has_leases = state.jobs.has_leases();
            let (jobs, sight) = state.jobs_and_sight();
            jobs.abandon_leases(&ledger::nobody(), now, &sight);
            state.machines.has_left |= has_leases;
            state.machines.is_attended = false;
            state.machines.agents.clear();
            state.machines.running.clear();
        });
        self.0.milestone();
    }
}

/// The pool can't have agents, and was to have them.
fn give_up(shared: &PoolShared, why: &str) {
    shared.act(|state| {
        state.jobs.give_up(why);
        let failure = PoolError::System(why.to_owned());
        state.failure.get_or_insert(failure);
    });
    shared.milestone();
}

impl Desk {
    fn new(
        shared: &Arc<PoolShared>,
        wanted: Wanted,
        to: &Bell,
        events: Receiver<Event>,
    ) -> io::Result<Self> {
        let run = match &wanted.agents.run {
            Some(run) => run.clone(),
            None => format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?),
        };
        let mut store = Store::default();
        let mut values = Values::default();
        let places = (&mut store, &mut values);
        let (open, initializer) = opening::open(shared, &wanted, places, run.clone())?;
        let (access, crew) = reach(&wanted, to)?;
        let subjects = vec![subjects::up(&run, "*")];
        let url = access.url.clone();
        let (bell, to) = (to.clone(), to.clone());
        let broker = Broker::connect(access, subjects, move |event| {
            // A desk that has ended hears nothing.
            let _ = to.0.send(Event::Broker(event));
        })?;
        let waits_in_silence = matches!(wanted.reach, Reach::Broker(_));
        Ok(Desk {
            shared: Arc::clone(shared),
            ledger: Ledger::new(shared),
            fleet: Fleet::new(wanted.lease),
            wanted,
            run,
            url,
            broker,
            crew,
            events,
            open,
            initializer,
            out: BTreeMap::new(),
            store,
            values,
            fetching: Fetching::default(),
            waiting: BTreeMap::new(),
            measuring: BTreeSet::new(),
            to: bell,
            names: BTreeSet::new(),
            turned_away: BTreeSet::new(),
            complained: BTreeSet::new(),
            absent: BTreeMap::new(),
            refusals: Refusals::default(),
            alone: Duration::ZERO,
            looked_at: Instant::now(),
            // Over ssh each machine is spoken of.
            waits_in_silence,
            away_since: Some(Instant::now()),
            was_connected: false,
            terminated: None,
            next_open: Instant::now(),
        })
    }

    fn run(mut self) {
        loop {
            match self.events.recv_timeout(self.nap()) {
                Ok(Event::Broker(event)) => self.hear(event),
                Ok(Event::Measured(agent, given, measured)) => {
                    self.measured(agent, *given, measured);
                }
                Ok(Event::Machine(told)) => self.hear_machine(told),
                Ok(Event::Bell) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_around();
            self.follow_up();
            if self.is_over() {
                if let Some(crew) = &self.crew {
                    crew.will_end();
                }
                self.tell_all(All::End);
                self.broker.flush(FLUSH);
                return;
            }
        }
    }

    /// How long there is nothing to do, unless something happens.
    fn nap(&self) -> Duration {
        let fleet = self
            .fleet
            .next_tick()
            .map(|at| at.saturating_sub(boot_time()));
        let state = self.shared.state();
        let delayed = state.jobs.next_delayed();
        drop(state);
        let delayed = delayed.map(|at| at.saturating_sub(self.shared.now()));
        let open = self.next_open.saturating_duration_since(Instant::now());
        let least = [fleet, delayed, Some(open)].into_iter().flatten().min();
        least.unwrap_or(TICK).max(Duration::from_millis(1))
    }

    /// What is due.
    fn look_around(&mut self) {
        let deeds = self.fleet.tick(boot_time());
        self.do_all(deeds);
        let is_due = self.ledger.promote_delayed();
        if Instant::now() >= self.next_open {
            self.next_open = Instant::now() + self.tick();
            self.say_open();
            self.forget_all_stale();
            self.ask_due();
            self.note_silence();
            self.note_refusals();
        } else if !is_due {
            return;
        }
        let offers = self.fleet.offer();
        self.do_all(offers);
    }

    fn tick(&self) -> Duration {
        let Reach::Ssh(plan) = &self.wanted.reach else {
            return TICK;
        };
        let known = self.shared.state().machines.agents.len() + self.absent.len();
        match known < plan.hosts.len() {
            true => SOON,
            false => TICK,
        }
    }

    /// Whether the pool needs nobody any more.
    fn is_over(&self) -> bool {
        let state = self.shared.state();
        let limit = self.shared.config.limits.grace + TO_END;
        let is_late = self.terminated.is_some_and(|at| at.elapsed() >= limit);
        !state.jobs.wants_worker() && (!state.jobs.has_leases() || is_late)
    }

    // ---- What follows ----------------------------------------------------------------------

    fn do_all(&mut self, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Send { to, what } => self.send_down(&to, &what),
                Deed::Wants { agent, most } => self.lease(agent, most),
                Deed::Join { agent, slots } => {
                    let name = self.fleet.name_of(agent).unwrap_or_default();
                    self.ledger.joins(agent, name, slots);
                }
                Deed::Left { agent } => {
                    self.ledger.left(agent);
                    self.forget_all_stale();
                }
                Deed::Lost { agent, named } => {
                    self.ledger.lost(agent, named);
                    self.forget_all_stale();
                }
                Deed::Returned { lease, calls } => self.ledger.returned(lease, calls),
                // These come with a payload: see `hear_report`.
                Deed::Values { .. } | Deed::Ended { .. } => {}
            }
        }
    }

    /// What the scheduler wants agents to be told.
    fn follow_up(&mut self) {
        loop {
            let effects = self.shared.state().machines.take_effects();
            if effects.is_empty() {
                return;
            }
            if let Some(is_paused) = effects.paused {
                self.pause(is_paused);
            }
            if effects.terminated {
                self.terminated.get_or_insert_with(Instant::now);
            }
            let now = boot_time();
            let mut deeds = Vec::new();
            for (agent, lease) in effects.closed {
                self.put_away(lease);
                deeds.extend(self.fleet.closed(agent, lease, now));
            }
            let recalls = effects.recalls.into_iter();
            deeds.extend(recalls.filter_map(|recall| self.fleet.recall(recall)));
            if effects.offer {
                deeds.extend(self.fleet.offer());
            }
            self.do_all(deeds);
        }
    }

    fn pause(&mut self, is_paused: bool) {
        match is_paused {
            true => {
                let turns = self.fleet.pause(PAUSE, boot_time());
                let patience = nanos(PAUSE);
                self.tell_all(All::Pause { patience, turns });
            }
            false => {
                let turns = self.fleet.resume();
                self.tell_all(All::Resume { turns });
            }
        }
        // Whoever pauses may be stopped a moment later.
        self.broker.flush(FLUSH);
        if let Some(crew) = &self.crew {
            crew.settle();
        }
        self.shared.state().machines.has_told = true;
        self.shared.milestone();
    }

    // ---- Sending ---------------------------------------------------------------------------

    fn send_down(&mut self, to: &str, what: &Down) {
        match what {
            Down::Lease(lease) => {
                let Some(out) = self.out.get(&LeaseId(lease.number)) else {
                    return;
                };
                let inputs = match lease.inputs {
                    Carried::Here => out.inputs.join(),
                    Carried::Apart(_) => Vec::new(),
                };
                self.send(to, what, &inputs);
            }
            _ => self.send(to, what, &[]),
        }
    }

    fn send(&self, to: &str, what: &Down, payload: &[u8]) {
        match agent::encode(what, payload) {
            // If it is lost, it is sent again.
            Ok(bytes) => _ = self.broker.publish(&subjects::down(&self.run, to), bytes),
            Err(error) => log::error!("a message to {to} can't be sent: {error}"),
        }
    }

    fn tell_all(&self, what: All) {
        if let Ok(bytes) = agent::encode(&what, &[]) {
            self.broker.publish(&subjects::all(&self.run), bytes);
        }
    }
}

/// How the broker is reached, and who brings the machines to it if nobody else does.
fn reach(wanted: &Wanted, to: &Bell) -> io::Result<(Access, Option<Crew>)> {
    match &wanted.reach {
        Reach::Broker(access) => Ok((access.clone(), None)),
        Reach::Ssh(plan) => {
            let to = to.clone();
            let crew = Crew::start(plan, wanted.lease, move |told| {
                // A desk that has ended hears nothing.
                let _ = to.0.send(Event::Machine(told));
            })?;
            Ok((crew.access(), Some(crew)))
        }
    }
}
