//! The agent's half: which calls it may run, and until when.
//!
//! An agent may run calls as long as its coordinator can't have taken it for lost. It counts from when it sent the last beat that
//! was answered, and begins to end its calls early enough for all of them to be dead when the lease is over. When they are, it
//! begins a new life, and says so: a new epoch is a statement that nothing of the old one runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use protocol::agent::{
    About, Beat, Bulk, Carried, Down, Heard, Join, Lease, Named, Recall, Report, Up, What,
};

use super::Broken;

/// How often an agent says what it holds.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// How long nobody may answer at all, by the broker's word, before an agent ends its calls.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(5);

/// How much of what was not heard is sent again at once, in bytes. There is always one report.
const AGAIN: usize = 256 << 10;

/// What a report takes without its payload, about.
const OVERHEAD: usize = 256;

/// How long killing takes, when the grace is over: for all calls to be dead before the kernel's timer kills the agent, too.
const KILLING: Duration = Duration::from_millis(200);

/// A point in time of the agent's own clock, which counts suspended time, too.
pub(crate) type Time = Duration;

/// What an agent has to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    /// Send this. The payload of a report is kept by whoever does.
    Send(Up),
    /// Run the calls of a lease.
    Run(Lease),
    /// Do not begin the calls of a lease from an index on; with `kill`, end those that run.
    Recall { lease: u64, from: u64, kill: bool },
    /// End all calls: SIGTERM, and SIGKILL after the grace. When all are dead, say [`Member::all_dead`].
    EndAll,
    /// Stop what runs, or let it go on.
    Pause(bool),
    /// The coordinator will have nothing to do with this agent.
    Refused(String),
}

/// Where what belongs to a report is.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) payload: Carried,
    pub(crate) files: Vec<Bulk>,
    /// How much payload the report carries itself, in bytes.
    pub(crate) bytes: usize,
}

impl Default for Told {
    fn default() -> Self {
        Told {
            payload: Carried::Here,
            files: Vec::new(),
            bytes: 0,
        }
    }
}

/// A report that was not heard yet.
#[derive(Debug)]
struct Unheard {
    report: Report,
    bytes: usize,
    /// When it was sent last.
    sent: Time,
}

/// What a member has of a lease.
#[derive(Debug)]
struct Held {
    /// How many calls have neither been reported nor returned.
    open: u64,
}

#[derive(Debug)]
enum Phase {
    /// It asks to be let in.
    Joining,
    /// It may run calls until it has to end them.
    Working {
        /// When it sent the last beat that was answered.
        sent: Time,
    },
    /// It ends its calls.
    Ending {
        /// As above. The kernel's timer stays armed until all calls are dead: an agent that was stopped may have begun to end
        /// them too late for the grace.
        sent: Time,
    },
}

/// An agent of one run.
#[derive(Debug)]
pub(crate) struct Member {
    about: About,
    /// How long it may be out of sight.
    lease: Duration,
    grace: Duration,
    epoch: u64,
    phase: Phase,
    held: BTreeMap<u64, Held>,
    /// Leases that it has had, from the lowest open one on.
    known: BTreeSet<u64>,
    low: u64,
    serial: u64,
    /// Reports that were not heard yet.
    outbox: BTreeMap<u64, Unheard>,
    /// When the newest beat was sent that was answered. What was sent before it, and was not heard, is lost or waits there for
    /// what belongs to it.
    answered: Time,
    /// A beat was answered, and nothing was sent again since.
    is_due: bool,
    /// The last report that was sent again.
    again: u64,
    /// The latest time that it was told.
    now: Time,
    /// When it sends again.
    beat_at: Time,
    /// Since when the broker says that nobody answers.
    unanswered: Option<Time>,
    is_paused: bool,
    /// How often the run was paused or went on, as far as it knows.
    turns: u64,
    takes_none: bool,
    pub(crate) broken: Option<Broken>,
}

impl Member {
    /// An agent that begins this life now. `lease` is how long it may be out of sight, and `grace` how long it takes to end a call.
    pub(crate) fn new(
        about: About,
        epoch: u64,
        lease: Duration,
        grace: Duration,
        now: Time,
    ) -> Self {
        Member {
            about,
            lease,
            grace,
            epoch,
            phase: Phase::Joining,
            held: BTreeMap::new(),
            known: BTreeSet::new(),
            low: 0,
            serial: 0,
            outbox: BTreeMap::new(),
            answered: Time::ZERO,
            is_due: false,
            again: 0,
            now,
            beat_at: now,
            unanswered: None,
            is_paused: false,
            turns: 0,
            takes_none: false,
            broken: None,
        }
    }

    /// Whether it may begin calls.
    pub(crate) fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working { .. })
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn next_tick(&self) -> Time {
        self.deadline()
            .map_or(self.beat_at, |end| end.min(self.beat_at))
    }

    /// When the kernel has to kill this process, because all of its calls must be dead then and it may be stopped, or not be
    /// scheduled. Its workers die with it.
    pub(crate) fn fuse(&self) -> Option<Time> {
        match self.phase {
            Phase::Working { sent } | Phase::Ending { sent } => Some(sent + self.lease),
            Phase::Joining => None,
        }
    }

    /// When it has to begin to end its calls.
    fn deadline(&self) -> Option<Time> {
        let Phase::Working { sent } = self.phase else {
            return None;
        };
        let grace = match self.breaks(Broken::NoGrace) {
            true => Duration::ZERO,
            false => self.grace + KILLING,
        };
        let end = sent + self.lease.saturating_sub(grace);
        // A coordinator that is stopped answers nothing, and the broker may take it for gone.
        let unanswered = self.unanswered.filter(|_| !self.is_paused);
        let gone = unanswered.map(|since| since + UNANSWERED);
        Some(gone.map_or(end, |gone| end.min(gone)))
    }

    fn has_to_end(&self, now: Time) -> bool {
        self.deadline().is_some_and(|end| end <= now)
    }

    /// Time passes. `running` are the calls that have run for a while.
    pub(crate) fn tick(&mut self, now: Time, running: Vec<Named>) -> Vec<Deed> {
        self.now = now;
        if self.has_to_end(now) {
            return self.end(now);
        }
        if now < self.beat_at {
            return Vec::new();
        }
        self.beat_at = now + BEAT;
        match self.phase {
            Phase::Joining => vec![self.join(now)],
            Phase::Working { .. } => vec![self.beat(now, running)],
            Phase::Ending { .. } => Vec::new(),
        }
    }

    /// A call has run for so long that the coordinator should know that it has begun.
    pub(crate) fn beat(&self, now: Time, running: Vec<Named>) -> Deed {
        Deed::Send(Up::Beat(Beat {
            epoch: self.epoch,
            clock: nanos(now),
            leases: self.held.keys().copied().collect(),
            running,
            takes_none: self.takes_none,
            patience: nanos(self.lease),
            turns: self.turns,
        }))
    }

    fn join(&self, now: Time) -> Deed {
        Deed::Send(Up::Join(Join {
            epoch: self.epoch,
            clock: nanos(now),
            about: self.about.clone(),
        }))
    }

    /// The broker says that nobody has taken a beat.
    pub(crate) fn nobody_answers(&mut self, now: Time) {
        self.unanswered.get_or_insert(now);
    }

    /// The coordinator says something.
    pub(crate) fn hear(&mut self, down: Down, now: Time) -> Vec<Deed> {
        self.now = now;
        // A message that a cut has held back may come when its time is over, and before the clock has said so.
        if self.has_to_end(now) {
            return self.end(now);
        }
        match down {
            Down::Heard(heard) => {
                let pause = self.heard(heard, now);
                match self.has_to_end(now) {
                    true => self.end(now),
                    false => pause.into_iter().chain(self.send_again()).collect(),
                }
            }
            Down::Lease(lease) => self.lease(lease).into_iter().collect(),
            Down::Recall(recall) => self.recall(recall).into_iter().collect(),
            Down::Unknown { epoch } if epoch == self.epoch => match self.phase {
                Phase::Working { .. } => self.end(now),
                Phase::Joining => self.begin_anew(now),
                Phase::Ending { .. } => Vec::new(),
            },
            Down::Refused { home, why } if home == self.about.home => vec![Deed::Refused(why)],
            Down::Refused { .. } => Vec::new(),
            // Those of another life, and bulks, which are not this room's.
            Down::Unknown { .. } | Down::Want(_) | Down::Piece(_) | Down::Gone { .. } => Vec::new(),
        }
    }

    /// The coordinator says that it may be silent for so long, and that nothing runs meanwhile. It waits as long, until a beat
    /// has said that this agent knows of a later turn: so it does no harm if this comes late.
    pub(crate) fn pause(&mut self, patience: Duration, turns: u64) -> Option<Deed> {
        let is_old = turns <= self.turns && !self.breaks(Broken::AnyPause);
        if !self.is_working() || is_old {
            return None;
        }
        self.turns = turns.max(self.turns);
        self.lease = self.lease.max(patience);
        self.turn_pause(true)
    }

    /// The coordinator goes on. It may be silent for as long as before until it has answered.
    pub(crate) fn resume(&mut self, turns: u64) -> Option<Deed> {
        if turns <= self.turns {
            return None;
        }
        self.turns = turns;
        self.turn_pause(false)
    }

    fn turn_pause(&mut self, is_paused: bool) -> Option<Deed> {
        let was = std::mem::replace(&mut self.is_paused, is_paused);
        (was != is_paused).then_some(Deed::Pause(is_paused))
    }

    /// Whether it takes further leases.
    pub(crate) fn takes_none(&mut self, takes_none: bool) {
        self.takes_none = takes_none;
    }

    /// It goes for good. All that it held has been told of, or is dead.
    pub(crate) fn leave(&self) -> Up {
        Up::Leave { epoch: self.epoch }
    }

    /// The number of its last report.
    pub(crate) fn last_serial(&self) -> u64 {
        self.serial
    }

    /// Its life.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Reports that have not been heard, by serial number.
    pub(crate) fn is_unheard(&self, serial: u64) -> bool {
        self.outbox.contains_key(&serial)
    }

    /// Whether all that it has said was heard, and it holds nothing.
    pub(crate) fn is_done(&self) -> bool {
        self.held.is_empty() && self.outbox.is_empty()
    }

    fn heard(&mut self, heard: Heard, now: Time) -> Option<Deed> {
        // Another machine's agent of the same name may have the same epoch.
        if heard.epoch != self.epoch || heard.home != self.about.home {
            return None;
        }
        self.unanswered = None;
        let answered = heard.clock.map(Duration::from_nanos);
        let answered = match self.breaks(Broken::CountsFromAnswer) {
            true => answered.map(|_| now),
            // A clock that the agent can't have had is nonsense.
            false => answered.filter(|sent| *sent <= now),
        };
        let mut pause = None;
        if let Some(answered) = answered {
            // Answers may overtake each other.
            let is_newest = match &mut self.phase {
                Phase::Joining => {
                    self.phase = Phase::Working { sent: answered };
                    true
                }
                Phase::Working { sent } if answered >= *sent => {
                    *sent = answered;
                    true
                }
                Phase::Working { .. } | Phase::Ending { .. } => false,
            };
            if is_newest && answered > self.answered {
                self.answered = answered;
                self.is_due = true;
            }
            if is_newest && heard.turns >= self.turns {
                self.turns = heard.turns;
                pause = self.turn_pause(heard.is_paused);
                let patience = Duration::from_nanos(heard.patience);
                // A lease becomes shorter only by the answer to a young beat. An old one, of the time of a pause, would leave
                // no time to end the calls. Until then the coordinator waits as long as the beats have said.
                let is_young = answered + patience / 2 >= now || self.breaks(Broken::OldAnswer);
                self.lease = match is_young {
                    true => patience,
                    false => self.lease.max(patience),
                };
            }
        }
        self.outbox = self.outbox.split_off(&(heard.serial.saturating_add(1)));
        self.low = self.low.max(heard.low);
        self.known = self.known.split_off(&self.low);
        pause
    }

    /// Sends again what a beat has overtaken, one part after another, and not much at once: the next when the last was heard, or
    /// when another beat is answered. So nothing is sent again while it is only on its way, however slow that is.
    fn send_again(&mut self) -> Vec<Deed> {
        let is_heard = self
            .outbox
            .keys()
            .next()
            .is_some_and(|oldest| *oldest > self.again);
        let is_due = std::mem::take(&mut self.is_due) || is_heard;
        if !is_due || !self.is_working() {
            return Vec::new();
        }
        let answered = self.answered;
        let is_overtaken = |unheard: &Unheard| unheard.sent < answered;
        let next = self.again + 1;
        let mut rest = self.outbox.range(next..);
        let from = match rest.any(|(_, unheard)| is_overtaken(unheard)) {
            true => next,
            false => 0,
        };
        let mut deeds = Vec::new();
        let mut left = AGAIN;
        for (serial, unheard) in self.outbox.range_mut(from..) {
            if !is_overtaken(unheard) {
                continue;
            }
            if !deeds.is_empty() && unheard.bytes + OVERHEAD > left {
                break;
            }
            left = left.saturating_sub(unheard.bytes + OVERHEAD);
            unheard.sent = self.now;
            self.again = *serial;
            deeds.push(Deed::Send(Up::Report(unheard.report.clone())));
        }
        deeds
    }

    /// Whether a lease may be run: it is of this life, and was not had before.
    fn lease(&mut self, lease: Lease) -> Option<Deed> {
        let is_ours = lease.epoch == self.epoch || self.breaks(Broken::AnyEpoch);
        if !is_ours || !self.is_working() || lease.number < self.low {
            return None;
        }
        let is_new = self.known.insert(lease.number) || self.breaks(Broken::Forgetful);
        if !is_new {
            return None;
        }
        let open = lease.lens.count();
        self.held.insert(lease.number, Held { open });
        Some(Deed::Run(lease))
    }

    fn recall(&self, recall: Recall) -> Option<Deed> {
        let is_held = recall.epoch == self.epoch && self.held.contains_key(&recall.lease);
        is_held.then_some(Deed::Recall {
            lease: recall.lease,
            from: recall.from,
            kill: recall.kill,
        })
    }

    /// Calls of a lease have ended, or come back unbegun: there are `calls` of them.
    pub(crate) fn ended(&mut self, lease: u64, calls: u64, what: What, told: Told) -> Option<Deed> {
        let held = self.held.get_mut(&lease)?;
        held.open = held.open.saturating_sub(calls);
        if held.open == 0 {
            self.held.remove(&lease);
        }
        self.serial += 1;
        let report = Report {
            epoch: self.epoch,
            serial: self.serial,
            lease,
            what,
            payload: told.payload,
            files: told.files,
        };
        let unheard = Unheard {
            report: report.clone(),
            bytes: told.bytes,
            sent: self.now,
        };
        self.outbox.insert(self.serial, unheard);
        // While it ends its calls it has nothing to say: the new life says all.
        self.is_working().then_some(Deed::Send(Up::Report(report)))
    }

    /// Calls that were recalled had not begun.
    pub(crate) fn returned(&mut self, lease: u64, calls: Range<u64>) -> Option<Deed> {
        let what = What::Returned(vec![(calls.start, calls.end)]);
        self.ended(lease, calls.end - calls.start, what, Told::default())
    }

    fn end(&mut self, now: Time) -> Vec<Deed> {
        if let Phase::Working { sent } = self.phase {
            self.phase = Phase::Ending { sent };
        }
        if self.breaks(Broken::EarlyEpoch) {
            return [vec![Deed::EndAll], self.begin_anew(now)].concat();
        }
        vec![Deed::EndAll]
    }

    /// All calls are dead. It begins a new life.
    pub(crate) fn all_dead(&mut self, now: Time) -> Vec<Deed> {
        match self.phase {
            Phase::Ending { .. } => self.begin_anew(now),
            Phase::Joining | Phase::Working { .. } => Vec::new(),
        }
    }

    fn begin_anew(&mut self, now: Time) -> Vec<Deed> {
        self.epoch += 1;
        self.phase = Phase::Joining;
        self.held.clear();
        self.known.clear();
        self.outbox.clear();
        self.serial = 0;
        self.again = 0;
        self.unanswered = None;
        self.is_paused = false;
        vec![self.join(now)]
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}

fn nanos(time: Time) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
