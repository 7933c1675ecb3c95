//! The calls of one map, in input order.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Batch, BatchCall, Time};
use crate::error::Why;

/// In which order results are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// In the order of the inputs.
    #[default]
    Input,
    /// As they come.
    Completion,
}

/// How much of a map may be under way: read from its inputs and not yet taken as a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
}

/// What a call may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How long an attempt may run.
    pub(crate) timeout: Option<Duration>,
    /// How long a worker has between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// How much memory a worker may have while it runs the call, in bytes.
    pub(crate) memory: Option<u64>,
    /// How often a call that did not succeed is tried again.
    pub(crate) retries: u32,
    /// How long to wait before the second attempt; doubled for each further one.
    pub(crate) backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            timeout: None,
            grace: Duration::from_secs(1),
            memory: None,
            retries: 0,
            backoff: Duration::ZERO,
        }
    }
}

/// What a map is to do.
#[derive(Debug, Clone)]
pub(crate) struct MapSpec<J> {
    pub(crate) job: J,
    pub(crate) limits: Limits,
    pub(crate) order: Order,
    pub(crate) window: Window,
    /// The first call that does not succeed cancels those behind it.
    pub(crate) fail_fast: bool,
    /// Inputs are only read while someone takes results.
    pub(crate) lazy: bool,
}

/// A call that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended<T> {
    pub(crate) result: Result<(), Why>,
    pub(crate) attempts: u32,
    /// What is left of the last attempt; `None` if there was none.
    pub(crate) trace: Option<T>,
    /// What else there is to know of it.
    pub(crate) note: Option<String>,
}

/// What there is to take from a map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take<T> {
    /// A result, and its index.
    Ready(u64, Ended<T>),
    /// The next one has not ended yet, or has not been added.
    Pending,
    /// There is none any more.
    Exhausted,
}

#[derive(Debug)]
enum Call<I, T> {
    /// `attempts` have been made already.
    Waiting {
        input: I,
        bytes: usize,
        attempts: u32,
    },
    Running {
        input: I,
        bytes: usize,
        attempts: u32,
    },
    Ended {
        ended: Ended<T>,
        bytes: usize,
    },
    Taken,
}

/// What became of an attempt's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The call is to be tried again: at once, or at a time.
    Again(Option<Time>),
    /// The call has ended; `visible` if that gives [`Map::take`] something.
    Ended { visible: bool },
    /// It has ended, and the calls behind it are cancelled.
    Cut,
}

/// How many times the window's calls there may be places for calls.
const PLACES: usize = 16;

/// Where a map has been cut off.
#[derive(Debug)]
struct Cut {
    /// Calls from this index on do not run, whether they are there already or are pushed later.
    from: u64,
    /// Why.
    note: String,
}

#[derive(Debug)]
pub(super) struct Map<J, I, T> {
    pub(super) spec: MapSpec<J>,
    /// The index of `calls[0]`.
    base: u64,
    calls: VecDeque<Call<I, T>>,
    /// The first call that was never handed out.
    fresh: u64,
    /// Calls that were handed out and came back, ready to run.
    again: BTreeSet<u64>,
    running: u32,
    /// Calls that have not ended.
    unfinished: usize,
    /// Calls that were not taken.
    untaken: usize,
    /// What is under way, in bytes: inputs of calls that have not ended, outputs of those that have.
    bytes: usize,
    /// Ended and not taken, as they ended: only for [`Order::Completion`].
    completed: VecDeque<u64>,
    sealed: bool,
    cut: Option<Cut>,
    pub(super) detached: bool,
    /// When it was served last.
    pub(super) turn: u64,
}

impl<J: Clone, I: Clone, T> Map<J, I, T> {
    pub(super) fn new(spec: MapSpec<J>) -> Self {
        Map {
            spec,
            base: 0,
            calls: VecDeque::new(),
            fresh: 0,
            again: BTreeSet::new(),
            running: 0,
            unfinished: 0,
            untaken: 0,
            bytes: 0,
            completed: VecDeque::new(),
            sealed: false,
            cut: None,
            detached: false,
            turn: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.base + self.calls.len() as u64
    }

    fn call(&mut self, index: u64) -> Option<&mut Call<I, T>> {
        let at = usize::try_from(index.checked_sub(self.base)?).ok()?;
        self.calls.get_mut(at)
    }

    /// How urgently it wants to be served, least first; `None` if it has nothing to run.
    pub(super) fn rank(&self) -> Option<(u32, u64)> {
        let runnable = self.fresh < self.end() || !self.again.is_empty();
        runnable.then_some((self.running, self.turn))
    }

    pub(super) fn has_room(&self) -> bool {
        let Window { calls, bytes } = self.spec.window;
        // A single call larger than the window still has to pass. What has been taken behind a call
        // that is slow to end leaves an empty place: there is a limit to these, too.
        let fits = self.untaken < calls
            && self.calls.len() < calls.saturating_mul(PLACES)
            && self.bytes < bytes;
        !self.is_sealed() && (fits || self.untaken == 0)
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed || self.cut.is_some()
    }

    /// Whether all of its calls have ended, and no more will come.
    pub(super) fn is_finished(&self) -> bool {
        self.unfinished == 0 && self.is_sealed()
    }

    pub(super) fn waiting(&self) -> usize {
        self.unfinished - self.running as usize
    }

    pub(super) fn push(&mut self, input: I, bytes: usize) -> u64 {
        if self.is_sealed() {
            let note = self.cut.as_ref().map(|cut| cut.note.clone());
            let result = Err(Why::Cancelled);
            return self.push_result(Ended {
                result,
                attempts: 0,
                trace: None,
                note,
            });
        }
        let index = self.end();
        self.calls.push_back(Call::Waiting {
            input,
            bytes,
            attempts: 0,
        });
        self.untaken += 1;
        self.unfinished += 1;
        self.bytes += bytes;
        index
    }

    pub(super) fn push_ended(&mut self, why: Why) -> u64 {
        let ended = Ended {
            result: Err(why),
            attempts: 0,
            trace: None,
            note: None,
        };
        let index = self.push_result(ended);
        if self.spec.fail_fast {
            self.cut_behind(index);
        }
        index
    }

    fn push_result(&mut self, ended: Ended<T>) -> u64 {
        let index = self.end();
        // Nothing before it may be skipped: `fresh` only moves past it if it stands there.
        if self.fresh == index {
            self.fresh += 1;
        }
        self.calls.push_back(Call::Ended { ended, bytes: 0 });
        self.untaken += 1;
        self.completed_now(index);
        index
    }

    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    /// The next calls to run. There is one: [`rank`](Self::rank) said so.
    pub(super) fn next_batch(&mut self) -> Batch<J, I> {
        let index = self.next_index();
        let mut calls = Vec::with_capacity(1);
        if let Some(call) = self.call(index)
            && let Call::Waiting {
                input,
                bytes,
                attempts,
            } = std::mem::replace(call, Call::Taken)
        {
            calls.push(BatchCall {
                index,
                attempt: attempts + 1,
                input: input.clone(),
            });
            *call = Call::Running {
                input,
                bytes,
                attempts,
            };
            self.running += 1;
        }
        Batch {
            job: self.spec.job.clone(),
            memory: self.spec.limits.memory,
            calls,
        }
    }

    fn next_index(&mut self) -> u64 {
        if let Some(index) = self.again.pop_first() {
            return index;
        }
        let index = self.fresh;
        self.fresh += 1;
        self.skip_ended();
        index
    }

    /// Moves `fresh` past calls that ended without having run.
    fn skip_ended(&mut self) {
        while self.fresh < self.end() {
            let fresh = self.fresh;
            match self.call(fresh) {
                Some(Call::Waiting { .. }) => break,
                _ => self.fresh += 1,
            }
        }
    }

    /// A running call was not charged, or its backoff has passed: it waits to run again.
    pub(super) fn give_back(&mut self, index: u64) {
        match self.call(index) {
            Some(call @ Call::Running { .. }) => {
                let Call::Running {
                    input,
                    bytes,
                    attempts,
                } = std::mem::replace(call, Call::Taken)
                else {
                    return;
                };
                *call = Call::Waiting {
                    input,
                    bytes,
                    attempts,
                };
                self.running -= 1;
                if self.is_cut(index) {
                    self.cancel(index);
                } else {
                    self.again.insert(index);
                }
            }
            // Its backoff has passed; if it was cancelled in the meantime, that stands.
            Some(Call::Waiting { .. }) => {
                self.again.insert(index);
            }
            _ => {}
        }
    }

    /// An attempt of a running call has ended.
    pub(super) fn settle(
        &mut self,
        index: u64,
        result: Result<(), Why>,
        trace: Option<T>,
        bytes: usize,
        now: Time,
    ) -> Settled {
        let Limits {
            retries, backoff, ..
        } = self.spec.limits;
        let cut = self.is_cut(index);
        // What was stopped because of the cut says so.
        let note = match (&result, &self.cut) {
            (Err(Why::Cancelled), Some(cut)) => Some(cut.note.clone()),
            _ => None,
        };
        let Some(call) = self.call(index) else {
            return Settled::Ended { visible: false };
        };
        let (input, input_bytes, attempts) = match std::mem::replace(call, Call::Taken) {
            Call::Running {
                input,
                bytes,
                attempts,
            } => (input, bytes, attempts + 1),
            other => {
                *call = other;
                return Settled::Ended { visible: false };
            }
        };
        let again = !cut && attempts <= retries && result.as_ref().is_err_and(may_retry);
        if again {
            *call = Call::Waiting {
                input,
                bytes: input_bytes,
                attempts,
            };
            self.running -= 1;
            if backoff.is_zero() {
                self.again.insert(index);
                return Settled::Again(None);
            }
            return Settled::Again(Some(now.saturating_add(delay(backoff, attempts, index))));
        }
        let failed = result.is_err();
        let ended = Ended {
            result,
            attempts,
            trace,
            note,
        };
        *call = Call::Ended { ended, bytes };
        self.running -= 1;
        self.unfinished -= 1;
        self.bytes = self.bytes - input_bytes + bytes;
        let visible = self.completed_now(index);
        if failed && self.spec.fail_fast {
            self.cut_behind(index);
            return Settled::Cut;
        }
        Settled::Ended { visible }
    }

    /// Notes that a call has ended; whether that gives `take` something.
    fn completed_now(&mut self, index: u64) -> bool {
        match self.spec.order {
            Order::Input => index == self.base,
            Order::Completion => {
                self.completed.push_back(index);
                true
            }
        }
    }

    fn cut_behind(&mut self, index: u64) {
        self.cut_from(
            index + 1,
            &format!("call {index} of the same map did not succeed"),
        );
    }

    fn is_cut(&self, index: u64) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.from <= index)
    }

    /// Cancels the calls from `start` that wait; those that are pushed later are cancelled, too.
    pub(super) fn cut_from(&mut self, start: u64, note: &str) {
        if self.cut.as_ref().is_some_and(|cut| cut.from <= start) {
            return;
        }
        self.cut = Some(Cut {
            from: start,
            note: note.to_owned(),
        });
        for index in start.max(self.base)..self.end() {
            self.cancel(index);
        }
        self.again.retain(|index| *index < start);
        self.skip_ended();
    }

    /// Ends a call that waits as cancelled.
    fn cancel(&mut self, index: u64) {
        let note = self.cut.as_ref().map(|cut| cut.note.clone());
        let Some(call) = self.call(index) else { return };
        if let Call::Waiting {
            bytes, attempts, ..
        } = *call
        {
            let ended = Ended {
                result: Err(Why::Cancelled),
                attempts,
                trace: None,
                note,
            };
            *call = Call::Ended { ended, bytes: 0 };
            self.unfinished -= 1;
            self.bytes -= bytes;
            self.completed_now(index);
        }
    }

    pub(super) fn take(&mut self) -> Take<T> {
        let index = match self.spec.order {
            Order::Input => self.base,
            Order::Completion => match self.completed.pop_front() {
                Some(index) => index,
                None if self.is_finished() => return Take::Exhausted,
                None => return Take::Pending,
            },
        };
        let finished = self.is_finished();
        match self.call(index) {
            Some(call @ Call::Ended { .. }) => {
                let Call::Ended { ended, bytes } = std::mem::replace(call, Call::Taken) else {
                    return Take::Pending;
                };
                self.bytes -= bytes;
                self.untaken -= 1;
                self.drop_taken();
                Take::Ready(index, ended)
            }
            None if finished => Take::Exhausted,
            _ => Take::Pending,
        }
    }

    pub(super) fn has_result(&self) -> bool {
        let ready = match self.spec.order {
            Order::Input => matches!(self.calls.front(), Some(Call::Ended { .. })),
            Order::Completion => !self.completed.is_empty(),
        };
        ready || self.is_finished()
    }

    pub(super) fn was_cut(&self) -> bool {
        self.cut.is_some()
    }

    fn drop_taken(&mut self) {
        while let Some(Call::Taken) = self.calls.front() {
            self.calls.pop_front();
            self.base += 1;
        }
    }

    /// Forgets all results.
    pub(super) fn clear(&mut self) {
        self.base = self.end();
        self.fresh = self.base;
        self.calls.clear();
        self.untaken = 0;
        self.again.clear();
        self.completed.clear();
    }
}

/// How long to wait before the next attempt: doubled each time, and stretched by up to a half, so that
/// calls that failed together don't come back together. The stretch depends on the call alone.
fn delay(backoff: Duration, attempts: u32, index: u64) -> Duration {
    let doubled = backoff.saturating_mul(1 << (attempts - 1).min(16));
    // Knuth's multiplicative hash: neighbouring indexes land far apart.
    let stretch = (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as u32;
    doubled.saturating_add(doubled / 2048 * stretch)
}

/// Whether trying again could help.
fn may_retry(why: &Why) -> bool {
    !matches!(why, Why::Cancelled | Why::Undecodable(_))
}
