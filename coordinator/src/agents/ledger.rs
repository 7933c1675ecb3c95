//! What agents do to the pool's state: they join and go, take leases, and say what became of them. The desk speaks to them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{Carried, Files, Lease, MOST_PAYLOAD, Named, Report, What};
use protocol::message::TaskInfo;

use super::bulk::Fetched;
use super::carriage::{self, Inputs, MOST_CALLS, nanos};
use crate::engine::machines::{Agent, RemoteCall};
use crate::engine::running::RunningCall;
use crate::engine::shared::PoolShared;
use crate::error::Why;
use crate::payload::forward::Forwarder;
use crate::payload::printed::{Captured, Output, Printed};
use crate::payload::spool::Spool;
use crate::payload::{By, Payload, Trace};
use crate::scheduler::{AgentId, LeaseId, SlotId};

/// The pool's state, as far as agents change it.
pub(super) struct Ledger {
    shared: Arc<PoolShared>,
    /// What calls have printed that was much.
    spool: Spool,
}

/// Calls that were given to an agent. Where their inputs are is still to be said.
pub(crate) struct Given {
    pub(super) id: LeaseId,
    pub(super) lease: Lease,
    pub(super) inputs: Arc<Inputs>,
}

impl Given {
    /// Keeps so many of the calls, from the first on. Returns the files of the others.
    fn truncate(&mut self, count: u64) -> Vec<Files> {
        let mut left = count;
        let parts = self.inputs.0.iter().map(|part| {
            let mut part = part.clone();
            // No more than it had.
            part.count = left.min(part.count.into()) as u32;
            left -= u64::from(part.count);
            part
        });
        let parts = parts.filter(|part| part.count > 0).collect();
        self.inputs = Arc::new(Inputs(parts));
        let lens = self.lease.lens.iter();
        self.lease.lens = lens
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .collect();
        let end = self.lease.first + count;
        let at = self.lease.files.partition_point(|files| files.index < end);
        self.lease.files.split_off(at)
    }
}

impl Ledger {
    pub(super) fn new(shared: &Arc<PoolShared>) -> Self {
        Ledger {
            shared: Arc::clone(shared),
            spool: Spool::default(),
        }
    }

    /// Keeps a line for people.
    pub(super) fn note(&self, news: String) {
        log::debug!("{news}");
        self.shared.state().machines.note(news);
        self.shared.milestone();
    }

    /// An agent will take calls.
    pub(super) fn joins(&self, agent: AgentId, name: &str, slots: u32) {
        let name: Arc<str> = name.into();
        let now = self.shared.now();
        let news = format!("{name} joins with {}", count(slots, "slot"));
        self.shared.act(|state| {
            state.jobs.join(agent, slots);
            let joined = Agent {
                name,
                slots: slots as usize,
                busy: 0,
                // When it joined, until it is shown.
                since: now,
            };
            state.machines.agents.insert(agent, joined);
        });
        self.note(news);
    }

    /// The tasks of an agent's workers. All workers are of one program.
    pub(super) fn tasks_are(&self, tasks: &[TaskInfo]) {
        let mut state = self.shared.state();
        state.machines.tasks.get_or_insert_with(|| tasks.into());
    }

    /// An agent has left. What it was being given goes back, too, though it has heard nothing of it.
    pub(super) fn left(&self, agent: AgentId) {
        if let Some(name) = self.forget(agent) {
            self.note(format!("{name} has left"));
        }
        self.shared.act(|state| state.jobs.has_left(agent));
    }

    fn forget(&self, agent: AgentId) -> Option<Arc<str>> {
        let mut state = self.shared.state();
        state.machines.running.remove(&agent);
        let known = state.machines.agents.remove(&agent);
        known.map(|known| known.name)
    }

    /// An agent is lost, or has ended all that it held.
    pub(super) fn lost(&self, agent: AgentId, mut named: BTreeSet<(LeaseId, u64)>) {
        let known = self
            .shared
            .state()
            .machines
            .running
            .remove(&agent)
            .unwrap_or_default();
        let name = self.forget(agent);
        let trace = |lease: LeaseId, index: u64| {
            let mut calls = known.iter();
            let call = calls.find(|remote| remote.lease == lease && remote.call.index == index);
            let by = By {
                slot: SlotId(call.map_or(0, |remote| remote.call.slot.saturating_sub(1))),
                pid: call.map_or(0, |remote| remote.call.worker),
                machine: name.clone(),
            };
            let elapsed = call.map_or(Duration::ZERO, |remote| remote.call.elapsed);
            Trace::one(by, elapsed, Printed::default(), Payload::default())
        };
        let now = self.shared.now();
        let held = self.shared.act(|state| {
            let held = state.jobs.held_by(agent);
            named.retain(|(lease, index)| state.jobs.leased_call(*lease, *index).is_some());
            state.jobs.leaves(agent);
            let (jobs, sight) = state.jobs_and_sight();
            let charged = jobs.agent_lost(agent, &named, trace, now, &sight);
            state.counts.failed += charged;
            held
        });
        if let (Some(name), true) = (name, held > 0) {
            self.note(format!(
                "{name} is lost with {}, of which {} known to have begun",
                count(held, "call"),
                match named.len() {
                    1 => "1 is".to_owned(),
                    many => format!("{many} are"),
                }
            ));
        }
    }

    /// An agent has room for a lease: what it is given, if there is something.
    pub(super) fn lease(&self, agent: AgentId, most: u32) -> Option<Given> {
        let most = most.min(MOST_CALLS as u32);
        let now = self.shared.now();
        let given = self
            .shared
            .act(|state| state.jobs.lease(agent, most, MOST_PAYLOAD, now));
        let (id, batch, limits) = given?;
        let lens = batch
            .parts
            .iter()
            .flat_map(|part| part.inputs.lens(part.at, part.count));
        let lease = Lease {
            epoch: 0,
            number: id.0,
            task: batch.job.task.to_string(),
            types: batch.job.types.clone(),
            encoding: batch.job.encoding,
            first: batch.first,
            attempt: batch.attempt,
            timeout: limits.timeout.map(nanos),
            grace: nanos(limits.grace),
            memory: limits.memory,
            inputs: Carried::Here,
            shared: Vec::new(),
            files: Vec::new(),
            lens: lens.collect(),
        };
        Some(Given {
            id,
            lease,
            inputs: Arc::new(Inputs(batch.parts)),
        })
    }

    /// Calls whose backoff has passed are ready. Returns whether there were some.
    pub(super) fn promote_delayed(&self) -> bool {
        let now = self.shared.now();
        let is_due = |at| at <= now;
        if !self.shared.state().jobs.next_delayed().is_some_and(is_due) {
            return false;
        }
        self.shared.act(|state| state.jobs.promote_delayed(now));
        true
    }

    /// Whether a lease holds calls.
    pub(super) fn is_open(&self, lease: LeaseId) -> bool {
        self.shared.state().jobs.agent_of(lease).is_some()
    }

    /// From which index on calls of a lease are wanted back.
    pub(super) fn recalled_from(&self, lease: LeaseId) -> Option<u64> {
        self.shared.state().jobs.recalled_from(lease)
    }

    /// Whether a lease holds a call.
    pub(super) fn holds(&self, lease: LeaseId, index: u64) -> bool {
        self.shared.state().jobs.leased_call(lease, index).is_some()
    }

    /// Files of some calls can't be read: those end, and the others are given to whoever wants them.
    pub(super) fn cannot_send(&self, lease: &Lease, failed: Vec<(u64, String)>) {
        let id = LeaseId(lease.number);
        let now = self.shared.now();
        self.shared.act(|state| {
            for (index, why) in failed {
                let why = Err(Why::Undecodable(why));
                let (jobs, sight) = state.jobs_and_sight();
                jobs.leased_ended(id, index, why, (nobody(), 0), now, &sight);
            }
            let all = lease.first..lease.first + lease.lens.count();
            state.jobs.returned(id, all);
        });
    }

    /// The inputs of a lease can't be read.
    pub(super) fn cannot_carry(&self, lease: &Lease, error: &str) {
        let id = LeaseId(lease.number);
        let calls = lease.first..lease.first + lease.lens.count();
        let why = format!("the input can't be sent to another machine: {error}");
        let now = self.shared.now();
        self.shared.act(|state| {
            for index in calls {
                let why = Err(Why::Undecodable(why.clone()));
                let (jobs, sight) = state.jobs_and_sight();
                jobs.leased_ended(id, index, why, (nobody(), 0), now, &sight);
            }
        });
    }

    /// Gives calls back of which their agent has heard nothing, all but the first so many. Returns their files.
    pub(super) fn take_back(&self, given: &mut Given, keep: u64) -> Vec<Files> {
        let first = given.lease.first;
        let calls = first + keep..first + given.lease.lens.count();
        let files = given.truncate(keep);
        self.shared
            .act(|state| state.jobs.returned(given.id, calls));
        files
    }

    /// An agent gives calls back.
    pub(super) fn returned(&self, lease: LeaseId, calls: Vec<Range<u64>>) {
        self.shared.act(|state| {
            for calls in calls {
                state.jobs.returned(lease, calls);
            }
        });
    }

    /// What an agent says of calls, with its payload. Fails if it makes no sense.
    pub(super) fn settle(
        &mut self,
        lease: LeaseId,
        report: Report,
        payload: Fetched,
    ) -> Result<(), String> {
        match report.what {
            What::Values(values) => self.values(lease, values, payload),
            ended @ What::Ended { .. } => self.ended(lease, ended, payload),
            What::Returned(_) => Ok(()),
        }
    }

    fn machine(&self, lease: LeaseId) -> Option<Arc<str>> {
        let state = self.shared.state();
        let agent = state.jobs.agent_of(lease)?;
        let known = state.machines.agents.get(&agent)?;
        Some(Arc::clone(&known.name))
    }

    fn values(
        &self,
        lease: LeaseId,
        values: Vec<protocol::agent::Values>,
        payload: Fetched,
    ) -> Result<(), String> {
        let Some(calls) = self.shared.state().jobs.calls_of(lease) else {
            // It is over, and nobody has been told yet.
            return Ok(());
        };
        let payload = payload.into_bytes().map_err(|error| error.to_string())?;
        let machine = self.machine(lease);
        let parts = carriage::values(values, &payload, calls.end - calls.start)?;
        self.shared.act(|state| {
            for (part, outputs) in parts {
                let by = By {
                    slot: slot(part.slot),
                    pid: part.worker,
                    machine: machine.clone(),
                };
                let first = part.first;
                let calls = first..first.saturating_add(outputs.nanos.len() as u64);
                let counted = state.jobs.leased_values(lease, calls, |part| {
                    // They lie within the calls above, of which there are not so many.
                    let bytes =
                        outputs.size((part.start - first) as u32, (part.end - first) as u32);
                    (Trace::many(by.clone(), Arc::clone(&outputs)), bytes)
                });
                state.counts.succeeded += u64::from(counted);
            }
        });
        Ok(())
    }

    fn ended(&mut self, lease: LeaseId, what: What, payload: Fetched) -> Result<(), String> {
        let What::Ended {
            index,
            ending,
            nanos,
            slot: number,
            worker,
            stdout,
            stderr,
            note,
        } = what
        else {
            return Ok(());
        };
        let (value, mut printed) = carriage::take_apart(&mut self.spool, payload, stdout, stderr)?;
        if self.shared.output() == Output::Null {
            printed = Printed {
                stdout: Captured::default(),
                stderr: Captured::default(),
            };
        }
        let by = By {
            slot: slot(number),
            pid: worker,
            machine: self.machine(lease),
        };
        let result = carriage::result(ending);
        let bytes = value.len();
        let elapsed = Duration::from_nanos(nanos);
        let mut trace = Trace::one(by, elapsed, printed.clone(), value);
        trace.note = note;
        let now = self.shared.now();
        let is_ok = result.is_ok();
        let is_detached = self.shared.act(|state| {
            let is_detached = state.jobs.is_lease_detached(lease);
            let (jobs, sight) = state.jobs_and_sight();
            let counts = jobs.leased_ended(lease, index, result, (trace, bytes), now, &sight);
            match is_ok {
                true => state.counts.succeeded += u64::from(counts),
                false => state.counts.failed += u64::from(counts),
            }
            is_detached && counts
        });
        if is_detached && self.shared.output() == Output::Forward {
            let forward = move || Forwarder::default().forward(&printed);
            self.shared.printer.send(forward);
        }
        Ok(())
    }

    /// Shows what an agent says that it runs.
    pub(super) fn show_running(&self, name: &str, agent: AgentId, running: &[Named]) {
        let now = self.shared.now();
        let mut state = self.shared.state();
        let calls = running.iter().filter_map(|named| {
            let (job, attempt) = state.jobs.leased_call(LeaseId(named.lease), named.index)?;
            let call = RunningCall {
                task: job.task.to_string(),
                index: named.index,
                attempt,
                slot: named.slot as usize,
                machine: Some(Arc::from(name)),
                worker: named.worker,
                elapsed: Duration::from_nanos(named.nanos),
                stdout: Captured::default(),
                stderr: Captured::default(),
            };
            Some(RemoteCall {
                lease: LeaseId(named.lease),
                at: now,
                call,
            })
        });
        let calls: Vec<RemoteCall> = calls.collect();
        state.machines.running.insert(agent, calls);
    }
}

/// Slots are counted from 1 where people see them.
fn slot(number: u32) -> SlotId {
    SlotId(number.saturating_sub(1) as usize)
}

/// What is left of a call that nobody is known to have run.
pub(super) fn nobody() -> Trace {
    let by = By::here(SlotId(0), 0);
    Trace::one(by, Duration::ZERO, Printed::default(), Payload::default())
}

/// A number of things, as people say it.
fn count(number: u32, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}
