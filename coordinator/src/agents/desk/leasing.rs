//! How an agent gets a lease, with what goes along with its calls.

use std::io;
use std::sync::Arc;
use std::thread;

use protocol::agent::{self, Carried, SharedValue};

use super::{Desk, Event, Out, give_up};
use crate::agents::bulk::Content as _;
use crate::agents::carriage::{Inputs, fits};
use crate::agents::ledger::Given;
use crate::agents::measure::{self, Measured};
use crate::agents::opening;
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
    pub(super) fn measured(&mut self, agent: AgentId, given: Given, measured: Measured) {
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
    pub(super) fn give(&mut self, agent: AgentId, given: Given, files: Vec<agent::Files>) {
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

    /// Takes care that an agent can get the inputs of a lease.
    pub(super) fn carry(
        &mut self,
        lease: LeaseId,
        inputs: Inputs,
        files: Vec<agent::Files>,
    ) -> io::Result<(Carried, Vec<SharedValue>)> {
        let kept = inputs.0.iter().flat_map(|part| part.inputs.kept());
        let all = worker::private::Given::default().add(kept);
        let shared = all.iter().map(|kept| opening::share(&mut self.store, kept));
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
    pub(super) fn put_away(&mut self, lease: LeaseId) {
        if let Some(out) = self.out.remove(&lease) {
            let shared = out.shared.iter().map(|value| &value.bulk);
            let sent = out.files.iter().flat_map(|files| &files.send);
            let sent = sent.map(|sent| &sent.bulk);
            for bulk in out.bulk.iter().chain(shared).chain(sent) {
                self.store.withdraw(bulk);
            }
        }
    }
}
