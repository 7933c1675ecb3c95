//! What a broker does not let its user do, and how that is told.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;

use super::subjects;

/// How many different refusals are told. What is tried again is refused again, and a broker may say anything.
const MOST: usize = 100;

/// What a broker did not allow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// To publish on this subject.
    Publish(String),
    /// To subscribe to this subject.
    Subscribe(String),
    /// Something else, in the broker's words.
    Other(String),
}

impl Refusal {
    /// Reads what the broker said: `Permissions Violation for Publish to "co.main.call"`.
    pub(crate) fn read(said: &str) -> Self {
        let subject = said.split('"').nth(1).map(str::to_owned);
        let lower = said.to_lowercase();
        match subject {
            Some(subject) if lower.contains("violation for publish to") => {
                Refusal::Publish(subject)
            }
            Some(subject) if lower.contains("violation for subscription to") => {
                Refusal::Subscribe(subject)
            }
            _ => Refusal::Other(said.to_owned()),
        }
    }

    fn published(&self) -> Option<String> {
        match self {
            Refusal::Publish(subject) => Some(subjects::of_any_run(subject)),
            _ => None,
        }
    }

    fn subscribed(&self) -> Option<String> {
        match self {
            Refusal::Subscribe(subject) => Some(subjects::of_any_run(subject)),
            _ => None,
        }
    }

    fn other(&self) -> Option<String> {
        match self {
            Refusal::Other(said) => Some(said.clone()),
            _ => None,
        }
    }

    /// Whether nothing can be done without that. An answer that can't be sent harms only whoever has asked.
    fn is_needed(&self) -> bool {
        match self {
            Refusal::Publish(subject) | Refusal::Subscribe(subject) => {
                subjects::is_of_pool(subject)
            }
            Refusal::Other(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Publish(subject) => write!(f, "it may not publish on {subject}"),
            Refusal::Subscribe(subject) => write!(f, "it may not subscribe to {subject}"),
            Refusal::Other(said) => f.write_str(said),
        }
    }
}

/// Refusals that came one by one, and are told together, each once.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    known: BTreeSet<Refusal>,
    untold: Vec<Refusal>,
}

/// What there is to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Nothing can be done without what is missing.
    pub(crate) is_needed: bool,
    /// What is missing, for people.
    pub(crate) what: String,
}

impl Refusals {
    pub(crate) fn add(&mut self, refusal: Refusal) {
        if self.known.len() < MOST && self.known.insert(refusal.clone()) {
            self.untold.push(refusal);
        }
    }

    /// What was added since the last time.
    pub(crate) fn take(&mut self) -> Option<Told> {
        let untold = mem::take(&mut self.untold);
        let mut parts = Vec::new();
        let mut add = |before: &str, subjects: Vec<String>| match subjects.is_empty() {
            true => {}
            false => parts.push(format!("{before}{}", subjects.join(", "))),
        };
        add(
            "it may not publish on ",
            untold.iter().filter_map(Refusal::published).collect(),
        );
        add(
            "it may not subscribe to ",
            untold.iter().filter_map(Refusal::subscribed).collect(),
        );
        add("", untold.iter().filter_map(Refusal::other).collect());
        (!parts.is_empty()).then(|| Told {
            is_needed: untold.iter().any(Refusal::is_needed),
            what: parts.join("; "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_says_is_read() {
        let of = |said| Refusal::read(said);
        assert_eq!(
            of("nats: Permissions Violation for Publish to \"co.main.call\""),
            Refusal::Publish("co.main.call".to_owned())
        );
        assert_eq!(
            of("nats: Permissions Violation for Subscription to \"co.main.run.*.all\""),
            Refusal::Subscribe("co.main.run.*.all".to_owned())
        );
        for said in ["", "\"", "nats: maximum connections exceeded"] {
            assert_eq!(of(said), Refusal::Other(said.to_owned()));
        }
    }

    #[test]
    fn a_refusal_is_told_once_with_those_beside_it() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.take(), None);
        for _ in 0..3 {
            refusals.add(Refusal::Publish("_INBOX_x.1".to_owned()));
        }
        let told = refusals.take().map(|told| (told.is_needed, told.what));
        let what = "it may not publish on _INBOX_x.1".to_owned();
        assert_eq!(told, Some((false, what)));
        refusals.add(Refusal::Publish("_INBOX_x.1".to_owned()));
        assert_eq!(refusals.take(), None);
        refusals.add(Refusal::Publish("co.main.call".to_owned()));
        refusals.add(Refusal::Subscribe("co.main.run.1.up.*".to_owned()));
        let told = refusals.take().map(|told| (told.is_needed, told.what));
        let what = "it may not publish on co.main.call; it may not subscribe to co.main.run.*.up.*";
        assert_eq!(told, Some((true, what.to_owned())));
        for number in 0..2 * MOST {
            refusals.add(Refusal::Other(number.to_string()));
        }
        assert!(refusals.known.len() <= MOST);
    }
}
