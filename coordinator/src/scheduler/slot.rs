//! The state of one slot, and the tokens that stand for it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Limits, MapId, SlotId, Time};

/// A worker that has nothing to do. Whoever holds this may ask for calls, once.
#[derive(Debug)]
#[must_use = "the slot's worker would never be used again"]
pub(crate) struct Idle {
    pub(super) slot: SlotId,
}

/// A worker that has been given calls, and those it has not answered for.
#[derive(Debug)]
#[must_use = "the calls would never end"]
pub(crate) struct Running {
    pub(super) slot: SlotId,
    pub(super) map: MapId,
    unanswered: VecDeque<u64>,
}

impl Running {
    pub(super) fn new(idle: Idle, map: MapId, calls: impl Iterator<Item = u64>) -> Self {
        Running {
            slot: idle.slot,
            map,
            unanswered: calls.collect(),
        }
    }

    /// The call that the worker is running: the first it has not answered for.
    pub(crate) fn front(&self) -> Option<u64> {
        self.unanswered.front().copied()
    }

    /// The map its calls belong to.
    pub(crate) fn map(&self) -> MapId {
        self.map
    }

    pub(super) fn answered(&mut self) {
        self.unanswered.pop_front();
    }

    pub(super) fn rest(self) -> impl Iterator<Item = u64> {
        self.unanswered.into_iter()
    }
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
}

/// The state of a slot.
#[derive(Debug)]
pub(super) enum Slot {
    /// It has no worker, or one that is not ready yet.
    Starting,
    /// Its worker waits for calls.
    Idle,
    /// Its worker runs a call.
    Busy {
        map: MapId,
        index: u64,
        since: Time,
        limits: Limits,
        end: End,
    },
}

/// What is to become of a running call.
#[derive(Debug)]
pub(super) enum End {
    /// It may run for as long as it likes.
    Open,
    /// It is killed at this time, for having run this long.
    Limited { at: Time, limit: Duration },
    /// Its worker has had SIGTERM, and gets SIGKILL at this time.
    Terminated { doom: Doom, kill_at: Time },
    /// Its worker has had SIGKILL.
    Killed { doom: Doom },
}

impl Slot {
    /// The state after the worker has been sent, or has answered for, a call.
    pub(super) fn busy(running: &Running, now: Time, limits: Limits) -> Slot {
        let Some(index) = running.front() else {
            return Slot::Idle;
        };
        let end = match limits.timeout {
            Some(limit) => End::Limited {
                at: now.saturating_add(limit),
                limit,
            },
            None => End::Open,
        };
        Slot::Busy {
            map: running.map,
            index,
            since: now,
            limits,
            end,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Slot::Busy { .. })
    }

    /// The call it runs, and since when.
    pub(super) fn running(&self) -> Option<(MapId, u64, Time)> {
        match self {
            Slot::Busy {
                map, index, since, ..
            } => Some((*map, *index, *since)),
            _ => None,
        }
    }

    pub(super) fn doom(&self) -> Option<Doom> {
        match self {
            Slot::Busy {
                end: End::Terminated { doom, .. } | End::Killed { doom },
                ..
            } => Some(*doom),
            _ => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Slot::Busy {
                end: End::Limited { at, .. },
                ..
            } => Some(*at),
            Slot::Busy {
                end: End::Terminated { kill_at, .. },
                ..
            } => Some(*kill_at),
            _ => None,
        }
    }

    /// How much memory its worker may have for the call it runs.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        match self {
            Slot::Busy {
                limits,
                end: End::Open | End::Limited { .. },
                ..
            } => limits.memory,
            _ => None,
        }
    }

    /// Decides that the running call ends as `doom`, unless that is decided already; says what its
    /// worker is to be sent.
    pub(super) fn condemn(&mut self, doom: Doom, now: Time) -> Option<Stage> {
        let Slot::Busy {
            limits,
            end: end @ (End::Open | End::Limited { .. }),
            ..
        } = self
        else {
            return None;
        };
        // Memory that runs out can't wait for a worker to tidy up.
        if limits.grace.is_zero() || matches!(doom, Doom::OutOfMemory(_)) {
            *end = End::Killed { doom };
            return Some(Stage::Kill);
        }
        let kill_at = now.saturating_add(limits.grace);
        *end = End::Terminated { doom, kill_at };
        Some(Stage::Term)
    }

    /// What is to be sent to the worker if its deadline has passed.
    pub(super) fn overdue(&mut self, now: Time) -> Option<Stage> {
        let Slot::Busy { end, .. } = self else {
            return None;
        };
        match *end {
            End::Limited { at, limit } if at <= now => self.condemn(Doom::TimedOut(limit), now),
            End::Terminated { doom, kill_at } if kill_at <= now => {
                *end = End::Killed { doom };
                Some(Stage::Kill)
            }
            _ => None,
        }
    }

    /// Moves the deadline, for time that did not count.
    pub(super) fn postpone(&mut self, by: Duration) {
        if let Slot::Busy {
            end: End::Limited { at, .. } | End::Terminated { kill_at: at, .. },
            ..
        } = self
        {
            *at = at.saturating_add(by);
        }
    }
}
