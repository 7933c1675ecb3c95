//! An agent, as a program that lends its machine sees it: its settings, and how it comes to its broker.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::event::Event;
use super::identity::{Identity, Leave};
use super::life::Life;
use super::machine::Lends;
use super::pipe::Pipe;
use super::steward::Steward;
use crate::agents::access::Way as Reached;
use crate::agents::access::{self, Agents};
use crate::agents::subjects;
use crate::error::PoolError;
use crate::pool::available_workers;

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
    lends: Lends,
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
            lends: Lends::default(),
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
        self.lends.max_load = Some(load);
        self
    }

    /// It takes no further calls while its machine has less free memory than this, in bytes.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Service};
    /// let service = Service::new(Agents::at("tls://hub").key("agent.key")).min_free_memory(4 << 30);
    /// ```
    pub fn min_free_memory(mut self, bytes: u64) -> Self {
        self.lends.min_free_memory = Some(bytes);
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
        Steward::new(identity, self.lends, to, events)?.run(told)
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
            is_for_one_run: false,
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
            is_for_one_run: true,
        })
    }
}

/// How an agent comes to its broker.
#[derive(Debug)]
enum Way {
    Broker(Agents),
    Stdio,
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
