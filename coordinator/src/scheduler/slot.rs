//! The state of one slot, and the tokens that stand for it.

use std::time::Duration;

use super::{Batch, Limits, MapId, SlotId, Time};
use crate::error::Why;

/// What a worker's death has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loss {
    /// A call was charged.
    pub(crate) charged: bool,
    /// The worker was killed because it was decided so here.
    pub(crate) doomed: bool,
}

/// How long a worker may take at least to say that it is done.
pub(super) const ANSWER: Duration = Duration::from_secs(1);

/// By how much a worker may postpone the beginning of its call. It does so after a panic, because resolving the names
/// of a backtrace takes up to a second, or some seconds on a busy machine, and should not count as the call's time.
pub(super) const SET_BACK: Duration = Duration::from_secs(10);

/// A worker that has nothing to do. Whoever holds this may ask for calls, once.
#[derive(Debug)]
#[must_use = "the slot's worker would never be used again"]
pub(crate) struct Idle {
    pub(super) slot: SlotId,
    /// The worker has just become idle, and has not slept since.
    pub(super) is_fresh: bool,
}

impl Idle {
    pub(super) fn fresh(slot: SlotId) -> Self {
        Idle {
            slot,
            is_fresh: true,
        }
    }

    pub(super) fn waiting(slot: SlotId) -> Self {
        Idle {
            slot,
            is_fresh: false,
        }
    }

    /// Somebody asks for it who is awake.
    pub(crate) fn awake(self) -> Self {
        Self::fresh(self.slot)
    }

    /// The slot sleeps until somebody wakes it.
    pub(crate) fn waits(self) -> Self {
        Self::waiting(self.slot)
    }
}

/// A worker that has been given a batch, and has not answered for all of it.
#[derive(Debug)]
#[must_use = "the calls would never end"]
pub(crate) struct Running {
    pub(super) slot: SlotId,
    pub(super) map: MapId,
}

impl Running {
    /// The map its calls belong to.
    #[cfg(test)]
    pub(crate) fn map(&self) -> MapId {
        self.map
    }
}

/// What the black boxes show of the workers, whoever talks to them.
pub(crate) trait Sight {
    /// How far a slot's worker has come with its batch.
    fn look(&self, slot: SlotId) -> Seen;
    /// Takes back the calls of the worker's batch beyond the first `to`, unless it has started them. Returns how many
    /// calls the worker keeps.
    fn lower(&self, slot: SlotId, to: u32) -> u32;
}

/// A call that a slot is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Current<'j, J> {
    pub(crate) job: &'j J,
    pub(crate) index: u64,
    /// From 1.
    pub(crate) attempt: u32,
    pub(crate) since: Time,
    /// Whether all calls before it in the batch are known to have ended.
    pub(crate) is_next: bool,
}

/// How far a worker has come with its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) started: u32,
    pub(crate) finished: u32,
    /// When the call that was started last began.
    pub(crate) began: Time,
}

/// What a worker is told by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// SIGTERM: it may tidy up.
    Term,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it makes a pause.
    Stop,
    /// SIGCONT: it goes on.
    Continue,
}

/// Why a running call is being killed: what it ends as when its worker is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doom {
    TimedOut(Duration),
    OutOfMemory(u64),
    Cancelled,
    /// The worker had nothing left to run, and did not say so in time.
    Silent,
    /// The worker's black box contradicts what is known of the worker.
    Lied,
}

impl Doom {
    /// What the call ends as.
    pub(super) fn why(self) -> Why {
        match self {
            Doom::TimedOut(limit) => Why::TimedOut(limit),
            Doom::OutOfMemory(limit) => Why::OutOfMemory { limit },
            // No call ends in these two ways.
            Doom::Cancelled | Doom::Silent | Doom::Lied => Why::Cancelled,
        }
    }

    /// What whoever finds the worker dead should know, where the call's end does not say it.
    pub(super) fn note(self) -> Option<&'static str> {
        match self {
            Doom::TimedOut(_) | Doom::OutOfMemory(_) | Doom::Cancelled => None,
            Doom::Silent => {
                Some("it was killed because it had nothing left to run and did not say so")
            }
            Doom::Lied => Some(
                "it was killed because what it wrote into the memory that it shares with its coordinator makes no sense",
            ),
        }
    }
}

/// The state of a slot.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each worker, and most are busy"
)]
pub(super) enum Slot {
    /// It has no worker, or one that is not ready yet.
    Starting,
    /// Its worker waits for calls.
    Idle,
    /// Its worker runs a batch.
    Busy(Busy),
}

/// A batch under way. Its calls are counted from 0 here, as on the link.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) map: MapId,
    /// The index of its first call.
    pub(super) first: u64,
    /// Which try of its calls it is, from 1.
    pub(super) attempt: u32,
    /// How many calls were sent.
    pub(super) sent: u32,
    /// How many of them the worker may run: the others have been taken back.
    pub(super) limit: u32,
    /// How many the worker has answered for, or said that it would not run.
    pub(super) heard: u32,
    /// How many have ended, as far as the map knows. These are more than the worker has answered for if outputs were
    /// found in the black box.
    pub(super) reported: u32,
    pub(super) begun: Time,
    /// How long the worker has worked on those that it has answered for, by its own word.
    pub(super) worked: Duration,
    /// When the call that is running began, as far as one knows.
    pub(super) since: Time,
    /// How many calls the worker was seen to have started. If the black box shows fewer later, the worker lies.
    pub(super) started: u32,
    /// The last call for which the worker's own word on its beginning was accepted, counted from 1, and that
    /// beginning.
    believed: (u32, Time),
    pub(super) limits: Limits,
    pub(super) end: End,
    /// The worker is dead, or nobody listens to it any more. Its black box is not read again.
    pub(super) is_gone: bool,
}

/// What is to become of the running call.
#[derive(Debug)]
pub(super) enum End {
    /// No limit.
    Open,
    /// The worker is killed at this time, because the call has then run this long.
    Limited { at: Time, limit: Duration },
    /// No call is running: the worker has only to say that it is done, and is killed if it has not by this time.
    Owing { kill_at: Time },
    /// Its worker has had SIGTERM, and gets SIGKILL at this time.
    Terminated { doom: Doomed, kill_at: Time },
    /// Its worker has had SIGKILL.
    Killed { doom: Doomed },
}

/// Which call of the batch it is that is killed, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) doom: Doom,
    pub(super) call: Option<u32>,
}

impl Doomed {
    /// The doom of a worker that lied: nobody knows which call it runs.
    pub(super) const LIED: Self = Doomed {
        doom: Doom::Lied,
        call: None,
    };
}

impl Busy {
    /// A batch that is about to be sent.
    pub(super) fn new<J, I>(map: MapId, batch: &Batch<J, I>, now: Time, limits: Limits) -> Self {
        let mut busy = Busy {
            map,
            first: batch.first,
            attempt: batch.attempt,
            sent: batch.count,
            limit: batch.count,
            heard: 0,
            reported: 0,
            begun: now,
            worked: Duration::ZERO,
            since: now,
            started: 0,
            believed: (0, now),
            limits,
            end: End::Open,
            is_gone: false,
        };
        busy.next_call(now);
        busy
    }

    /// Another call has begun, unless there is none left.
    pub(super) fn next_call(&mut self, began: Time) {
        self.since = began;
        if self.doomed().is_none() && !self.owes(began) {
            self.end = match self.limits.timeout {
                Some(limit) => End::Limited {
                    at: began.saturating_add(limit),
                    limit,
                },
                None => End::Open,
            };
        }
    }

    /// Notes how far the worker has come. `None` if the black box shows what can't be: a worker counts only upwards,
    /// and no further than it is allowed to.
    pub(super) fn note(&mut self, seen: Seen) -> Option<Seen> {
        let is_possible = (self.started..=self.limit).contains(&seen.started);
        let seen = Some(seen).filter(|seen| is_possible && seen.finished <= seen.started)?;
        self.started = seen.started;
        Some(seen)
    }

    /// Notes that the worker was allowed no more than `to` calls, and keeps so many. `None` if that can't be: it has
    /// to keep what it has started, and can't keep more than it had.
    pub(super) fn keeps(&mut self, to: u32, kept: u32) -> Option<u32> {
        let least = to.max(self.started).min(self.limit);
        (least..=self.limit).contains(&kept).then_some(kept)
    }

    /// Whether the running call began later than was known, by its worker's word. Either another call runs by now, or
    /// the worker resolves a backtrace. A worker that goes on claiming so is not believed.
    pub(super) fn begins_again(&mut self, seen: Seen, now: Time) -> bool {
        // A beginning that lies in the future is nonsense.
        if seen.started == 0 || seen.began <= self.since || seen.began > now {
            return false;
        }
        let (call, since) = self.believed;
        if seen.started > call && seen.started <= self.limit {
            self.believed = (seen.started, seen.began);
            return true;
        }
        seen.began <= since.saturating_add(SET_BACK)
    }

    /// If all of its calls have ended or were taken back, the worker has only to say so. One that is
    /// stopped, or stuck where no call is to blame, must not hold up the end of the pool.
    pub(super) fn owes(&mut self, now: Time) -> bool {
        let owes = self.limit == self.reported && !self.is_answered() && self.doomed().is_none();
        if owes {
            self.has_to_answer(now);
        }
        owes
    }

    /// The worker has only to say that it is done, and is killed if it does not.
    pub(super) fn has_to_answer(&mut self, now: Time) {
        if !matches!(self.end, End::Owing { .. }) {
            let kill_at = now.saturating_add(self.limits.grace.max(ANSWER));
            self.end = End::Owing { kill_at };
        }
    }

    pub(super) fn doomed(&self) -> Option<Doomed> {
        match self.end {
            End::Terminated { doom, .. } | End::Killed { doom } => Some(doom),
            End::Open | End::Limited { .. } | End::Owing { .. } => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.end {
            End::Limited { at, .. }
            | End::Owing { kill_at: at }
            | End::Terminated { kill_at: at, .. } => Some(at),
            End::Open | End::Killed { .. } => None,
        }
    }

    /// Decides how the running call ends, and says what its worker is to be sent.
    pub(super) fn condemn(&mut self, doom: Doom, call: Option<u32>, now: Time) -> Stage {
        let doomed = Doomed { doom, call };
        // Memory that runs out can't wait for a worker to tidy up.
        if self.limits.grace.is_zero() || matches!(doom, Doom::OutOfMemory(_)) {
            self.end = End::Killed { doom: doomed };
            return Stage::Kill;
        }
        let kill_at = now.saturating_add(self.limits.grace);
        self.end = End::Terminated {
            doom: doomed,
            kill_at,
        };
        Stage::Term
    }

    /// How many calls the worker has answered for with its answer for `count` from `at` on.
    pub(super) fn answered_by(&self, at: u32, count: u32) -> Result<u32, String> {
        let end = at.checked_add(count).filter(|end| *end <= self.limit);
        let end = end.filter(|_| at == self.heard && count > 0);
        end.ok_or_else(|| {
            format!(
                "a reply to {count} calls from {at} on instead of from {} to {}",
                self.heard, self.limit
            )
        })
    }

    /// What the worker says of the calls from `at` on: which of them the map has not heard of yet.
    pub(super) fn hear(&mut self, at: u32, count: u32) -> Result<std::ops::Range<u32>, String> {
        let end = self.answered_by(at, count)?;
        self.heard = end;
        // The doomed call ends as was decided, whatever the worker says of it. The worker is about to die.
        let spared = self.doomed().and_then(|doomed| doomed.call).unwrap_or(end);
        let news = self.reported.max(at)..end.min(spared);
        self.reported = self.reported.max(news.end);
        Ok(news)
    }

    /// Whether the worker has nothing left to say.
    pub(super) fn is_answered(&self) -> bool {
        self.heard >= self.sent
    }
}

impl Slot {
    pub(super) fn busy(&self) -> Option<&Busy> {
        match self {
            Slot::Busy(busy) => Some(busy),
            Slot::Starting | Slot::Idle => None,
        }
    }

    pub(super) fn busy_mut(&mut self) -> Option<&mut Busy> {
        match self {
            Slot::Busy(busy) => Some(busy),
            Slot::Starting | Slot::Idle => None,
        }
    }

    /// How much memory its worker may have for what it runs.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        let busy = self.busy().filter(|busy| busy.doomed().is_none())?;
        busy.limits.memory
    }

    /// Moves the deadline, for time that did not count.
    pub(super) fn postpone(&mut self, by: Duration) {
        if let Slot::Busy(Busy {
            end:
                End::Limited { at, .. }
                | End::Owing { kill_at: at }
                | End::Terminated { kill_at: at, .. },
            ..
        }) = self
        {
            *at = at.saturating_add(by);
        }
    }
}
