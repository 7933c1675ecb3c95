//! What the desk hears: from the broker, from agents, and from machines that are reached by ssh.

use std::time::Instant;

use protocol::agent::{self, Report, Up};

use super::{Desk, MOST_NAME, MOST_NAMES, give_up};
use crate::agents::access::Reach;
use crate::agents::broker::Event as Heard;
use crate::agents::bulk::Fetched;
use crate::agents::fleet::Deed;
use crate::agents::ssh::crew::Told;
use crate::agents::subjects;
use crate::os::boot_time;

impl Desk {
    // ---- The broker ------------------------------------------------------------------------

    pub(super) fn hear(&mut self, event: Heard) {
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

    pub(super) fn hear_agent(&mut self, from: &str, bytes: &[u8]) {
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
            Up::Piece(want) => self.take_piece(from, want, payload),
            Up::Gone { epoch, bulk, why } if self.fleet.is_in(from, epoch) => {
                self.is_gone(from, bulk, why);
            }
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
    pub(super) fn may_be_heard(&mut self, name: &str) -> bool {
        let is_new = !self.names.contains(name);
        if is_new && (self.names.len() >= MOST_NAMES || name.len() > MOST_NAME) {
            return false;
        }
        if is_new {
            self.names.insert(name.to_owned());
        }
        true
    }

    pub(super) fn hear_up(&mut self, from: &str, up: Up) {
        let deeds = self.fleet.hear(from, up, boot_time());
        self.do_all(deeds);
    }

    /// A report whose payload is here.
    pub(super) fn hear_report(&mut self, from: &str, report: Report, payload: Fetched) {
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
    pub(super) fn turn_away(&mut self, name: &str, why: &str) {
        self.turned_away.insert(name.to_owned());
        self.ledger
            .note(format!("{name} is not heard any more: {why}"));
        self.forget_awaited(name);
        self.is_out(name.to_owned(), why.to_owned());
    }

    // ---- Machines reached by ssh -----------------------------------------------------------

    pub(super) fn hear_machine(&mut self, told: Told) {
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
    pub(super) fn is_out(&mut self, name: String, why: String) {
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
}
