//! The coordinator's thread that speaks to agents: between the pool's state, the fleet, and the broker.
//!
//! It hears the broker and the pool's bell, does what the fleet and the scheduler say, and waits until either has something to do.
//! What that does to the pool's state is the ledger's.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::{
    self, All, Bulk, Carried, Down, Ending, Open, Report, SharedValue, Up, Want, What,
};

use super::access::{Agents, Reach, Wanted};
use super::awaited::Awaited;
use super::broker::{self, Access, Broker, Event as Heard};
use super::bulk::{Content as _, Fetched, Fetching, Progress, Store};
use super::carriage::{Inputs, fits, nanos};
use super::fleet::{Deed, Fleet};
use super::ledger::{self, Given, Ledger};
use super::measure::{self, Measured};
use super::rights::Refusals;
use super::ssh::crew::{Crew, Told};
use super::subjects;
use crate::engine::shared::PoolShared;
use crate::error::PoolError;
use crate::os::boot_time;
use crate::payload::printed::Output;
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
    /// As which bulk it is offered, if it is large.
    bulk: Option<Bulk>,
    shared: Vec<SharedValue>,
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
    fetching: Fetching,
    /// Reports that wait for what belongs to them.
    waiting: Vec<Awaited>,
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
    /// Since when there was nobody to run anything.
    alone_since: Instant,
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
            self.0.is_broken(None);
        }
        let now = self.0.now();
        self.0.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            jobs.abandon_leases(&ledger::nobody(), now, &sight);
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
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let run: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut store = Store::default();
        let program = shared.config.launcher.program.file()?;
        let program = store.offer(Arc::new(program))?;
        let (initializer, input) = initializer(shared, &mut store)?;
        let open = Open {
            run: run.clone(),
            lease: nanos(wanted.lease),
            grace: nanos(shared.config.limits.grace),
            program,
            initializer,
            directory: wanted.directory.as_os_str().as_bytes().to_vec(),
            is_apart: wanted.agents.is_apart,
            variables: wanted
                .agents
                .variables
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
            recycle_after: shared.config.recycle_after,
            recycle_above: shared.config.recycle_above,
            prints: shared.output() != Output::Null,
            about: about(&wanted.agents),
            is_hungry: false,
        };
        let (access, crew) = reach(&wanted, to)?;
        let subjects = vec![subjects::up(&run, "*")];
        let url = access.url.clone();
        let (bell, to) = (to.clone(), to.clone());
        let broker = Broker::connect(access, subjects, move |event| {
            // A desk that has ended hears nothing.
            let _ = to.0.send(Event::Broker(event));
        })?;
        Ok(Desk {
            shared: Arc::clone(shared),
            ledger: Ledger(Arc::clone(shared)),
            fleet: Fleet::new(wanted.lease),
            wanted,
            run,
            url,
            broker,
            crew,
            events,
            open,
            initializer: input,
            out: BTreeMap::new(),
            store,
            fetching: Fetching::default(),
            waiting: Vec::new(),
            measuring: BTreeSet::new(),
            to: bell,
            names: BTreeSet::new(),
            turned_away: BTreeSet::new(),
            complained: BTreeSet::new(),
            absent: BTreeMap::new(),
            refusals: Refusals::default(),
            alone_since: Instant::now(),
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
        let delayed = self.shared.state().jobs.next_delayed();
        let is_due = delayed.is_some_and(|at| at <= self.shared.now());
        if Instant::now() >= self.next_open {
            self.next_open = Instant::now() + self.tick();
            self.say_open();
            for (agent, want) in self.fetching.again(boot_time()) {
                self.send(&agent, &Down::Want(want), &[]);
            }
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

    /// Says that this run wants machines.
    fn say_open(&mut self) {
        let state = self.shared.state();
        let wants = state.jobs.wants_worker();
        self.open.is_hungry = state.jobs.has_ready();
        drop(state);
        if wants {
            match agent::encode(&self.open, &self.initializer) {
                Ok(bytes) => _ = self.broker.publish(&subjects::call(), bytes),
                Err(error) => give_up(
                    &self.shared,
                    &format!("agents can't be told of this run: {error}"),
                ),
            }
        }
    }

    /// Says if nobody has been there for long.
    fn note_silence(&mut self) {
        if let Some(since) = self.away_since
            && since.elapsed() >= AWAY
        {
            self.away_since = None;
            let url = &self.url;
            let news = match self.was_connected {
                true => format!("the broker {url} is away: waiting for it"),
                false => format!("{}; waiting for it", broker::silence(url)),
            };
            self.ledger.note(news);
        }
        let state = self.shared.state();
        let is_alone = self.shared.config.slots == 0 && state.machines.agents.is_empty();
        drop(state);
        if !is_alone {
            self.alone_since = Instant::now();
        } else if self.alone_since.elapsed() >= NOBODY {
            let minutes = NOBODY.as_secs() / 60;
            let why =
                format!("no machine has taken part for {minutes} min, and there is no worker here");
            give_up(&self.shared, &why);
        }
    }

    /// Says what the broker does not allow. Without that no agent can take part.
    fn note_refusals(&mut self) {
        let Some(told) = self.refusals.take() else {
            return;
        };
        let url = &self.url;
        let why = format!(
            "the broker {url} does not give this run the rights it needs: {}",
            told.what
        );
        if !told.is_needed {
            return self.ledger.note(why);
        }
        let why = format!("{why}; a run needs submit.key, or a key with the same rights");
        match self.shared.config.slots {
            0 => give_up(&self.shared, &why),
            _ => self
                .ledger
                .note(format!("{why}; only this machine runs calls")),
        }
    }

    /// Tries what this run will have to publish, so that a missing right is told of before it is needed. No agent hears that:
    /// none has this run yet.
    fn try_rights(&self) {
        for subject in [subjects::all(&self.run), subjects::down(&self.run, "none")] {
            self.broker.publish(&subject, Vec::new());
        }
    }

    /// Whether the pool needs nobody any more.
    fn is_over(&self) -> bool {
        let state = self.shared.state();
        let limit = self.shared.config.limits.grace + TO_END;
        let is_late = self.terminated.is_some_and(|at| at.elapsed() >= limit);
        !state.jobs.wants_worker() && (!state.jobs.has_leases() || is_late)
    }

    // ---- Machines reached by ssh -----------------------------------------------------------

    fn hear_machine(&mut self, told: Told) {
        match told {
            Told::News(news) => self.ledger.note(news),
            Told::Out { name, why } => self.is_out(name, why),
            Told::BrokerEnded => {
                let why = "the broker of this run, its nats-server, has ended, and no other machine can be reached";
                match self.shared.config.slots {
                    0 => give_up(&self.shared, why),
                    _ => self.ledger.note(why.to_owned()),
                }
            }
        }
    }

    /// A machine does not take part. When none is left, and nobody is here, nobody will come.
    fn is_out(&mut self, name: String, why: String) {
        let Reach::Ssh(plan) = &self.wanted.reach else {
            return;
        };
        self.absent.insert(name, why);
        let reasons = plan.hosts.iter().map(|host| {
            let why = self.absent.get(&host.name)?;
            Some(format!("{}: {why}", host.destination))
        });
        let reasons: Option<Vec<String>> = reasons.collect();
        if let (Some(reasons), 0) = (reasons, self.shared.config.slots) {
            let reasons = reasons.join("; ");
            let why = format!("no machine can take part, and there is no worker here: {reasons}");
            give_up(&self.shared, &why);
        }
    }

    // ---- The broker ------------------------------------------------------------------------

    fn hear(&mut self, event: Heard) {
        match event {
            Heard::Connected => {
                if self.was_connected && self.away_since.is_none() {
                    self.ledger.note(format!("the broker {} is back", self.url));
                }
                self.away_since = None;
                if !self.was_connected {
                    self.try_rights();
                }
                self.was_connected = true;
                self.next_open = Instant::now();
            }
            Heard::Disconnected => self.away_since = Some(Instant::now()),
            Heard::NobodyTakes => {}
            Heard::Refused(refusal) => self.refusals.add(refusal),
            Heard::Ended(why) => give_up(&self.shared, &why),
            // In this run's own inbox anybody who may answer somebody could say something.
            Heard::Message { subject, .. } if subjects::run_of(&subject) != Some(&self.run) => {}
            Heard::Message {
                subject, payload, ..
            } => {
                let from = subjects::last(&subject).to_owned();
                self.hear_agent(&from, &payload);
            }
        }
    }

    fn hear_agent(&mut self, from: &str, bytes: &[u8]) {
        if self.turned_away.contains(from) || !self.may_be_heard(from) {
            return;
        }
        let (up, payload) = match agent::decode::<Up>(bytes) {
            Ok(read) => read,
            Err(agent::Unreadable::Version(version)) => {
                return self.turn_away(from, &format!("it speaks version {version} of the messages, and this is version {}: install the same version on both", agent::VERSION));
            }
            Err(agent::Unreadable::Nonsense(why)) => return self.turn_away(from, &why),
        };
        match up {
            Up::Want(want) => self.give_piece(from, want),
            Up::Piece(want) => self.take_piece(from, want, payload.to_vec()),
            Up::Cannot { why } => {
                if self.complained.insert(from.to_owned()) {
                    self.ledger.note(format!("{from} can't take part: {why}"));
                }
                self.is_out(from.to_owned(), why);
            }
            Up::Report(report) if self.fleet.expects(from, &report) => {
                self.await_report(from, report, payload);
            }
            Up::Join(join) => {
                self.ledger.tasks_are(&join.about.tasks);
                self.hear_up(from, Up::Join(join));
            }
            up => {
                self.hear_up(from, up);
                if let Some(agent) = self.fleet.named(from) {
                    let running = self.fleet.running(from);
                    self.ledger.show_running(from, agent, running);
                }
            }
        }
    }

    /// Whether there is room for what has to be remembered of somebody of this name.
    fn may_be_heard(&mut self, name: &str) -> bool {
        let is_new = !self.names.contains(name);
        if is_new && (self.names.len() >= MOST_NAMES || name.len() > MOST_NAME) {
            return false;
        }
        if is_new {
            self.names.insert(name.to_owned());
        }
        true
    }

    fn hear_up(&mut self, from: &str, up: Up) {
        let deeds = self.fleet.hear(from, up, boot_time());
        self.do_all(deeds);
    }

    /// A report whose payload is here.
    fn hear_report(&mut self, from: &str, report: Report, payload: Fetched) {
        let mut payload = Some(payload);
        for deed in self.fleet.hear(from, Up::Report(report), boot_time()) {
            let (Deed::Values { lease, report } | Deed::Ended { lease, report }) = deed else {
                self.do_all(vec![deed]);
                continue;
            };
            let payload = payload.take().unwrap_or(Fetched::Memory(Vec::new()));
            if let Err(why) = self.ledger.settle(lease, report, payload) {
                self.turn_away(from, &why);
            }
        }
    }

    /// An agent is not heard any more. What it holds is given to others when its lease is over.
    fn turn_away(&mut self, name: &str, why: &str) {
        self.turned_away.insert(name.to_owned());
        self.ledger
            .note(format!("{name} is not heard any more: {why}"));
        self.is_out(name.to_owned(), why.to_owned());
    }

    /// Hears a report when all that belongs to it is here.
    fn await_report(&mut self, from: &str, report: Report, payload: &[u8]) {
        if self.waiting.iter().any(|known| known.is(from, &report)) {
            return;
        }
        let places = self.places_of(&report);
        if places.len() != report.files.len() {
            return self.turn_away(from, "it has not sent the files that were wanted");
        }
        let awaited = Awaited::new(from, report, payload, places);
        let missing: Vec<Bulk> = awaited.missing().collect();
        self.waiting.push(awaited);
        for bulk in missing {
            self.fetch(bulk);
        }
        self.hear_complete();
    }

    /// Where the files of a report go.
    fn places_of(&self, report: &Report) -> Vec<PathBuf> {
        let What::Ended {
            index,
            ending: Ending::Value,
            ..
        } = report.what
        else {
            return Vec::new();
        };
        let out = self.out.get(&LeaseId(report.lease));
        let files = out.and_then(|out| out.files.iter().find(|files| files.index == index));
        let names = files.into_iter().flat_map(|files| &files.fetch);
        names
            .map(|name| self.wanted.directory.join(OsStr::from_bytes(name)))
            .collect()
    }

    /// Begins to fetch something for the first report that waits for it.
    fn fetch(&mut self, bulk: Bulk) {
        let Some(awaited) = self
            .waiting
            .iter_mut()
            .find(|awaited| awaited.misses(&bulk))
        else {
            return;
        };
        let from = awaited.from.clone();
        let now = boot_time();
        let begun = match awaited.place_for(&bulk) {
            None => self.fetching.begin(bulk, &from, now),
            Some(Ok(file)) => Ok(self
                .fetching
                .begin_into(bulk, &from, Fetched::Named(file), now)),
            Some(Err(error)) => Err(error),
        };
        match begun {
            Ok(wants) => self.ask(&from, wants),
            Err(error) => awaited.arrived(bulk, Err(format!("there is no place for it: {error}"))),
        }
    }

    /// Hears the reports to which nothing is missing.
    fn hear_complete(&mut self) {
        while let Some(at) = self.waiting.iter().position(Awaited::is_complete) {
            let awaited = self.waiting.remove(at);
            let counts = self.counts(&awaited.from, &awaited.report);
            let from = awaited.from.clone();
            let (report, payload) = awaited.finish(counts);
            self.hear_report(&from, report, payload);
        }
    }

    /// Whether the outcome that a report tells of will be one.
    fn counts(&self, from: &str, report: &Report) -> bool {
        let lease = LeaseId(report.lease);
        self.fleet.expects(from, report)
            && match report.what {
                What::Ended { index, .. } => self.ledger.holds(lease, index),
                _ => true,
            }
    }

    fn ask(&mut self, from: &str, wants: Vec<Want>) {
        for want in wants {
            self.send(from, &Down::Want(want), &[]);
        }
    }

    fn give_piece(&mut self, to: &str, want: Want) {
        if let Some(piece) = self.store.piece(&want) {
            self.send(to, &Down::Piece(want), &piece);
        }
    }

    fn take_piece(&mut self, from: &str, want: Want, bytes: Vec<u8>) {
        let bulk = want.bulk;
        let come = match self.fetching.arrived(want, bytes, boot_time()) {
            Progress::More(wants) => return self.ask(from, wants),
            Progress::Failed(why) => Err(why),
            Progress::Whole(fetched) => Ok(fetched),
        };
        let mut waiting = self.waiting.iter_mut();
        if let Some(awaited) = waiting.find(|awaited| awaited.misses(&bulk)) {
            awaited.arrived(bulk, come);
        }
        // Whoever else waits for the same has to fetch it anew, because it is given away.
        self.fetch(bulk);
        self.hear_complete();
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
                Deed::Left { agent } => self.ledger.left(agent),
                Deed::Lost { agent, named } => self.ledger.lost(agent, &named),
                Deed::Returned { lease, calls } => self.ledger.returned(lease, calls),
                // These come with a payload: see `hear_report`.
                Deed::Values { .. } | Deed::Ended { .. } => {}
            }
        }
    }

    /// An agent has room for a lease.
    fn lease(&mut self, agent: AgentId, most: u32) {
        if self.measuring.contains(&agent) {
            return;
        }
        let Some(given) = self.ledger.lease(agent, most) else {
            return;
        };
        if !measure::has_files(&given.inputs) {
            return self.give(agent, given, Vec::new());
        }
        self.measuring.insert(agent);
        let (to, directory) = (self.to.clone(), self.wanted.directory.clone());
        let first = given.lease.first;
        let body = move || {
            let measured = measure::all(&given.inputs, first, &directory);
            // A desk that has ended needs to know nothing.
            let _ = to.0.send(Event::Measured(agent, Box::new(given), measured));
        };
        if let Err(error) = thread::Builder::new().name("files".to_owned()).spawn(body) {
            give_up(
                &self.shared,
                &format!("the files of calls can't be read: a thread: {error}"),
            );
        }
    }

    /// It is known what the files of a lease's calls are called.
    fn measured(&mut self, agent: AgentId, given: Given, measured: Measured) {
        self.measuring.remove(&agent);
        let Measured {
            files,
            contents,
            failed,
        } = measured;
        let is_open = self.ledger.is_open(given.id);
        if is_open && failed.is_empty() {
            for (bulk, content) in contents {
                self.store.offer_as(bulk, content);
            }
            self.give(agent, given, files);
        } else if is_open {
            // The calls whose files can be read wait for the next lease.
            self.ledger.cannot_send(&given.lease, failed);
        }
        let offers = self.fleet.offer();
        self.do_all(offers);
    }

    /// Gives an agent a lease. What goes along with its calls can be asked for already.
    fn give(&mut self, agent: AgentId, given: Given, files: Vec<agent::Files>) {
        let Given {
            id,
            mut lease,
            inputs,
        } = given;
        lease.files.clone_from(&files);
        match self.carry(id, inputs, files) {
            Ok((inputs, shared)) => (lease.inputs, lease.shared) = (inputs, shared),
            Err(error) => return self.ledger.cannot_carry(&lease, &error),
        }
        if let Some(deed) = self.fleet.leased(agent, lease, boot_time()) {
            self.do_all(vec![deed]);
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
                self.fleet.pause(PAUSE, boot_time());
                self.tell_all(All::Pause {
                    patience: nanos(PAUSE),
                });
            }
            false => {
                self.fleet.resume();
                self.tell_all(All::Resume);
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

    /// Takes care that an agent can get the inputs of a lease.
    fn carry(
        &mut self,
        lease: LeaseId,
        inputs: Inputs,
        files: Vec<agent::Files>,
    ) -> io::Result<(Carried, Vec<SharedValue>)> {
        let kept = inputs.0.iter().flat_map(|part| part.inputs.kept());
        let all = worker::private::Given::default().add(kept);
        let shared = all.iter().map(|kept| share(&mut self.store, kept));
        let shared: Vec<SharedValue> = shared.collect::<io::Result<_>>()?;
        let inputs = Arc::new(inputs);
        let bulk = match fits(inputs.len()) {
            true => None,
            false => Some(self.store.offer(Arc::clone(&inputs) as Arc<_>)?),
        };
        let out = Out {
            inputs,
            bulk,
            shared: shared.clone(),
            files,
        };
        self.out.insert(lease, out);
        Ok((bulk.map_or(Carried::Here, Carried::Apart), shared))
    }

    /// A lease is over: nobody can ask for its inputs any more.
    fn put_away(&mut self, lease: LeaseId) {
        if let Some(out) = self.out.remove(&lease) {
            let shared = out.shared.iter().map(|value| &value.bulk);
            let sent = out.files.iter().flat_map(|files| &files.send);
            let sent = sent.map(|sent| &sent.bulk);
            for bulk in out.bulk.iter().chain(shared).chain(sent) {
                self.store.withdraw(bulk);
            }
        }
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

/// Offers a value that inputs refer to.
fn share(store: &mut Store, kept: &worker::private::Kept) -> io::Result<SharedValue> {
    let bulk = store.offer(Arc::new(kept.encoded()?))?;
    Ok(SharedValue {
        id: kept.id(),
        bulk,
    })
}

/// The initializer as agents are told of it, and its input.
fn initializer(
    shared: &PoolShared,
    store: &mut Store,
) -> io::Result<(Option<agent::Initializer>, Vec<u8>)> {
    let Some(initializer) = &shared.config.initializer else {
        return Ok((None, Vec::new()));
    };
    let all = worker::private::Given::default().add(&initializer.kept);
    let values = all.iter().map(|kept| share(store, kept));
    let values = values.collect::<io::Result<_>>()?;
    let (input, payload) = match fits(initializer.input.len() as u64) {
        true => (Carried::Here, initializer.input.clone()),
        false => {
            let bulk = store.offer(Arc::new(initializer.input.clone()))?;
            (Carried::Apart(bulk), Vec::new())
        }
    };
    let told = agent::Initializer {
        task: initializer.job.task.clone(),
        types: initializer.job.types.clone(),
        encoding: initializer.job.encoding,
        input,
        shared: values,
    };
    Ok((Some(told), payload))
}

/// Whose run it is, and what it does.
fn about(agents: &Agents) -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let what = agents.about.clone().unwrap_or_else(|| {
        let program = std::env::current_exe().ok();
        let name = program
            .as_deref()
            .and_then(|path| path.file_name())
            .unwrap_or_default();
        name.to_string_lossy().into_owned()
    });
    format!("{user}: {what}")
}
