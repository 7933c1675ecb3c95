//! The coordinator's half: who is there, how far each has been heard, and when one is lost.
//!
//! An agent is lost when nothing was heard of it for its lease and a fifth, because its clock may run differently. The
//! coordinator counts from when it answered, which is later than when the agent sent; so an agent has ended its calls before
//! anybody else gets them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::agent::{self, Beat, Down, Join, Lease, Named, Report, Up, What};

use super::Broken;
use super::known::{Answer, Known, Out, State};
use crate::scheduler::{AgentId, LeaseId, Recall, Time};

/// How many beats may leave out a lease before it is sent again.
const MISSED: u32 = 2;

pub(super) use super::known::Deed;

/// The agents of a run.
#[derive(Debug)]
pub(super) struct Fleet {
    lease: Duration,
    /// Nothing runs, and the coordinator may be silent for so long.
    pause: Option<Duration>,
    /// How often the run was paused or went on.
    turns: u64,
    /// The longest that it has said it may be silent. Who does not know of the last turn may yet hear of an earlier one.
    longest: Duration,
    agents: BTreeMap<String, Known>,
    names: BTreeMap<AgentId, String>,
    /// Some agent's calls have succeeded.
    is_well: bool,
    next: u64,
    pub(super) broken: Option<Broken>,
}

impl Fleet {
    /// No agents yet, which may be out of sight for this long.
    pub(super) fn new(lease: Duration) -> Self {
        Fleet {
            lease,
            pause: None,
            turns: 0,
            longest: Duration::ZERO,
            agents: BTreeMap::new(),
            names: BTreeMap::new(),
            is_well: false,
            next: 0,
            broken: None,
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_tick(&self) -> Option<Time> {
        let alive = self.agents.values().filter_map(|known| match known.state {
            State::Alive(until) => Some(until),
            State::Lost => None,
        });
        alive.min()
    }

    /// How long an agent may be out of sight from now on.
    fn patience(&self) -> Duration {
        self.pause.unwrap_or(self.lease)
    }

    /// When an agent that is answered now has to be heard at the latest. `theirs` is how long it takes itself to be allowed out
    /// of sight: as long as it has not heard otherwise, that is what counts; but nobody has ever told it more than the longest
    /// pause. `turns` is what it knows of pauses.
    fn until(&self, theirs: Duration, turns: u64, now: Time) -> Time {
        let theirs = theirs.min(self.lease.max(self.longest));
        let told = match turns < self.turns {
            true => self.longest,
            false => Duration::ZERO,
        };
        let lease = self.patience().max(theirs).max(told);
        now.saturating_add(match self.breaks(Broken::NoMargin) {
            true => lease,
            false => lease.saturating_add(lease / 5),
        })
    }

    /// Nothing runs from now on, and this coordinator may be silent for so long: its agents wait for it as long. What they are to
    /// be told is sent afterwards.
    /// Returns how often the run was paused or went on.
    pub(super) fn pause(&mut self, patience: Duration, now: Time) -> u64 {
        self.pause = Some(patience);
        self.turns += 1;
        self.longest = self.longest.max(patience);
        let until = self.until(patience, 0, now);
        for known in self.agents.values_mut() {
            if let State::Alive(at) = &mut known.state {
                *at = until.max(*at);
            }
        }
        self.turns
    }

    /// It goes on, and waits for each agent as long as before until that knows. Returns how often the run was paused or went on.
    pub(super) fn resume(&mut self) -> u64 {
        self.pause = None;
        self.turns += 1;
        self.turns
    }

    /// Time passes: agents that were silent for too long are lost.
    pub(super) fn tick(&mut self, now: Time) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for known in self.agents.values_mut() {
            if matches!(known.state, State::Alive(until) if until <= now) {
                known.state = State::Lost;
                deeds.push(known.lost());
            }
        }
        deeds
    }

    /// An agent says something.
    pub(super) fn hear(&mut self, from: &str, up: Up, now: Time) -> Vec<Deed> {
        match up {
            Up::Join(join) => self.join(from, &join, now),
            Up::Beat(beat) => self.beat(from, &beat, now),
            Up::Report(report) => self.report(from, report),
            Up::Leave { epoch } => self.leave(from, epoch),
            // Bulks, and who can't take part, are not this room's.
            Up::Cannot { .. } | Up::Want(_) | Up::Piece(_) | Up::Gone { .. } => Vec::new(),
        }
    }

    /// An agent says that it holds nothing any more, and goes.
    fn leave(&mut self, from: &str, epoch: u64) -> Vec<Deed> {
        let known = match self.of_this_life(from, epoch) {
            Ok(known) => known,
            // It is not waited for, whatever it was taken for.
            Err(_) => return Vec::new(),
        };
        known.state = State::Lost;
        let agent = known.id;
        known.out.clear();
        known.named.clear();
        vec![Deed::Left { agent }]
    }

    /// An agent that is known says once more that it has joined.
    fn join_again(&mut self, from: &str, join: &Join, now: Time) -> Vec<Deed> {
        let until = self.until(Duration::ZERO, 0, now);
        let answer = self.answer();
        match self.of_this_life(from, join.epoch) {
            Ok(known) if known.home != join.about.home => vec![other_home(from, join.about.home)],
            Ok(known) => {
                known.state = State::Alive(until.max(known.until()));
                vec![known.heard(from, Some(join.clock), answer)]
            }
            Err(refusal) => refusal,
        }
    }

    /// What each answer says of this coordinator.
    fn answer(&self) -> Answer {
        Answer {
            patience: u64::try_from(self.patience().as_nanos()).unwrap_or(u64::MAX),
            is_paused: self.pause.is_some(),
            turns: self.turns,
        }
    }

    fn join(&mut self, from: &str, join: &Join, now: Time) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let is_others =
            |known: &Known| known.home != join.about.home && matches!(known.state, State::Alive(_));
        if self.agents.get(from).is_some_and(is_others) {
            return vec![other_home(from, join.about.home)];
        }
        let is_known = self
            .agents
            .get(from)
            .is_some_and(|known| join.epoch <= known.epoch);
        if is_known {
            return self.join_again(from, join, now);
        }
        if let Some(known) = self.agents.get_mut(from) {
            // Nothing of its former life runs.
            if known.state != State::Lost {
                deeds.push(known.lost());
            }
            self.names.remove(&known.id);
        }
        let id = AgentId(self.next);
        self.next += 1;
        let known = Known {
            id,
            epoch: join.epoch,
            slots: join.about.slots.max(1),
            home: join.about.home,
            state: State::Alive(self.until(Duration::ZERO, 0, now)),
            takes_none: false,
            heard: 0,
            ahead: BTreeSet::new(),
            out: BTreeMap::new(),
            succeeded: 0,
            failed: 0,
            named: Vec::new(),
            cost: None,
            largest: 0,
            idle_since: now,
        };
        deeds.push(Deed::Join {
            agent: id,
            slots: known.slots,
        });
        deeds.push(known.heard(from, Some(join.clock), self.answer()));
        deeds.push(known.wants(self.is_well));
        self.names.insert(id, from.to_owned());
        self.agents.insert(from.to_owned(), known);
        deeds
    }

    /// The agent of this name, if this is what it says in the life in which it is known. One that was taken for lost is told so,
    /// and is not heard until it has begun another life.
    fn of_this_life(&mut self, from: &str, epoch: u64) -> Result<&mut Known, Vec<Deed>> {
        let is_silent = self.breaks(Broken::Silent);
        let refusal = || match is_silent {
            true => Vec::new(),
            false => vec![unknown(from, epoch)],
        };
        let known = self.agents.get_mut(from).ok_or_else(refusal)?;
        match epoch.cmp(&known.epoch) {
            Ordering::Less => Err(Vec::new()),
            Ordering::Greater => Err(refusal()),
            Ordering::Equal if known.state == State::Lost => Err(refusal()),
            Ordering::Equal => Ok(known),
        }
    }

    fn beat(&mut self, from: &str, beat: &Beat, now: Time) -> Vec<Deed> {
        let until = self.until(Duration::from_nanos(beat.patience), beat.turns, now);
        let (answer, is_well) = (self.answer(), self.is_well);
        let known = match self.of_this_life(from, beat.epoch) {
            Ok(known) => known,
            Err(deeds) => return deeds,
        };
        known.state = State::Alive(until);
        known.takes_none = beat.takes_none;
        let running = beat.running.iter().take(agent::MOST_NAMED);
        known.named = running
            .filter(|named| known.out.contains_key(&LeaseId(named.lease)))
            .copied()
            .collect();
        let has: BTreeSet<u64> = beat
            .leases
            .iter()
            .copied()
            .take(agent::MOST_NAMED)
            .collect();
        let mut deeds = vec![known.heard(from, Some(beat.clock), answer)];
        let to = || from.to_owned();
        for (id, out) in &mut known.out {
            out.is_seen |= has.contains(&id.0);
            out.missed += u32::from(!out.is_seen);
            if out.missed >= MISSED {
                out.missed = 0;
                let what = Down::Lease(out.message.clone());
                deeds.push(Deed::Send { to: to(), what });
            }
            if let Some(recall) = out.recall {
                let what = Down::Recall(recall);
                deeds.push(Deed::Send { to: to(), what });
            }
        }
        if known.has_room(is_well) {
            deeds.push(known.wants(is_well));
        }
        deeds
    }

    fn report(&mut self, from: &str, report: Report) -> Vec<Deed> {
        let answer = self.answer();
        let known = match self.of_this_life(from, report.epoch) {
            Ok(known) => known,
            Err(deeds) => return deeds,
        };
        let lease = LeaseId(report.lease);
        let mut deeds = Vec::new();
        // What it says of a lease that it does not hold is nothing, be it late or a lie.
        if known.is_news(report.serial)
            && let Some(out) = known.out.get_mut(&lease)
        {
            out.is_seen = true;
            if let What::Returned(_) = report.what {
                out.recall = out.recall.filter(|recall| recall.kill);
            }
            known.count(&report.what);
            deeds.push(match &report.what {
                What::Values { .. } => Deed::Values { lease, report },
                What::Ended { .. } => Deed::Ended { lease, report },
                What::Returned(calls) => {
                    let calls = calls.iter().map(|(from, to)| *from..*to).collect();
                    Deed::Returned { lease, calls }
                }
            });
        }
        let has_succeeded = known.succeeded > 0;
        deeds.push(known.heard(from, None, answer));
        self.is_well |= has_succeeded;
        deeds
    }

    /// The scheduler has given an agent calls. `None` if it is not there any more: then nobody has them.
    pub(super) fn leased(&mut self, agent: AgentId, mut message: Lease, now: Time) -> Option<Deed> {
        let to = self.names.get(&agent)?.clone();
        let known = self.agents.get_mut(&to)?;
        if known.state == State::Lost {
            return None;
        }
        message.epoch = known.epoch;
        let count = u32::try_from(message.lens.count()).unwrap_or(u32::MAX);
        known.largest = known.largest.max(count);
        let out = Out {
            message: message.clone(),
            count,
            is_seen: false,
            missed: 0,
            since: now,
            recall: None,
        };
        known.out.insert(LeaseId(message.number), out);
        let what = Down::Lease(message);
        Some(Deed::Send { to, what })
    }

    /// The scheduler wants calls back.
    pub(super) fn recall(&mut self, recall: Recall) -> Option<Deed> {
        let to = self.names.get(&recall.agent)?.clone();
        let known = self.agents.get_mut(&to)?;
        let epoch = known.epoch;
        let out = known.out.get_mut(&recall.lease)?;
        let recall = agent::Recall {
            epoch,
            lease: recall.lease.0,
            from: recall.from,
            kill: recall.kill,
        };
        out.recall = Some(recall);
        let what = Down::Recall(recall);
        Some(Deed::Send { to, what })
    }

    /// A lease of an agent has no open calls any more.
    pub(super) fn closed(&mut self, agent: AgentId, lease: LeaseId, now: Time) -> Option<Deed> {
        let is_well = self.is_well;
        let known = self.agents.get_mut(self.names.get(&agent)?)?;
        let out = known.out.remove(&lease)?;
        known.learn(&out, now);
        known.has_room(is_well).then(|| known.wants(is_well))
    }

    /// Calls are ready: the agents that have room for them.
    pub(super) fn offer(&self) -> Vec<Deed> {
        let agents = self.agents.values();
        agents
            .filter(|known| known.has_room(self.is_well))
            .map(|known| known.wants(self.is_well))
            .collect()
    }

    /// The agent that goes by a name, if it is there.
    pub(super) fn named(&self, name: &str) -> Option<AgentId> {
        let known = self.agents.get(name)?;
        (known.state != State::Lost).then_some(known.id)
    }

    /// An agent's name.
    pub(super) fn name_of(&self, agent: AgentId) -> Option<&str> {
        self.names.get(&agent).map(String::as_str)
    }

    /// Whether an agent is in this life, as far as one knows.
    pub(super) fn is_in(&self, from: &str, epoch: u64) -> bool {
        let known = self.agents.get(from);
        known.is_some_and(|known| known.epoch == epoch && known.state != State::Lost)
    }

    /// Whether a report is of a lease that this agent holds, so that it is worth asking for its payload.
    pub(super) fn expects(&self, from: &str, report: &Report) -> bool {
        self.agents.get(from).is_some_and(|known| {
            known.epoch == report.epoch
                && known.state != State::Lost
                && known.is_near(report.serial)
                && !known.was_heard(report.serial)
                && known.out.contains_key(&LeaseId(report.lease))
        })
    }

    /// What an agent has said that it runs.
    pub(super) fn running(&self, name: &str) -> &[Named] {
        self.agents.get(name).map_or(&[], |known| &known.named)
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}

fn other_home(name: &str, home: u64) -> Deed {
    Deed::Send {
        to: name.to_owned(),
        what: Down::Refused {
            home,
            why: format!("another machine's agent is named {name}: choose another with --name"),
        },
    }
}

fn unknown(name: &str, epoch: u64) -> Deed {
    Deed::Send {
        to: name.to_owned(),
        what: Down::Unknown { epoch },
    }
}
