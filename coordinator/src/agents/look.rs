//! Who waits at a broker, and what each does.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use protocol::agent;

use super::access::{self, Agents, Way};
use super::broker::{self, Access, Broker, Event};
use super::rights::Refusal;
use super::subjects;
use crate::error::PoolError;

/// How long the broker may take to let one in.
const CONNECT: Duration = Duration::from_secs(5);
/// How many answers are taken. Whoever has an agent's key may send any number of them.
const MOST: usize = 10_000;
/// How many bytes an answer may have, and how many characters each text in it.
const MOST_BYTES: usize = 64 << 10;
const MOST_CHARS: usize = 1000;

/// An agent, as it was when it was asked.
///
/// ```no_run
/// # use std::time::Duration;
/// # use coordinator::Agents;
/// for agent in Agents::at("tls://hub").key("look.key").look(Duration::from_secs(1))? {
///     println!("{}: {} of {} slots are busy", agent.name, agent.busy, agent.slots);
/// }
/// # Ok::<(), coordinator::PoolError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Presence {
    /// Its name. Nothing keeps two machines from having the same.
    pub name: String,
    /// How many calls it can run at once.
    pub slots: u32,
    /// How many it runs.
    pub busy: u32,
    /// The run that it serves.
    pub run: Option<ServedRun>,
    /// The load of its machine, over the last minute.
    pub load: f32,
    /// Its version and architecture.
    pub version: String,
    /// The name of that run.
    serves: Option<String>,
}

impl Presence {
    /// Whether it serves a run of this name.
    pub(super) fn serves(&self, run: &str) -> bool {
        self.serves.as_deref() == Some(run)
    }
}

/// A run that an agent serves.
///
/// See [`Presence`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedRun {
    /// Whose it is, and what it does.
    pub about: String,
    /// For how long the agent has served it.
    pub since: Duration,
}

impl Agents {
    /// Asks all agents at the broker what they do, and gathers their answers for so long. Nobody knows how many agents there
    /// are, so it takes all of that time, unless there are none.
    ///
    /// # Errors
    ///
    /// The broker does not answer, does not let this user in or ask, or is not to be trusted.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use coordinator::Agents;
    /// let agents = Agents::at("tls://hub").key("look.key").look(Duration::from_secs(1))?;
    /// println!("{} slots", agents.iter().map(|agent| agent.slots).sum::<u32>());
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn look(&self, limit: Duration) -> Result<Vec<Presence>, PoolError> {
        let Way::Broker { url, key, insecure } = &self.way else {
            let why = "only agents that wait at a broker can be asked: use Agents::at";
            return Err(PoolError::Setting(why.to_owned()));
        };
        let access = access::access(url, key.as_deref(), *insecure, "look")?;
        let url = access.url.clone();
        let (broker, events) = connect(access)?;
        wait_for_broker(&events, &url)?;
        if !broker.ask(&subjects::agents(), Vec::new()) {
            return Err(is_gone(&url));
        }
        gather(&events, limit, &url)
    }
}

pub(super) fn connect(access: Access) -> Result<(Broker, Receiver<Event>), PoolError> {
    let (to, events) = channel();
    let broker = Broker::connect(access, Vec::new(), move |event| {
        // Whoever has seen enough hears nothing.
        let _ = to.send(event);
    });
    let failed = |error| PoolError::System(format!("there is no connection to a broker: {error}"));
    Ok((broker.map_err(failed)?, events))
}

fn wait_for_broker(events: &Receiver<Event>, url: &str) -> Result<(), PoolError> {
    let until = Instant::now() + CONNECT;
    loop {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Connected) => return Ok(()),
            Ok(Event::Ended(why)) => return Err(PoolError::System(why)),
            Ok(_) => {}
            Err(_) => {
                return Err(PoolError::System(broker::silence(url)));
            }
        }
    }
}

/// The answers that come in so long.
fn gather(
    events: &Receiver<Event>,
    limit: Duration,
    url: &str,
) -> Result<Vec<Presence>, PoolError> {
    let mut agents = Vec::new();
    let until = Instant::now() + limit;
    while agents.len() < MOST {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Message { payload, .. }) => agents.extend(read(&payload)),
            Ok(Event::Refused(refusal)) if stands_in_the_way(&refusal) => {
                return Err(PoolError::System(format!(
                    "the broker {url} does not let this user look at agents: {refusal}; use look.key or submit.key"
                )));
            }
            Ok(Event::Ended(why)) => return Err(PoolError::System(why)),
            Ok(Event::NobodyTakes) | Err(RecvTimeoutError::Timeout) => break,
            Ok(Event::Disconnected) | Err(RecvTimeoutError::Disconnected) => {
                return Err(is_gone(url));
            }
            Ok(Event::Connected | Event::Refused(_)) => {}
        }
    }
    Ok(agents)
}

/// Whether a refusal means that no answer can come.
fn stands_in_the_way(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Publish(_) | Refusal::Subscribe(_))
}

fn is_gone(url: &str) -> PoolError {
    PoolError::System(format!(
        "the connection to the broker {url} was lost: try again"
    ))
}

/// What an agent says. Nobody has to answer what makes sense.
pub(super) fn read(bytes: &[u8]) -> Option<Presence> {
    let bytes = (bytes.len() <= MOST_BYTES).then_some(bytes)?;
    let (said, _) = agent::decode::<agent::Presence>(bytes)
        .inspect_err(|why| log::debug!("an answer can't be read: {why:?}"))
        .ok()?;
    let short = |text: String| text.chars().take(MOST_CHARS).collect();
    Some(Presence {
        name: short(said.name),
        slots: said.slots,
        busy: said.busy,
        run: said.run.map(|(about, seconds)| ServedRun {
            about: short(about),
            since: Duration::from_secs(seconds),
        }),
        load: said.load,
        version: short(said.version),
        serves: said.serves.map(short),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn said(name: String) -> Vec<u8> {
        let presence = agent::Presence {
            name,
            slots: 8,
            busy: 2,
            run: Some(("ann: exec ./convert {}".to_owned(), 720)),
            load: 1.5,
            version: "0.1.0 x86_64".to_owned(),
            serves: Some("r".to_owned()),
        };
        agent::encode(&presence, &[]).unwrap()
    }

    #[test]
    fn answers_are_read_and_kept_short() {
        let agent = read(&said("n".to_owned())).unwrap();
        assert_eq!((agent.name.as_str(), agent.slots, agent.busy), ("n", 8, 2));
        assert_eq!(agent.run.unwrap().since, Duration::from_secs(720));
        let long = read(&said("n".repeat(50_000))).unwrap();
        assert_eq!(long.name.len(), MOST_CHARS);
        assert_eq!(read(&said("n".repeat(MOST_BYTES))), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(b"\x01\x00\xff\xff\xff\xff"), None);
    }

    #[test]
    fn nobody_is_no_error_and_answers_are_bounded() {
        let (to, events) = channel();
        to.send(Event::NobodyTakes).unwrap();
        let nobody = gather(&events, Duration::from_secs(60), "here").unwrap();
        assert_eq!(nobody, []);
        for _ in 0..=MOST {
            let message = Event::Message {
                subject: String::new(),
                payload: said("n".to_owned()),
                reply: None,
            };
            to.send(message).unwrap();
        }
        let many = gather(&events, Duration::from_secs(60), "here").unwrap();
        assert_eq!(many.len(), MOST);
        to.send(Event::Refused(Refusal::Publish(
            "co.main.agents".to_owned(),
        )))
        .unwrap();
        let error = gather(&events, Duration::from_secs(60), "here").unwrap_err();
        assert!(error.to_string().contains("publish on co.main.agents"));
    }
}
