//! The machines of a run that are reached by ssh, from its beginning to its end.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::hello::Hello;
use super::hosts::Host;
use super::remote::{Program, Remote};
use super::server::{self, Server};
use crate::agents::broker::Access;

/// How many machines are being started at a time.
const STARTING: usize = 16;
/// How soon a machine is tried again whose connection has ended, counted from when it was tried last, and at least.
const AGAIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// How long nothing must have been carried until all is taken to have arrived, and how often that is looked for.
const QUIET: Duration = Duration::from_millis(50);
const LOOKS: u32 = 10;
/// How long agents have to end when the run is over.
const END: Duration = Duration::from_secs(1);

/// What a run has to know to reach machines by ssh.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) hosts: Vec<Host>,
    /// The program that runs there.
    program: Arc<File>,
    server: PathBuf,
}

impl Plan {
    /// Looks for what is needed on this machine. An error says what is missing.
    pub(crate) fn new(hosts: Vec<Host>, program: File) -> Result<Self, String> {
        Ok(Plan {
            hosts,
            program: Arc::new(program),
            server: server::find()?,
        })
    }
}

/// What a crew tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// A line for people.
    News(String),
    /// A machine does not take part, or no longer, and is not tried again: its name, and why.
    Out { name: String, why: String },
    /// The broker has ended.
    BrokerEnded,
}

/// The machines of a run. Dropping it ends all that runs for them here, and has agents end there.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    server: Server,
    program: Program,
    /// How long ssh may hear nothing.
    patience: Duration,
    state: Mutex<State>,
    /// A machine has been started, or has ended, or all is to end.
    changed: Condvar,
    tell: Box<dyn Fn(Told) + Send + Sync>,
}

#[derive(Default)]
struct State {
    is_closing: bool,
    /// How many are being started.
    starting: usize,
    remotes: Vec<Arc<Remote>>,
    has_told_of_broker: bool,
}

impl Crew {
    /// Starts a broker, and begins to start agents.
    pub(crate) fn start(
        plan: &Plan,
        patience: Duration,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            program: Program::new(plan.program.try_clone()?)?,
            server: Server::start(&plan.server)?,
            patience,
            state: Mutex::default(),
            changed: Condvar::new(),
            tell: Box::new(tell),
        });
        let mut crew = Crew {
            shared,
            threads: Vec::new(),
        };
        for host in &plan.hosts {
            let (shared, host) = (Arc::clone(&crew.shared), host.clone());
            let home = getrandom::u64()?;
            let thread = thread::Builder::new().name("ssh".to_owned());
            let thread = thread.spawn(move || attend(&shared, &host, home))?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// How this process comes to the broker.
    pub(crate) fn access(&self) -> Access {
        self.shared.server.access()
    }

    /// Waits until what the broker has for agents is on its way. This process carries it: what it has not carried when it stops
    /// waits until it goes on.
    pub(crate) fn settle(&self) {
        let carried = || -> u64 {
            let state = self.shared.state();
            state.remotes.iter().map(|remote| remote.carried()).sum()
        };
        let mut before = carried();
        for _ in 0..LOOKS {
            thread::sleep(QUIET);
            let now = carried();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// The run is about to be over: from now on it is no fault of an agent to end.
    pub(crate) fn will_end(&self) {
        self.shared.state().is_closing = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.will_end();
        let shared = &self.shared;
        let all = |state: &State| state.remotes.clone();
        for remote in all(&shared.state()) {
            remote.hang_up();
        }
        let are_there = |state: &mut State| !state.remotes.is_empty();
        let waited = shared
            .changed
            .wait_timeout_while(shared.state(), END, are_there);
        let left = match waited {
            Ok((state, _)) => all(&state),
            Err(error) => all(&error.into_inner().0),
        };
        for remote in left {
            remote.kill();
        }
        for thread in self.threads.drain(..) {
            // A panic of that thread was printed, and ends nothing else.
            let _ = thread.join();
        }
    }
}

/// How a machine's ssh has come to its end.
enum Ended {
    /// Its agent was never there: why.
    Never(String),
    /// Its agent was there: why it is not.
    Cut(String),
    /// Its agent has left of itself.
    Left,
}

/// Keeps a machine's agent going.
fn attend(shared: &Arc<Shared>, host: &Host, home: u64) {
    let name = &host.destination;
    let mut was_there = false;
    let mut said = String::new();
    for life in 1.. {
        let began = Instant::now();
        let Some(ended) = shared.run(host, home, life) else {
            return;
        };
        if shared.is_closing() {
            return;
        }
        if shared.has_no_broker() {
            return;
        }
        let news = match ended {
            Ended::Left => return shared.is_out(host, "its agent was told to leave"),
            Ended::Never(why) if !was_there => return shared.is_out(host, &why),
            Ended::Never(why) => format!("{name} can't be reached: {why}; trying again"),
            Ended::Cut(why) => {
                said.clear();
                format!("the connection to {name} has ended: {why}; trying again")
            }
        };
        was_there = true;
        // A machine that stays away says the same each time.
        if news != said {
            shared.note(news.clone());
            said = news;
        }
        let again = (began + AGAIN).max(Instant::now() + PAUSE);
        if !shared.wait_until(again) {
            return;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    fn note(&self, news: String) {
        (self.tell)(Told::News(news));
    }

    fn is_out(&self, host: &Host, why: &str) {
        let destination = &host.destination;
        self.note(format!("{destination} can't take part: {why}"));
        (self.tell)(Told::Out {
            name: host.name.clone(),
            why: why.to_owned(),
        });
    }

    /// Whether the broker has ended. Then no agent is of any use.
    fn has_no_broker(&self) -> bool {
        let has_ended = self.server.has_ended();
        if has_ended && !std::mem::replace(&mut self.state().has_told_of_broker, true) {
            (self.tell)(Told::BrokerEnded);
        }
        has_ended
    }

    /// Returns `false` if all is to end before.
    fn wait_until(&self, at: Instant) -> bool {
        let left = at.saturating_duration_since(Instant::now());
        let goes_on = |state: &mut State| !state.is_closing;
        let waited = self
            .changed
            .wait_timeout_while(self.state(), left, goes_on)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.0.is_closing
    }

    /// Runs a machine's agent until it ends, or nothing is to run any more: then `None`.
    fn run(self: &Arc<Self>, host: &Host, home: u64, life: u64) -> Option<Ended> {
        let place = Place::take(self)?;
        let hello = Hello {
            password: self.server.password().to_owned(),
            name: host.name.clone(),
            slots: host.slots,
            home,
            life,
        };
        let (theirs, name) = (Arc::clone(self), host.destination.clone());
        let tell = move |line: String| {
            // At the end of a run it is no news that connections end.
            if !theirs.is_closing() {
                theirs.note(format!("{name}: {line}"));
            }
        };
        let started = Remote::start(
            &host.destination,
            &self.program,
            self.patience,
            Box::new(tell),
        );
        let known = match started {
            Ok(remote) => Known::new(self, Arc::new(remote))?,
            Err(error) => return Some(Ended::Never(format!("ssh can't be started: {error}"))),
        };
        let begun = known.remote.begin(&self.program, &hello);
        drop(place);
        let first = match begun {
            Ok(first) => first,
            Err(why) => return Some(Ended::Never(why)),
        };
        let joined = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server.port()))
            .and_then(|broker| known.remote.join(broker, &first));
        Some(match joined {
            Err(error) => {
                known.remote.part(END);
                Ended::Cut(format!("the broker can't be reached: {error}"))
            }
            Ok(()) if known.remote.has_left(END) => Ended::Left,
            Ok(()) => {
                known.remote.kill();
                Ended::Cut(known.remote.why_ended())
            }
        })
    }
}

/// One of the few places of those that are being started.
struct Place<'s>(&'s Shared);

impl<'s> Place<'s> {
    /// Waits for one. `None` if nothing is to be started any more.
    fn take(shared: &'s Shared) -> Option<Self> {
        let is_full = |state: &mut State| state.starting >= STARTING && !state.is_closing;
        let mut state = shared
            .changed
            .wait_while(shared.state(), is_full)
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_closing {
            return None;
        }
        state.starting += 1;
        Some(Place(shared))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().starting -= 1;
        self.0.changed.notify_all();
    }
}

/// An ssh that is ended with all others.
struct Known<'s> {
    shared: &'s Shared,
    remote: Arc<Remote>,
}

impl<'s> Known<'s> {
    /// `None` if all is to end.
    fn new(shared: &'s Shared, remote: Arc<Remote>) -> Option<Self> {
        let mut state = shared.state();
        if state.is_closing {
            return None;
        }
        state.remotes.push(Arc::clone(&remote));
        drop(state);
        Some(Known { shared, remote })
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state
            .remotes
            .retain(|other| !Arc::ptr_eq(other, &self.remote));
        drop(state);
        self.shared.changed.notify_all();
    }
}
