//! What the threads of a pool have in common, behind the one lock.

use std::collections::{HashMap, VecDeque};
use std::io::PipeWriter;
use std::sync::Arc;
use std::time::Duration;

use protocol::black_box::BlackBox;
use protocol::message::TaskInfo;

use super::machines::Machines;
use super::running::RunningCall;
use super::seat::Seat;
use super::singles::Singles;
use super::stray::Stray;
use super::watcher::Watcher;
use crate::error::{Death, PoolError};
use crate::os::WorkerProcess;
use crate::payload::printed::{OutputFiles, Printed};
use crate::payload::{EncodedInputs, Job, Trace};
use crate::scheduler::{Idle, MapId, Scheduler, Seen, Sight, SlotId, Time};
use crate::workers::socket::SharedSocket;
use crate::workers::template::Template;

pub(crate) type Jobs = Scheduler<Arc<Job>, EncodedInputs, Trace>;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) jobs: Jobs,
    /// What each slot's worker is, for those outside of its thread.
    pub(crate) posts: Vec<Post>,
    pub(super) watchers: HashMap<MapId, Arc<Watcher>>,
    /// Calls that are made one by one.
    pub(crate) singles: Singles,
    /// What workers printed outside of calls, and nobody has taken.
    pub(crate) strays: VecDeque<Stray>,
    /// Where workers are copied from.
    pub(crate) source: Source,
    /// The pool's agents.
    pub(crate) machines: Machines,
    /// Slots whose threads have not ended.
    pub(crate) slots_left: usize,
    /// Slots whose workers are being started.
    pub(crate) starting: usize,
    /// A slot waits until it is its turn.
    pub(crate) is_next_to_start: bool,
    /// The tasks of the first worker that got ready.
    pub(crate) tasks: Option<Arc<[TaskInfo]>>,
    /// Why the pool can't work.
    pub(crate) failure: Option<PoolError>,
    pub(crate) last_death: Option<Death>,
    pub(crate) counts: Counts,
    /// Somebody waits for the pool's end.
    pub(crate) hurry: bool,
    /// The slots that wait for calls, the one that is best woken up last: it has waited least, so its worker's memory is
    /// warm, and keeps no watch.
    pub(super) sleeping: Vec<SlotId>,
    /// Where a slot's worker is while the slot waits.
    pub(super) parked: Vec<Parked>,
    /// What calls have printed that were reported just now. To let go of it may take a system call, so it is kept until
    /// the state is not held any more.
    pub(super) printed: Vec<(Printed, Wanted)>,
    /// As `PoolShared::began`.
    pub(super) began: u64,
    /// Since when the supervisor is wanted for a deadline, if it has not looked yet.
    pub(crate) rearmed: Option<Time>,
    /// Closed to make `PoolShared::stop` readable.
    pub(super) stop_writer: Option<PipeWriter>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) died: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

/// A slot's worker.
#[derive(Debug, Default)]
pub(crate) struct Post {
    pub(crate) process: Option<Arc<WorkerProcess>>,
    pub(crate) socket: Option<SharedSocket>,
    pub(crate) pid: Option<u32>,
    pub(crate) black_box: Option<Arc<BlackBox>>,
    /// Where what it prints goes, if not elsewhere.
    pub(crate) files: Option<OutputFiles>,
    /// The supervisor has seen it die.
    pub(crate) dead: bool,
    /// How many calls it has answered for.
    pub(crate) calls: u64,
}

/// Where workers are copied from, in a pool with warm copies.
#[derive(Debug)]
pub(crate) enum Source {
    /// Nowhere yet, or no more: the next worker becomes the template.
    None,
    /// A slot is about to have a template.
    Coming,
    Template(Arc<Template>),
    /// This program's workers can't be copied.
    Never,
}

impl Source {
    /// Takes the template away, if it is this one.
    pub(crate) fn take(&mut self, process: &Arc<WorkerProcess>) -> Option<Arc<Template>> {
        match self {
            Source::Template(template) if Arc::ptr_eq(template.process(), process) => {
                match std::mem::replace(self, Source::None) {
                    Source::Template(template) => Some(template),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Where a slot's worker is.
#[derive(Debug)]
pub(crate) enum Parked {
    /// With whoever runs calls on it, or nowhere yet.
    InUse,
    /// Here, for whoever has a call for it.
    Here(Box<Seat>, Idle),
    /// It died with a caller who had borrowed it.
    Gone,
}

impl Counts {
    /// One more call has ended.
    pub(super) fn ended(&mut self, succeeded: bool) {
        match succeeded {
            true => self.succeeded += 1,
            false => self.failed += 1,
        }
    }
}

impl State {
    pub(super) fn new(jobs: Jobs, slots: usize, began: u64, stop_writer: PipeWriter) -> Self {
        State {
            jobs,
            posts: (0..slots).map(|_| Post::default()).collect(),
            watchers: HashMap::new(),
            singles: Singles::default(),
            strays: VecDeque::new(),
            source: Source::None,
            machines: Machines::default(),
            slots_left: slots,
            starting: 0,
            is_next_to_start: false,
            tasks: None,
            failure: None,
            last_death: None,
            counts: Counts::default(),
            hurry: false,
            rearmed: None,
            sleeping: Vec::new(),
            parked: (0..slots).map(|_| Parked::InUse).collect(),
            printed: Vec::new(),
            began,
            stop_writer: Some(stop_writer),
        }
    }

    /// The scheduler, and what it may look at meanwhile.
    pub(crate) fn jobs_and_sight(&mut self) -> (&mut Jobs, Boxes<'_>) {
        let boxes = Boxes {
            posts: &self.posts,
            began: self.began,
        };
        (&mut self.jobs, boxes)
    }

    /// Borrows a worker that waits for a call: the call of this map, if no other is ready.
    pub(crate) fn borrow(&mut self, map: MapId) -> Option<(Box<Seat>, Idle)> {
        if !self.jobs.is_next(map) {
            return None;
        }
        let slot = *self.sleeping.last()?;
        if self.posts[slot.0].dead {
            return None;
        }
        match std::mem::replace(&mut self.parked[slot.0], Parked::InUse) {
            Parked::Here(seat, idle) => {
                self.sleeping.pop();
                Some((seat, idle))
            }
            other => {
                self.parked[slot.0] = other;
                None
            }
        }
    }

    /// By which whoever waits for a map hears of it.
    pub(crate) fn watch(&mut self, map: MapId) -> Arc<Watcher> {
        Arc::clone(self.watchers.entry(map).or_default())
    }

    pub(crate) fn unwatch(&mut self, map: MapId) {
        self.watchers.remove(&map);
    }

    /// What a slot is running now.
    pub(crate) fn running_on(&mut self, slot: SlotId, now: Time) -> Option<RunningCall> {
        // When the calls that finished before it are reported, all that is new in the files belongs to this call.
        self.collect(slot, now);
        let (jobs, sight) = self.jobs_and_sight();
        let current = jobs.running_on(slot, &sight)?;
        let post = &sight.posts[slot.0];
        let worker = post.pid?;
        let files = post.files.as_ref().filter(|_| current.is_next);
        let mut printed = files.map(OutputFiles::peek).unwrap_or_default();
        // The call may have ended while we looked, and the next one may have begun to print. A new batch can't have
        // begun, because that takes the lock that we hold.
        let later = jobs.running_on(slot, &sight);
        if later.is_none_or(|later| later.index != current.index) {
            printed = Printed::default();
        }
        Some(RunningCall {
            task: current.job.task.to_string(),
            index: current.index,
            attempt: current.attempt,
            slot: slot.number(),
            machine: None,
            worker,
            elapsed: now.saturating_sub(current.since),
            stdout: printed.stdout,
            stderr: printed.stderr,
        })
    }
}

/// Whether somebody takes what a call has printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    /// It is forwarded at once, if it is to be.
    No,
}

impl Wanted {
    pub(super) fn unless(is_unwanted: bool) -> Self {
        match is_unwanted {
            true => Wanted::No,
            false => Wanted::Yes,
        }
    }
}

/// The black boxes of all workers.
#[derive(Debug)]
pub(crate) struct Boxes<'s> {
    pub(crate) posts: &'s [Post],
    pub(super) began: u64,
}

impl Sight for Boxes<'_> {
    fn look(&self, slot: SlotId) -> Seen {
        let Some(black_box) = &self.posts[slot.0].black_box else {
            return Seen {
                started: 0,
                finished: 0,
                began: Time::ZERO,
            };
        };
        let progress = black_box.progress();
        Seen {
            started: progress.started,
            finished: progress.finished,
            began: Duration::from_nanos(black_box.began().saturating_sub(self.began)),
        }
    }

    fn lower(&self, slot: SlotId, to: u32) -> u32 {
        let black_box = self.posts[slot.0].black_box.as_ref();
        black_box.map_or(to, |black_box| black_box.lower(to))
    }
}
