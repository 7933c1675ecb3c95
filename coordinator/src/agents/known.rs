//! One agent, as the coordinator knows it: how far it was heard, what it holds, and how much it should get next.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use protocol::agent::{self, Down, Ending, Heard, Lease, Named, Report, What};

use crate::scheduler::{AgentId, LeaseId, Time};

/// How many leases an agent has at once: one runs, one waits.
const LEASES: usize = 2;
/// How long a lease should take.
const TARGET: Duration = Duration::from_millis(50);
/// After how many failures for each slot, and no success, an agent is doubtful.
const DOUBTFUL: u64 = 3;
/// How much larger a lease may be than the one before.
const GROWTH: u32 = 8;
/// How far a report may be ahead of those that were heard. One that is further comes again.
const AHEAD: u64 = 1 << 16;

/// What a coordinator has to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Deed {
    /// Send this to an agent. Whoever sends a lease has its inputs.
    Send { to: String, what: Down },
    /// An agent will take calls.
    Join { agent: AgentId, slots: u32 },
    /// An agent holds nothing any more: it is lost, or has begun another life. These calls are known to have run.
    Lost {
        agent: AgentId,
        named: BTreeSet<(LeaseId, u64)>,
    },
    /// An agent has room for a lease of at most so many calls.
    Wants { agent: AgentId, most: u32 },
    /// Calls have returned values, which stand in the payload.
    Values { lease: LeaseId, report: Report },
    /// A call has ended otherwise, or its value is the payload.
    Ended { lease: LeaseId, report: Report },
    /// An agent has left. What it still holds, by our word, it has not begun, and nothing of it was lost.
    Left { agent: AgentId },
    /// Calls were given back.
    Returned {
        lease: LeaseId,
        calls: Vec<Range<u64>>,
    },
}

/// A lease that is out.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) message: Lease,
    pub(super) count: u32,
    /// The agent is known to have it.
    pub(super) is_seen: bool,
    /// How many beats have left it out.
    pub(super) missed: u32,
    pub(super) since: Time,
    /// What is wanted back of it, until the agent has answered.
    pub(super) recall: Option<agent::Recall>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// When it has to be heard at the latest.
    Alive(Time),
    Lost,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: AgentId,
    pub(super) epoch: u64,
    pub(super) slots: u32,
    pub(super) home: u64,
    pub(super) state: State,
    pub(super) takes_none: bool,
    /// All reports up to this one were heard, and these beyond it.
    pub(super) heard: u64,
    pub(super) ahead: BTreeSet<u64>,
    pub(super) out: BTreeMap<LeaseId, Out>,
    /// How many of its calls have returned values, and how many have not.
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Calls that it has named as running.
    pub(super) named: Vec<Named>,
    /// What a call costs one of its slots; `None` if nobody knows.
    pub(super) cost: Option<Duration>,
    /// The calls of its largest lease.
    pub(super) largest: u32,
    /// When its last lease was over.
    pub(super) idle_since: Time,
}

/// What each answer says of this coordinator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) patience: u64,
    pub(super) is_paused: bool,
    pub(super) turns: u64,
}

impl Known {
    /// Whether it may be given another lease.
    pub(super) fn has_room(&self, others_succeed: bool) -> bool {
        let most = match self.is_doubtful(others_succeed) {
            true => 1,
            false => LEASES,
        };
        self.state != State::Lost && !self.takes_none && self.out.len() < most
    }

    /// Whether all of its calls have failed so far, where others' have not: then it gets one at a time. Its disk may be full, or
    /// something may be missing there.
    fn is_doubtful(&self, others_succeed: bool) -> bool {
        let many = DOUBTFUL.saturating_mul(self.slots.into());
        others_succeed && self.succeeded == 0 && self.failed >= many
    }

    /// Calls of it have ended.
    pub(super) fn count(&mut self, what: &What) {
        match what {
            What::Values(parts) => {
                let counts = parts.iter().map(|part| part.lens.count());
                self.succeeded = counts.fold(self.succeeded, u64::saturating_add);
            }
            What::Ended {
                ending: Ending::Value,
                ..
            } => self.succeeded += 1,
            What::Ended {
                ending: Ending::Cancelled,
                ..
            }
            | What::Returned(_) => {}
            What::Ended { .. } => self.failed += 1,
        }
    }

    /// When it has to be heard at the latest.
    pub(super) fn until(&self) -> Time {
        match self.state {
            State::Alive(until) => until,
            State::Lost => Time::ZERO,
        }
    }

    pub(super) fn was_heard(&self, serial: u64) -> bool {
        serial <= self.heard || self.ahead.contains(&serial)
    }

    /// Whether a report is not too far ahead of those that were heard to be remembered.
    pub(super) fn is_near(&self, serial: u64) -> bool {
        serial > self.heard && serial - self.heard <= AHEAD
    }

    pub(super) fn heard(&self, name: &str, clock: Option<u64>, answer: Answer) -> Deed {
        let low = self.out.keys().next().map_or(0, |lowest| lowest.0);
        Deed::Send {
            to: name.to_owned(),
            what: Down::Heard(Heard {
                home: self.home,
                epoch: self.epoch,
                clock,
                serial: self.heard,
                low,
                patience: answer.patience,
                is_paused: answer.is_paused,
                turns: answer.turns,
            }),
        }
    }

    /// Whether a report was not heard before; from now on it was.
    pub(super) fn is_news(&mut self, serial: u64) -> bool {
        let is_news = self.is_near(serial) && self.ahead.insert(serial);
        while self.ahead.remove(&(self.heard + 1)) {
            self.heard += 1;
        }
        is_news
    }

    pub(super) fn lost(&mut self) -> Deed {
        self.out.clear();
        let named = std::mem::take(&mut self.named).into_iter();
        Deed::Lost {
            agent: self.id,
            named: named
                .map(|named| (LeaseId(named.lease), named.index))
                .collect(),
        }
    }

    pub(super) fn wants(&self, others_succeed: bool) -> Deed {
        if self.is_doubtful(others_succeed) {
            return Deed::Wants {
                agent: self.id,
                most: 1,
            };
        }
        let by_cost = |cost: Duration| {
            let each = TARGET.as_nanos() / cost.as_nanos().max(1);
            u32::try_from(each.saturating_mul(self.slots.into())).unwrap_or(u32::MAX)
        };
        let most = self.cost.map_or(self.slots, by_cost);
        let most = most.min(self.largest.max(self.slots).saturating_mul(GROWTH));
        Deed::Wants {
            agent: self.id,
            most: most.max(self.slots),
        }
    }

    /// A lease is over: what its calls cost one of the slots.
    pub(super) fn learn(&mut self, out: &Out, now: Time) {
        let took = now.saturating_sub(out.since.max(self.idle_since));
        let at_once = self.slots.min(out.count).max(1);
        self.cost = Some(took * at_once / out.count.max(1));
        self.idle_since = now;
    }
}
