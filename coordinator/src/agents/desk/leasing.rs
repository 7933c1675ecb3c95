//! How an agent gets a lease, with what goes along with its calls.

use std::io;
use std::sync::Arc;
use std::thread;

use protocol::agent::{self, Bulk, Carried, Lease};

use super::{Desk, Event, Out, give_up};
use crate::agents::bulk::Content as _;
use crate::agents::carriage::fits;
use crate::agents::ledger::Given;
use crate::agents::measure::{self, Measured};
use crate::os::boot_time;
use crate::scheduler::{AgentId, LeaseId};

impl Desk {
    /// An agent has room for a lease.
    pub(super) fn lease(&mut self, agent: AgentId, most: u32) {
        if self.measuring.contains(&agent) {
            return;
        }
        let Some(given) = self.ledger.lease(agent, most) else {
            return;
        };
        if !measure::has_files(&given.inputs) {
            return self.give(agent, given);
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
    pub(super) fn measured(&mut self, agent: AgentId, mut given: Given, measured: Measured) {
        self.measuring.remove(&agent);
        let Measured {
            files,
            contents,
            failed,
        } = measured;
        if self.ledger.is_open(given.id) {
            match failed.is_empty() {
                true => {
                    for (bulk, content) in contents {
                        self.store.offer_as(bulk, content);
                    }
                    given.lease.files = files;
                    self.give_wanted(agent, given);
                }
                // The calls whose files can be read wait for the next lease.
                false => self.ledger.cannot_send(&given.lease, failed),
            }
        }
        let offers = self.fleet.offer();
        self.do_all(offers);
    }

    /// Gives an agent a lease, but for those of its calls that were wanted back meanwhile: it has heard nothing of them.
    fn give_wanted(&mut self, agent: AgentId, mut given: Given) {
        let from = self.ledger.recalled_from(given.id);
        let keep = from.map(|from| from.saturating_sub(given.lease.first));
        if let Some(keep) = keep {
            self.take_back(&mut given, keep);
        }
        if keep != Some(0) {
            self.give(agent, given);
        }
    }

    /// Gives an agent a lease. What goes along with its calls can be asked for already.
    fn give(&mut self, agent: AgentId, mut given: Given) {
        loop {
            if let Err(error) = self.carry(&mut given) {
                return self.cannot_carry(&given.lease, &error.to_string());
            }
            if is_one_message(&given) {
                break;
            }
            // Many small inputs have many lengths, and files have names.
            match given.lease.lens.count() {
                0 | 1 => return self.cannot_carry(&given.lease, "its files have too many names"),
                count => self.take_back(&mut given, count / 2),
            }
        }
        let Given { id, lease, inputs } = given;
        let out = Out {
            inputs,
            offered: offered(&lease).collect(),
            files: lease.files.clone(),
        };
        self.out.insert(id, out);
        let calls = lease.first..lease.first + lease.lens.count();
        match self.fleet.leased(agent, lease, boot_time()) {
            Some(deed) => self.do_all(vec![deed]),
            None => self.ledger.returned(id, vec![calls]),
        }
    }

    /// Takes care that an agent can get the inputs of a lease.
    fn carry(&mut self, given: &mut Given) -> io::Result<()> {
        let inputs = &given.inputs;
        let kept = inputs.0.iter().flat_map(|part| part.inputs.kept());
        for kept in worker::private::Given::default().add(kept) {
            let shared = self.values.share(&mut self.store, kept)?;
            given.lease.shared.push(shared);
        }
        if !fits(inputs.len()) {
            let bulk = self.store.offer(Arc::clone(inputs) as Arc<_>)?;
            given.lease.inputs = Carried::Apart(bulk);
        }
        Ok(())
    }

    /// Keeps so many calls of a lease of which its agent has heard nothing, and gives the others back.
    fn take_back(&mut self, given: &mut Given, keep: u64) {
        let files = self.ledger.take_back(given, keep);
        let sent = files.iter().flat_map(|files| &files.send);
        sent.for_each(|sent| self.store.withdraw(&sent.bulk));
        // What the others need is found anew.
        let shared = std::mem::take(&mut given.lease.shared);
        shared
            .iter()
            .for_each(|value| self.store.withdraw(&value.bulk));
        if let Carried::Apart(bulk) = std::mem::replace(&mut given.lease.inputs, Carried::Here) {
            self.store.withdraw(&bulk);
        }
    }

    /// A lease can't be given to anybody.
    fn cannot_carry(&mut self, lease: &Lease, why: &str) {
        offered(lease).for_each(|bulk| self.store.withdraw(&bulk));
        self.ledger.cannot_carry(lease, why);
    }

    /// A lease is over: nobody can ask for its inputs any more.
    pub(super) fn put_away(&mut self, lease: LeaseId) {
        if let Some(out) = self.out.remove(&lease) {
            out.offered
                .iter()
                .for_each(|bulk| self.store.withdraw(bulk));
        }
    }
}

/// What can be asked for as long as a lease is out.
fn offered(lease: &Lease) -> impl Iterator<Item = Bulk> {
    let inputs = match lease.inputs {
        Carried::Apart(bulk) => Some(bulk),
        Carried::Here => None,
    };
    let shared = lease.shared.iter().map(|value| value.bulk);
    let sent = lease.files.iter().flat_map(|files| &files.send);
    let sent = sent.map(|sent| sent.bulk);
    inputs.into_iter().chain(shared).chain(sent)
}

/// Whether a lease, with the inputs that go along with it, is one message.
fn is_one_message(given: &Given) -> bool {
    let here = match given.lease.inputs {
        Carried::Here => given.inputs.len(),
        Carried::Apart(_) => 0,
    };
    agent::fits(&given.lease, here)
}
