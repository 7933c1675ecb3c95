//! A client that sends what it likes, as somebody would who has stolen a key.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{Receiver, channel};

use async_nats::{Client, ConnectError, ConnectOptions, Event, ServerError, Subscriber};
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::programs::{Broker, SOON};

pub(crate) struct Raw {
    runtime: Runtime,
    client: Client,
    events: Receiver<Event>,
}

/// The seed in a key's file.
pub(crate) fn seed(broker: &Broker, user: &str) -> String {
    let text = fs::read_to_string(broker.key(user)).unwrap();
    let mut lines = text.lines();
    lines
        .find(|line| line.starts_with("SU"))
        .unwrap()
        .to_owned()
}

impl Raw {
    /// Somebody with the key of this user.
    pub(crate) fn with_key_of(broker: &Broker, user: &str) -> Self {
        let options = ConnectOptions::with_nkey(seed(broker, user));
        Self::connect(broker, options).unwrap()
    }

    /// Somebody who knows the broker's certificate, and has this to show.
    pub(crate) fn connect(broker: &Broker, options: ConnectOptions) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (to, events) = channel();
        let options = options
            .add_root_certificates(broker.key("submit"))
            .event_callback(move |event| {
                let _ = to.send(event);
                async {}
            });
        let client = runtime.block_on(options.connect(broker.url()))?;
        Ok(Raw {
            runtime,
            client,
            events,
        })
    }

    pub(crate) fn publish(&self, subject: &str, payload: &[u8]) {
        let published = self
            .client
            .publish(subject.to_owned(), payload.to_vec().into());
        self.runtime.block_on(published).unwrap();
        self.runtime.block_on(self.client.flush()).unwrap();
    }

    pub(crate) fn subscribe(&self, subject: &str) -> Subscriber {
        let subscribed = self.client.subscribe(subject.to_owned());
        self.runtime.block_on(subscribed).unwrap()
    }

    /// The next message.
    pub(crate) fn next(&self, subscriber: &mut Subscriber) -> async_nats::Message {
        let next = async { timeout(SOON, subscriber.next()).await };
        self.runtime.block_on(next).unwrap().unwrap()
    }

    /// Tries to publish on these subjects. Returns those that were refused.
    pub(crate) fn refused_to_publish(&self, subjects: &[&str]) -> BTreeSet<String> {
        for subject in subjects {
            self.publish(subject, b"");
        }
        self.refused()
    }

    /// Tries to subscribe to these subjects. Returns those that were refused.
    pub(crate) fn refused_to_subscribe(&self, subjects: &[&str]) -> BTreeSet<String> {
        let subscribed: Vec<_> = subjects
            .iter()
            .map(|subject| self.subscribe(subject))
            .collect();
        let refused = self.refused();
        drop(subscribed);
        refused
    }

    /// What was refused so far. The broker answers in order, so a subject that nobody may use tells when it has heard all.
    fn refused(&self) -> BTreeSet<String> {
        self.publish("nobody.may", b"");
        let mut refused = BTreeSet::new();
        loop {
            let event = self.events.recv_timeout(SOON).unwrap();
            let Event::ServerError(ServerError::Other(said)) = event else {
                continue;
            };
            let subject = said.split('"').nth(1).unwrap();
            if subject == "nobody.may" {
                return refused;
            }
            refused.insert(subject.to_owned());
        }
    }
}
