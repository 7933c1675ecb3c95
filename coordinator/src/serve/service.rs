//! The thread of an agent's process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use protocol::agent::{self, About, All, Bulk, Down, Open, Presence, Up, Want};
use tempfile::NamedTempFile;

use super::event::Event;
use super::life::Life;
use super::pipe::Pipe;
use super::preparing::{self, Preparing};
use super::programs;
use super::serving::{Answer, Letter, Serving};
use crate::agents::access::Way as Reached;
use crate::agents::access::{self, Agents};
use crate::agents::broker::{self, Access, Broker, Event as Heard};
use crate::agents::bulk::{Fetched, Fetching, Progress};
use crate::agents::member::{Member, UNANSWERED};
use crate::agents::rights::Refusals;
use crate::agents::subjects;
use crate::error::PoolError;
use crate::os::{Fuse, boot_time};
use crate::pool::{Pool, available_workers};

/// How often an agent looks around while it has calls, and while it has none.
const LOOK: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_millis(500);
/// How long an agent stays with a run that has nothing for it, when another is hungry.
const STAYS: Duration = Duration::from_secs(5);
/// After how long an agent says that the broker does not answer.
const SILENCE: Duration = Duration::from_secs(5);
/// How long what was said last may take on its way.
const FLUSH: Duration = Duration::from_millis(500);
/// How many runs that can't be served are remembered.
const MOST_REFUSED: usize = 1024;
/// How many characters of what a run is about are shown to others.
const MOST_SHOWN: usize = 1000;

/// How an agent is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It finishes what it runs, and gives the rest back.
    WhenDone,
    /// It ends what it runs, and gives all back.
    Now,
}

/// An agent: it lends the slots of this machine to the runs of others, one after another.
///
/// ```no_run
/// use coordinator::{Agents, Service};
///
/// coordinator::init();
/// let (_leave, told) = std::sync::mpsc::channel();
/// Service::new(Agents::at("tls://hub").key("agent.key")).slots(8).run(&told)?;
/// # Ok::<(), coordinator::PoolError>(())
/// ```
#[derive(Debug)]
#[must_use = "an agent does nothing until run() is called"]
pub struct Service {
    way: Way,
    name: Option<String>,
    slots: Option<usize>,
    max_load: Option<f64>,
    min_free_memory: Option<u64>,
}

impl Service {
    /// An agent of those that wait at a broker, with the key of agents.
    ///
    /// See [`Service`] for an example.
    pub fn new(agents: Agents) -> Self {
        Self::by(Way::Broker(agents))
    }

    /// The agent of one run on a machine that its coordinator reaches by ssh: it speaks to the coordinator over its stdin and
    /// stdout, which are its own from [`run`](Self::run) on, and is told there what it is called. It ends with the run, or when
    /// its stdin ends.
    ///
    /// ```no_run
    /// use coordinator::Service;
    ///
    /// coordinator::init();
    /// let (_leave, told) = std::sync::mpsc::channel();
    /// Service::stdio().run(&told)?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn stdio() -> Self {
        Self::by(Way::Stdio)
    }

    fn by(way: Way) -> Self {
        Service {
            way,
            name: None,
            slots: None,
            max_load: None,
            min_free_memory: None,
        }
    }

    /// Its name. Default: that of its key, if only one agent may use it, or else the machine's.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Service};
    /// let service = Service::new(Agents::at("tls://hub").key("agent.key")).name("rack1-7");
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many calls it runs at once. Default: as many as this process may use processors.
    ///
    /// See [`Service`] for an example.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = Some(slots);
        self
    }

    /// It takes no further calls while the load of its machine, over the last minute, is this or above.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Service};
    /// let service = Service::new(Agents::at("tls://hub").key("agent.key")).max_load(16.0);
    /// ```
    pub fn max_load(mut self, load: f64) -> Self {
        self.max_load = Some(load);
        self
    }

    /// It takes no further calls while its machine has less free memory than this, in bytes.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Service};
    /// let service = Service::new(Agents::at("tls://hub").key("agent.key")).min_free_memory(4 << 30);
    /// ```
    pub fn min_free_memory(mut self, bytes: u64) -> Self {
        self.min_free_memory = Some(bytes);
        self
    }

    /// Serves until it is told to leave, and has left.
    ///
    /// # Errors
    ///
    /// The broker does not let this agent in, or is not to be trusted; its pipe has ended before its run; another agent of this name runs on this machine; or a
    /// setting makes no sense.
    ///
    /// See [`Service`] for an example.
    pub fn run(self, told: &Receiver<Leave>) -> Result<(), PoolError> {
        let (to, events) = channel();
        let identity = match &self.way {
            Way::Broker(agents) => self.at_broker(agents)?,
            Way::Stdio => self.over_stdio(&to)?,
        };
        if identity.slots == 0 {
            let why = "an agent without slots runs nothing: use 1 or more";
            return Err(PoolError::Setting(why.to_owned()));
        }
        Desk::new(self, identity, to, events)?.run(told)
    }

    fn at_broker(&self, agents: &Agents) -> Result<Identity, PoolError> {
        let Reached::Broker { url, key, insecure } = &agents.way else {
            let why = "an agent waits at a broker: use Agents::at";
            return Err(PoolError::Setting(why.to_owned()));
        };
        let of_key = access::agent_of(key.as_deref())?;
        let name = agent_name(self.name.as_deref(), of_key)?;
        Ok(Identity {
            access: access::access(url, key.as_deref(), *insecure, "agent")?,
            slots: self.slots.unwrap_or_else(available_workers),
            life: Life::begin(&name)?,
            name,
        })
    }

    /// Who this agent is, as its coordinator says.
    fn over_stdio(&self, to: &Sender<Event>) -> Result<Identity, PoolError> {
        let failed = |error: std::io::Error| {
            PoolError::System(format!(
                "the coordinator does not speak to this agent over its stdin: {error}"
            ))
        };
        let mut pipe = Pipe::take().map_err(failed)?;
        let hello = pipe.ask().map_err(failed)?;
        let life = Life::of_run(hello.home, hello.life)?;
        let to = to.clone();
        let cut = move || {
            // An agent that has left hears nothing.
            let _ = to.send(Event::Cut);
        };
        let slots = hello.slots.map(|slots| slots as usize).or(self.slots);
        Ok(Identity {
            access: pipe.open(&hello, cut).map_err(failed)?,
            slots: slots.unwrap_or_else(available_workers),
            life,
            name: subjects::as_name(&hello.name),
        })
    }
}

/// How an agent comes to its broker.
#[derive(Debug)]
enum Way {
    Broker(Agents),
    Stdio,
}

/// Who an agent is.
struct Identity {
    name: String,
    slots: usize,
    life: Life,
    access: Access,
}

/// What an agent is called: as was said, as its key says, or as the machine is.
fn agent_name(said: Option<&str>, of_key: Option<String>) -> Result<String, PoolError> {
    let said = said.map(subjects::as_name);
    match (said, of_key) {
        (Some(said), Some(of_key)) if said != of_key => Err(PoolError::Setting(format!(
            "the key is that of the agent {of_key}, and of no other: leave out its name, or use the key of {said}"
        ))),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(subjects::as_name(&host_name())),
    }
}

/// The name of this machine.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

enum Doing {
    Nothing,
    Preparing(Box<Preparing>),
    Serving(Box<Serving>),
}

struct Desk {
    service: Service,
    name: String,
    slots: usize,
    life: Life,
    /// The life that begins with the next run.
    epoch: u64,
    own: (PathBuf, Bulk),
    fuse: Fuse,
    broker: Broker,
    events: Receiver<Event>,
    to: Sender<Event>,
    doing: Doing,
    fetching: Fetching,
    /// Runs that can't be served here, and why.
    refused: BTreeMap<String, String>,
    /// What the broker does not allow.
    refusals: Refusals,
    /// Whether the rights of this agent were tried.
    has_tried: bool,
    /// When to say that the broker has never answered.
    says_silence: Option<Instant>,
    url: String,
    /// Since when nobody has taken what this agent asked.
    unheard_since: Option<Instant>,
    leave: Option<Leave>,
    /// The pipe to the broker has ended.
    is_cut: bool,
    /// The run for which this agent was started is over.
    is_over: bool,
    failure: Option<PoolError>,
}

impl Desk {
    fn new(
        service: Service,
        identity: Identity,
        to: Sender<Event>,
        events: Receiver<Event>,
    ) -> Result<Self, PoolError> {
        let Identity {
            name,
            slots,
            life,
            access,
        } = identity;
        let system = |what: &str, error: std::io::Error| {
            PoolError::System(format!("the agent can't be: {what}: {error}"))
        };
        let own = programs::own().map_err(|error| system("its program", error))?;
        let fuse = Fuse::new().map_err(|error| system("a timer", error))?;
        let subjects = vec![
            subjects::call(),
            subjects::agents(),
            subjects::all("*"),
            subjects::down("*", &name),
        ];
        let hears = to.clone();
        let url = access.url.clone();
        let broker = Broker::connect(access, subjects, move |event| {
            // An agent that has left hears nothing.
            let _ = hears.send(Event::Broker(event));
        });
        Ok(Desk {
            service,
            name,
            slots,
            epoch: life.epoch,
            life,
            own,
            fuse,
            broker: broker.map_err(|error| system("its connection", error))?,
            events,
            to,
            doing: Doing::Nothing,
            fetching: Fetching::default(),
            refused: BTreeMap::new(),
            refusals: Refusals::default(),
            has_tried: false,
            says_silence: Some(Instant::now() + SILENCE),
            url,
            unheard_since: None,
            leave: None,
            is_cut: false,
            is_over: false,
            failure: None,
        })
    }

    fn run(mut self, told: &Receiver<Leave>) -> Result<(), PoolError> {
        loop {
            match self.events.recv_timeout(self.nap()) {
                Ok(event) => self.happens(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // What has come together is heard together: the clock is looked at once.
            for _ in 0..1000 {
                match self.events.try_recv() {
                    Ok(event) => self.happens(event),
                    Err(_) => break,
                }
            }
            if let Ok(leave) = told.try_recv() {
                self.leaves(leave);
            }
            self.look_around();
            self.set_fuse();
            if let Some(failure) = self.failure.take() {
                self.stop_serving();
                return Err(failure);
            }
            if self.is_cut || self.is_over {
                self.stop_serving();
                break;
            }
            if self.leave.is_some() && self.has_left() {
                break;
            }
        }
        if self.is_cut {
            self.broker.let_go();
            let why = "the connection to the coordinator has ended";
            return Err(PoolError::System(why.to_owned()));
        }
        self.broker.flush(FLUSH);
        Ok(())
    }

    fn nap(&self) -> Duration {
        match &self.doing {
            Doing::Serving(serving) => {
                let next = serving.member.next_tick().saturating_sub(boot_time());
                let look = if serving.has_calls() { LOOK } else { IDLE };
                next.min(look)
            }
            Doing::Nothing | Doing::Preparing(_) => IDLE,
        }
    }

    fn set_fuse(&mut self) {
        let at = match &self.doing {
            Doing::Serving(serving) if serving.has_calls() => serving.member.fuse(),
            _ => None,
        };
        if let Err(error) = self.fuse.set(at) {
            log::error!("the timer that would end this agent in time can't be set: {error}");
        }
    }

    fn happens(&mut self, event: Event) {
        let now = boot_time();
        match event {
            Event::Broker(heard) => self.hear(heard),
            Event::News(news) => {
                if let Doing::Serving(serving) = &mut self.doing {
                    let letters = serving.news(news);
                    self.send_all(letters);
                }
            }
            Event::Over { epoch, lease } => {
                if let Doing::Serving(serving) = &mut self.doing {
                    let letters = serving.over(epoch, lease, now);
                    self.send_all(letters);
                }
            }
            Event::LaidOut { epoch, lease, done } => {
                if let Doing::Serving(serving) = &mut self.doing {
                    let answer = serving.laid_out(epoch, lease, done);
                    self.answer(answer);
                }
            }
            Event::Built { run, built } => self.built(&run, built),
            Event::Cut => self.is_cut = true,
        }
    }

    fn look_around(&mut self) {
        let now = boot_time();
        let takes_none = self.leave.is_some() || !self.is_free();
        if let Doing::Serving(serving) = &mut self.doing {
            serving.member.takes_none(takes_none);
            let answer = serving.tick(now);
            self.answer(answer);
        }
        for (_, want) in self.fetching.again(now) {
            self.send(&Up::Want(want), &[]);
        }
        self.look_whether_wanted();
        self.look_at_refusals();
        if self.says_silence.is_some_and(|at| Instant::now() >= at) {
            self.says_silence = None;
            log::warn!("{}; waiting for it", broker::silence(&self.url));
        }
    }

    /// Says what the broker does not allow. An agent that can't serve any run has no reason to wait for one.
    fn look_at_refusals(&mut self) {
        let Some(told) = self.refusals.take() else {
            return;
        };
        let why = format!(
            "the broker does not give the agent {} the rights it needs: {}",
            self.name, told.what
        );
        let why = match told.is_needed {
            true => format!("{why}; it needs agent.key or its own, or a key with the same rights"),
            false => why,
        };
        match self.doing {
            Doing::Nothing if told.is_needed => self.failure = Some(PoolError::System(why)),
            _ => log::warn!("{why}"),
        }
    }

    /// Tries what this agent will have to publish, so that a missing right is told of before it is needed. There is no such
    /// run, so nobody hears that.
    fn try_rights(&mut self) {
        if !self.has_tried {
            let subject = subjects::up("none", &self.name);
            self.has_tried = self.broker.publish(&subject, Vec::new());
        }
    }

    /// Leaves a run whose coordinator is gone, or whose pool can't work.
    fn look_whether_wanted(&mut self) {
        let Doing::Serving(serving) = &self.doing else {
            return;
        };
        if let (Some(failure), false) = (serving.pool.failure(), serving.has_calls()) {
            let why = preparing::why(&failure);
            self.cannot(&serving.open.run.clone(), why);
            return;
        }
        let is_unheard = self
            .unheard_since
            .is_some_and(|since| since.elapsed() >= UNANSWERED);
        if is_unheard && !serving.member.is_working() && !serving.has_calls() {
            log::info!("the run {} is gone", serving.open.about);
            self.stop_serving();
        }
    }

    /// Whether this machine has something to lend now.
    fn is_free(&self) -> bool {
        let Service {
            max_load,
            min_free_memory,
            ..
        } = &self.service;
        let quiet = max_load.is_none_or(|most| f64::from(load()) < most);
        quiet && min_free_memory.is_none_or(|least| free_memory().is_none_or(|free| free >= least))
    }

    // ---- The broker ------------------------------------------------------------------------

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Connected => {
                log::info!("{} waits for runs", self.name);
                self.says_silence = None;
                self.try_rights();
            }
            Heard::Disconnected => log::info!("the broker is away: waiting for it"),
            Heard::Refused(refusal) => self.refusals.add(refusal),
            Heard::Ended(why) => self.failure = Some(PoolError::System(why)),
            Heard::NobodyTakes => {
                self.unheard_since.get_or_insert_with(Instant::now);
                if let Doing::Serving(serving) = &mut self.doing {
                    serving.member.nobody_answers(boot_time());
                }
            }
            Heard::Message {
                subject,
                payload,
                reply,
            } => self.message(&subject, &payload, reply),
        }
    }

    fn message(&mut self, subject: &str, payload: &[u8], reply: Option<String>) {
        if subject == subjects::call() {
            if let Ok((open, input)) = agent::decode::<Open>(payload) {
                self.opened(open, input);
            }
        } else if subject == subjects::agents() {
            if let Some(reply) = reply.filter(|reply| subjects::is_inbox(reply)) {
                self.show(&reply);
            }
        } else if subjects::run_of(subject) == self.current_run() {
            match subjects::last(subject) {
                "all" => match agent::decode::<All>(payload) {
                    Ok((All::End, _)) => self.ended(),
                    Ok((all, _)) => {
                        if let Doing::Serving(serving) = &mut self.doing {
                            let answer = serving.hear_all(all, boot_time());
                            self.answer(answer);
                        }
                    }
                    Err(error) => log::debug!("a message can't be read: {error:?}"),
                },
                _ => match agent::decode::<Down>(payload) {
                    Ok((down, payload)) => self.hear_down(down, payload),
                    Err(error) => log::debug!("a message can't be read: {error:?}"),
                },
            }
        }
    }

    /// The run that this agent has to do with.
    fn current_run(&self) -> Option<&str> {
        match &self.doing {
            Doing::Nothing => None,
            Doing::Preparing(preparing) => Some(&preparing.open.run),
            Doing::Serving(serving) => Some(&serving.open.run),
        }
    }

    fn hear_down(&mut self, down: Down, payload: &[u8]) {
        self.unheard_since = None;
        let now = boot_time();
        if let Down::Piece(want) = down {
            return self.piece(want, payload.to_vec(), now);
        }
        if let Doing::Serving(serving) = &mut self.doing {
            let answer = serving.hear(down, payload, now);
            self.answer(answer);
        }
    }

    fn piece(&mut self, want: Want, bytes: Vec<u8>, now: Duration) {
        match self.fetching.arrived(want, bytes, now) {
            Progress::More(wants) => self.want(wants),
            Progress::Whole(fetched) => self.whole(want.bulk, Ok(fetched)),
            Progress::Failed(why) => self.whole(want.bulk, Err(why)),
        }
    }

    /// Something large has come, or will not.
    fn whole(&mut self, bulk: Bulk, fetched: Result<Fetched, String>) {
        match &mut self.doing {
            Doing::Nothing => {}
            Doing::Serving(serving) => {
                let answer = serving.arrived(bulk, fetched);
                self.answer(answer);
            }
            Doing::Preparing(preparing) => {
                let run = preparing.open.run.clone();
                match fetched.and_then(|fetched| preparing.arrived(bulk, fetched)) {
                    Ok(()) => self.go_on_preparing(),
                    Err(why) => self.cannot(&run, why),
                }
            }
        }
    }

    // ---- Runs ------------------------------------------------------------------------------

    /// A run wants machines.
    fn opened(&mut self, open: Open, input: &[u8]) {
        if let Some(why) = self.refused.get(&open.run) {
            // Its coordinator may not have heard that yet.
            let why = why.clone();
            return self.send_to(&open.run, &Up::Cannot { why }, &[]);
        }
        let can_change = match &self.doing {
            Doing::Nothing => true,
            Doing::Preparing(_) => false,
            Doing::Serving(serving) => {
                let is_idle = !serving.has_calls() && serving.member.is_done();
                let is_other = serving.open.run != open.run;
                is_other && open.is_hungry && is_idle && serving.idle_since.elapsed() >= STAYS
            }
        };
        if !can_change || self.leave.is_some() || !self.is_free() {
            return;
        }
        self.stop_serving();
        log::info!("serving the run {}", open.about);
        let run = open.run.clone();
        match Preparing::new(open, input.to_vec(), &self.own, &self.name) {
            Ok(preparing) => {
                self.doing = Doing::Preparing(Box::new(preparing));
                self.go_on_preparing();
            }
            Err(why) => self.cannot_serve(&run, why),
        }
    }

    fn go_on_preparing(&mut self) {
        let Doing::Preparing(preparing) = &mut self.doing else {
            return;
        };
        let missing: Vec<Bulk> = preparing.missing().collect();
        if !missing.is_empty() {
            return self.fetch(missing.into_iter().map(|bulk| (bulk, None)).collect());
        }
        if !preparing.is_building {
            let run = preparing.open.run.clone();
            if let Err(why) = preparing.build(self.slots, self.life.mark(), self.to.clone()) {
                self.cannot(&run, why);
            }
        }
    }

    fn fetch(&mut self, bulks: Vec<(Bulk, Option<NamedTempFile>)>) {
        for (bulk, place) in bulks {
            // All comes from the coordinator.
            let begun = match place {
                None => self.fetching.begin(bulk, "", boot_time()),
                Some(file) => {
                    let into = Fetched::Named(file);
                    Ok(self.fetching.begin_into(bulk, "", into, boot_time()))
                }
            };
            match begun {
                Ok(wants) => self.want(wants),
                Err(error) => log::warn!("something large can't be kept here: {error}"),
            }
        }
    }

    fn want(&self, wants: Vec<Want>) {
        for want in wants {
            self.send(&Up::Want(want), &[]);
        }
    }

    fn built(&mut self, run: &str, built: Result<Arc<Pool>, PoolError>) {
        let Doing::Preparing(preparing) = &self.doing else {
            return;
        };
        if preparing.open.run != run {
            return;
        }
        let tasks = built.and_then(|pool| Ok((pool.tasks()?, pool)));
        let (tasks, pool) = match tasks {
            Ok(built) => built,
            Err(error) => return self.cannot(run, preparing::why(&error)),
        };
        let Doing::Preparing(preparing) = &mut self.doing else {
            return;
        };
        let about = About {
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            home: self.life.home,
            tasks: tasks.to_vec(),
        };
        let open = preparing.open.clone();
        let (lease, grace) = (
            Duration::from_nanos(open.lease),
            Duration::from_nanos(open.grace),
        );
        let member = Member::new(about, self.epoch, lease, grace, boot_time());
        self.unheard_since = None;
        let files = preparing.files.take();
        let serving = Serving::new(open, pool, member, files, self.to.clone());
        self.doing = Doing::Serving(Box::new(serving));
        self.look_around();
    }

    /// This agent can't serve the run that it has to do with.
    fn cannot(&mut self, run: &str, why: String) {
        self.cannot_serve(run, why);
        self.stop_serving();
    }

    fn cannot_serve(&mut self, run: &str, why: String) {
        match self.service.way {
            Way::Broker(_) => log::warn!("a run can't be served: {why}"),
            // Its stderr is the coordinator's, who is told below.
            Way::Stdio => log::info!("a run can't be served: {why}"),
        }
        if self.refused.len() >= MOST_REFUSED {
            self.refused.pop_first();
        }
        self.refused.insert(run.to_owned(), why.clone());
        self.send_to(run, &Up::Cannot { why }, &[]);
    }

    /// The run is over.
    fn ended(&mut self) {
        log::info!("the run is over");
        self.stop_serving();
        self.is_over = matches!(self.service.way, Way::Stdio);
    }

    /// Ends what runs of a run, and forgets it. What is told of it afterwards is of nobody.
    fn stop_serving(&mut self) {
        if let Doing::Serving(serving) = &self.doing {
            let leave = serving.member.leave();
            self.epoch = serving.member.epoch() + 1;
            // Returns when all is dead. The kernel's timer stays set meanwhile.
            serving.pool.terminate();
            self.send(&leave, &[]);
        }
        self.doing = Doing::Nothing;
        self.fetching = Fetching::default();
        self.unheard_since = None;
    }

    // ---- Leaving ---------------------------------------------------------------------------

    fn leaves(&mut self, leave: Leave) {
        self.leave = Some(leave);
        if let Doing::Serving(serving) = &mut self.doing {
            serving.member.takes_none(true);
            let letters = serving.take_back_all(leave == Leave::Now);
            self.send_all(letters);
        }
    }

    /// Whether nothing is left to do or to say.
    fn has_left(&mut self) -> bool {
        match &self.doing {
            Doing::Nothing | Doing::Preparing(_) => true,
            Doing::Serving(serving) => {
                let is_gone = !serving.member.is_working() && !serving.has_calls();
                let is_done = serving.member.is_done() && !serving.has_calls();
                if is_done || is_gone {
                    self.stop_serving();
                    return true;
                }
                false
            }
        }
    }

    // ---- Sending ---------------------------------------------------------------------------

    fn answer(&mut self, answer: Answer) {
        self.send_all(answer.letters);
        self.fetch(answer.fetch);
        if let (Some(why), Some(run)) = (answer.cannot, self.current_run().map(str::to_owned)) {
            self.cannot(&run, why);
        }
        if let Some(why) = answer.refused {
            self.failure = Some(PoolError::System(why));
        }
    }

    fn send_all(&self, letters: Vec<Letter>) {
        for letter in letters {
            self.send(&letter.up, &letter.payload);
        }
    }

    fn send(&self, up: &Up, payload: &[u8]) {
        if let Some(run) = self.current_run() {
            self.send_to(run, up, payload);
        }
    }

    fn send_to(&self, run: &str, up: &Up, payload: &[u8]) {
        let subject = subjects::up(run, &self.name);
        match agent::encode(up, payload) {
            // If it is lost, it is sent again.
            Ok(bytes) => _ = self.broker.ask(&subject, bytes),
            Err(error) => log::error!("a message can't be sent: {error}"),
        }
    }

    /// Says what this agent is doing to whoever asks.
    fn show(&self, reply: &str) {
        let (busy, run) = match &self.doing {
            Doing::Serving(serving) => {
                let seconds = serving.since.elapsed().as_secs();
                let run = (short(&serving.open.about), seconds);
                (serving.pool.stats().running, Some(run))
            }
            Doing::Preparing(preparing) => (0, Some((short(&preparing.open.about), 0))),
            Doing::Nothing => (0, None),
        };
        let presence = Presence {
            name: self.name.clone(),
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            busy: u32::try_from(busy).unwrap_or(u32::MAX),
            run,
            load: load(),
            version: format!("{} {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH),
        };
        if let Ok(bytes) = agent::encode(&presence, &[]) {
            self.broker.publish(reply, bytes);
        }
    }
}

/// What a run is about, as far as it is shown to others.
fn short(about: &str) -> String {
    about.chars().take(MOST_SHOWN).collect()
}

/// The load of this machine over the last minute; 0 if nobody knows.
fn load() -> f32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split(' ').next().and_then(|load| load.parse().ok());
    load.unwrap_or(0.0)
}

/// How much memory is free, in bytes, if that can be read.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}
