//! The end of a run whose coordinator was killed, before another run takes up what it has left.
//!
//! Its agents find out by themselves that it is gone, but that takes some seconds, and an agent that is cut off may run its calls
//! until its lease is over. A run that resumes must not run the same calls meanwhile.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::{self, All};

use super::access::{self, Agents, LEASE, Way};
use super::broker::{Broker, Event};
use super::look;
use super::subjects;
use crate::error::PoolError;

/// How long answers are gathered each time.
const ROUND: Duration = Duration::from_millis(500);

/// A run that has ended, or whose coordinator was killed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerRun {
    /// What it was called: see [`Agents::run`].
    pub run: String,
    /// The agents that had joined it.
    pub agents: BTreeSet<String>,
}

impl Agents {
    /// What this run is called at the broker. Whoever knows the name can end what agents run of it, if its program was killed:
    /// see [`end_run`](Self::end_run). Default: a name that nobody can guess.
    ///
    /// ```no_run
    /// # use coordinator::Agents;
    /// let agents = Agents::at("tls://hub").key("submit.key").run("thumbnails-2026-11-28");
    /// ```
    pub fn run(mut self, name: impl AsRef<str>) -> Self {
        self.run = Some(subjects::as_name(name.as_ref()));
        self
    }

    /// Ends what agents still run of a run whose program was killed, and waits until all of them have said so. One that does not
    /// answer is waited for until its lease is over: then it has ended its calls. Returns those. `lease` is that run's; without one
    /// it is 15 s.
    ///
    /// # Errors
    ///
    /// The broker does not let this user in.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, FormerRun};
    /// let agents = Agents::at("tls://hub").key("submit.key");
    /// let former = FormerRun {
    ///     run: "thumbnails-2026-11-28".to_owned(),
    ///     agents: ["box2".to_owned()].into(),
    /// };
    /// agents.end_run(&former, None)?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn end_run(
        &self,
        former: &FormerRun,
        lease: Option<Duration>,
    ) -> Result<BTreeSet<String>, PoolError> {
        let lease = lease.unwrap_or(LEASE);
        let until = Instant::now() + lease + lease / 5;
        let mut silent = former.agents.clone();
        if let Way::Broker { url, key, insecure } = &self.way {
            let access = access::access(url, key.as_deref(), *insecure, "submit")?;
            let (broker, events) = look::connect(access)?;
            while !end_round(&broker, &events, former, &mut silent)? && Instant::now() < until {}
            if silent.is_empty() {
                return Ok(silent);
            }
        }
        // Over ssh nobody is left who could be asked: the broker has died with the run.
        thread::sleep(until.saturating_duration_since(Instant::now()));
        Ok(silent)
    }
}

/// Tells agents that the run is over, and asks them what they do. Returns whether nobody serves it, by the word of all that it had.
fn end_round(
    broker: &Broker,
    events: &Receiver<Event>,
    former: &FormerRun,
    silent: &mut BTreeSet<String>,
) -> Result<bool, PoolError> {
    if let Ok(end) = agent::encode(&All::End, &[]) {
        broker.publish(&subjects::all(&former.run), end);
    }
    let has_asked = broker.ask(&subjects::agents(), Vec::new());
    let until = Instant::now() + ROUND;
    let mut serves = BTreeSet::new();
    loop {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Message { payload, .. }) => {
                let Some(presence) = look::read(&payload) else {
                    continue;
                };
                match presence.serves(&former.run) {
                    true => _ = serves.insert(presence.name),
                    false => _ = silent.remove(&presence.name),
                }
            }
            Ok(Event::Ended(why)) => return Err(PoolError::System(why)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            // If nobody is there to answer, somebody may be in the next round.
            Ok(_) => {}
        }
    }
    silent.extend(serves);
    if !has_asked {
        // The broker is not there yet.
        thread::sleep(ROUND / 5);
    }
    Ok(has_asked && silent.is_empty())
}
