//! What the threads of a pool share: the scheduler under its lock, and whom to wake.

use std::collections::{HashMap, VecDeque};
use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use protocol::black_box::BlackBox;
use protocol::board::Board;
use protocol::message::TaskInfo;
use protocol::parcel::Owned;
use protocol::parcel::Parcel;
use worker::private::Kept;
use worker::private::home::Home;

use crate::condition::Condition;
use crate::courier::Courier;
use crate::data::{By, Inputs, Job, Payload, Trace, Values};
use crate::error::{Death, PoolError};
use crate::launch::Launcher;
use crate::os::{self, Bell, WorkerProcess};
use crate::output::{Output, OutputFiles, Printed};
use crate::pool::RunningCall;
use crate::scheduler::{Effects, Idle, Limits, MapId, Scheduler, Seen, Sight, SlotId, Stage, Time};
use crate::seat::Seat;
use crate::signals::Signals;
use crate::socket::SharedSocket;
use crate::stray::Stray;

pub(crate) type Jobs = Scheduler<Arc<Job>, Inputs, Trace>;

/// The initializer: what each worker runs before its first call.
#[derive(Debug)]
pub(crate) struct Initializer {
    pub(crate) job: Job,
    pub(crate) input: Vec<u8>,
    /// What the input refers to.
    pub(crate) kept: Vec<Kept>,
}

/// What does not change in a pool's life.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) launcher: Launcher,
    pub(crate) slots: usize,
    /// What calls may cost, unless they say otherwise.
    pub(crate) limits: Limits,
    pub(crate) initializer: Option<Initializer>,
    pub(crate) recycle_after: Option<u64>,
    /// In bytes.
    pub(crate) recycle_above: Option<u64>,
    /// The worker leaves with 1 if its last call did not succeed, and not before this long after
    /// it got ready, unless someone is waiting for that: see [`Process`](crate::Process).
    pub(crate) single: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// No code of the host runs while it is held: no waker's clone, wake or drop, no logger, no encoder or
    /// decoder of values. Such code may use the pool, and would wait for itself.
    state: Mutex<State>,
    /// Each slot waits at its own for calls.
    work: Vec<Condition>,
    /// The slot waits here whose turn it is next to start a worker.
    pub(crate) next_to_start: Condition,
    /// The others.
    pub(crate) queue_to_start: Condition,
    /// Whoever waits for the pool as a whole waits here: its first worker, its end.
    milestone: Condition,
    /// When the pool began, by the system's monotonic clock, in nanoseconds.
    began: u64,
    /// The process whose pool it is.
    home: Home,
    /// Wakes the supervisor.
    pub(crate) wake: Bell,
    /// Readable once the pool needs no more workers.
    pub(crate) stop: PipeReader,
    /// Wakes tasks of the host's async runtimes.
    wakers: Courier,
    signals: Signals,
    /// Forwards what calls printed that nobody waits for. Not the same as the one above: it may wait for the
    /// host's stdout for ever.
    pub(crate) printer: Courier,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) jobs: Jobs,
    /// What each slot's worker is, for those outside of its thread.
    pub(crate) posts: Vec<Post>,
    watchers: HashMap<MapId, Arc<Watcher>>,
    /// What workers printed outside of calls, and nobody has taken.
    pub(crate) strays: VecDeque<Stray>,
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
    sleeping: Vec<SlotId>,
    /// Where a slot's worker is while the slot waits.
    parked: Vec<Parked>,
    /// As [`Shared::began`].
    began: u64,
    /// Since when the supervisor is wanted for a deadline, if it has not looked yet.
    pub(crate) rearmed: Option<Time>,
    /// Closed to make [`Shared::stop`] readable.
    stop_writer: Option<PipeWriter>,
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

impl State {
    /// The scheduler, and what it may look at meanwhile.
    pub(crate) fn jobs_and_sight(&mut self) -> (&mut Jobs, Boxes<'_>) {
        let boxes = Boxes {
            posts: &self.posts,
            began: self.began,
        };
        (&mut self.jobs, boxes)
    }

    /// Reports what a slot's worker has finished and not said yet.
    pub(crate) fn collect(&mut self, slot: SlotId, now: Time) {
        let Some((first, reported)) = self.jobs.unreported(slot) else {
            return;
        };
        let post = &self.posts[slot.0];
        let (Some(black_box), Some(pid)) = (&post.black_box, post.pid) else {
            return;
        };
        let found = black_box.finished(reported);
        let payload = Payload::from(Parcel::Whole(Owned::new(found.outputs)));
        let count = u32::try_from(found.lens.len()).unwrap_or(0);
        let first = first + u64::from(reported);
        // What makes no sense is not there.
        if let Ok(values) = Values::new(first, found.lens, found.nanos, payload) {
            let news = self.jobs.found(slot, count, now, |news| {
                let bytes = values.size(0, news);
                (Trace::many(By { slot, pid }, Arc::new(values)), bytes)
            });
            self.counts.succeeded += u64::from(news);
        }
    }
}

impl State {
    /// What a slot is running now.
    pub(crate) fn running_on(&mut self, slot: SlotId, now: Time) -> Option<RunningCall> {
        // What was finished before it and not said is silent: then all that is new in the files is its.
        self.collect(slot, now);
        let (jobs, sight) = self.jobs_and_sight();
        let current = jobs.running_on(slot, &sight)?;
        let post = &sight.posts[slot.0];
        let worker = post.pid?;
        let files = post.files.as_ref().filter(|_| current.is_next);
        let mut printed = files.map(OutputFiles::peek).unwrap_or_default();
        // It may have ended while we looked, and the next one have begun to print. A new batch can't
        // have begun: that takes the lock that we hold.
        let later = jobs.running_on(slot, &sight);
        if later.is_none_or(|later| later.index != current.index) {
            printed = Printed::default();
        }
        Some(RunningCall {
            task: current.job.task.clone(),
            index: current.index,
            attempt: current.attempt,
            slot: slot.0 + 1,
            worker,
            elapsed: now.saturating_sub(current.since),
            stdout: printed.stdout,
            stderr: printed.stderr,
        })
    }
}

/// The black boxes of all workers.
#[derive(Debug)]
pub(crate) struct Boxes<'s> {
    pub(crate) posts: &'s [Post],
    began: u64,
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

/// What is to be done when the state is no longer held.
struct After {
    wakers: Vec<Waker>,
    /// Whether there may be some to send.
    signals: bool,
}

/// Who waits for a map.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    changed: Condition,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// Where large inputs are written.
    #[inline]
    pub(crate) fn board(&self) -> Option<&Arc<Board>> {
        let board = self.config.launcher.board.as_ref();
        board.map(|board| &board.board)
    }

    /// The state of a new pool.
    pub(crate) fn new(config: Config, jobs: Jobs) -> io::Result<Self> {
        let wake = Bell::new()?;
        let (stop, stop_writer) = os::pipe()?;
        let began = os::now();
        let state = State {
            jobs,
            posts: (0..config.slots).map(|_| Post::default()).collect(),
            watchers: HashMap::new(),
            strays: VecDeque::new(),
            slots_left: config.slots,
            starting: 0,
            is_next_to_start: false,
            tasks: None,
            failure: None,
            last_death: None,
            counts: Counts::default(),
            hurry: false,
            rearmed: None,
            sleeping: Vec::new(),
            parked: (0..config.slots).map(|_| Parked::InUse).collect(),
            began,
            stop_writer: Some(stop_writer),
        };
        let slots = config.slots;
        Ok(Shared {
            config,
            state: Mutex::new(state),
            work: (0..slots).map(|_| Condition::default()).collect(),
            next_to_start: Condition::default(),
            queue_to_start: Condition::default(),
            milestone: Condition::default(),
            began,
            home: Home::here(),
            wake,
            stop,
            wakers: Courier::new("waker"),
            signals: Signals::default(),
            printer: Courier::new("printer"),
        })
    }

    /// Whether this process is a copy, by `fork`, of the one whose pool it is. In a copy nothing of the pool may be
    /// touched: there are no threads that would answer, its lock may be held for ever, and the links to the workers are
    /// those of the other process.
    pub(crate) fn is_copied(&self) -> bool {
        !self.home.is_here()
    }

    pub(crate) fn now(&self) -> Time {
        Duration::from_nanos(os::now().saturating_sub(self.began))
    }

    pub(crate) fn output(&self) -> Output {
        self.config.launcher.output
    }

    /// Looks at the state without changing what anyone waits for.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and then does what the scheduler says is to be done about it.
    pub(crate) fn act<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state();
        let result = change(&mut state);
        self.release(state);
        result
    }

    /// Does what the scheduler says is to be done about what was changed, and lets go of the state.
    pub(crate) fn release(&self, mut state: MutexGuard<'_, State>) {
        let After { wakers, signals } = self.carry_out(&mut state);
        drop(state);
        if signals {
            self.signals.send();
        }
        // A waker may run anything: it may end this pool, which waits for its slots, or it may panic. So no
        // thread of the pool runs it.
        for waker in wakers {
            self.wakers.send(|| waker.wake());
        }
    }

    /// Does it while the state is held, but for what is for when it is not.
    fn carry_out(&self, state: &mut State) -> After {
        let Effects {
            wake,
            work,
            everyone,
            signals,
            rearm,
        } = state.jobs.take_effects();
        let mut wakers = Vec::new();
        for map in wake {
            if let Some(watcher) = state.watchers.get(&map) {
                watcher.changed.notify_all();
                wakers.extend(watcher.waker().take());
            }
        }
        if everyone {
            self.wake_slots();
            self.next_to_start.notify_all();
            self.queue_to_start.notify_all();
            self.milestone.notify_all();
            if !state.jobs.wants_worker() {
                state.stop_writer = None;
            }
        } else {
            // A slot that does not sleep looks for calls by itself before it does.
            let woken = work.min(state.sleeping.len());
            for slot in state.sleeping.drain(state.sleeping.len() - woken..) {
                self.work[slot.0].notify_one();
            }
            state.jobs.woken(woken);
        }
        for (slot, stage) in &signals {
            self.signal(state, *slot, *stage);
        }
        if rearm {
            state.rearmed.get_or_insert_with(|| self.now());
            self.wake_supervisor();
        }
        After {
            wakers,
            signals: !signals.is_empty(),
        }
    }

    fn wake_slots(&self) {
        self.work.iter().for_each(Condition::notify_all);
    }

    fn signal(&self, state: &State, slot: SlotId, stage: Stage) {
        let post = &state.posts[slot.0];
        if let (Stage::Term, Some(black_box)) = (stage, &post.black_box) {
            black_box.doom();
        }
        match (&post.process, &post.socket) {
            (Some(process), _) => self.signals.decide(process, stage),
            // A worker that was started by hand is not ours to kill; we stop listening to it.
            (None, Some(socket)) if matches!(stage, Stage::Term | Stage::Kill) => {
                socket.stop_reading();
            }
            (None, _) => {}
        }
    }

    /// A thread of the pool has panicked, that of a slot or the supervisor's. Whoever waits for its calls would wait for
    /// ever, so the pool ends.
    pub(crate) fn is_broken(&self, slot: Option<SlotId>) {
        let now = self.now();
        self.act(|state| {
            let why = "a thread of the pool panicked, which is a bug: what it said is on stderr";
            state
                .failure
                .get_or_insert_with(|| PoolError::System(why.to_owned()));
            if let Some(slot) = slot {
                let by = By {
                    slot,
                    pid: state.posts[slot.0].pid.unwrap_or(0),
                };
                let trace = Trace::one(by, Duration::ZERO, Printed::default(), Payload::default());
                let (jobs, sight) = state.jobs_and_sight();
                jobs.abandon(slot, trace, now, &sight);
            }
            let (jobs, sight) = state.jobs_and_sight();
            jobs.terminate(now, why, &sight);
        });
    }

    pub(crate) fn wake_supervisor(&self) {
        self.wake.ring();
    }

    // ---- Waiting ---------------------------------------------------------------------------

    /// Parks a slot's worker and waits until there may be something for it to do, for at most `limit`.
    /// Returns where it was parked by then.
    pub(crate) fn sleep<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        slot: SlotId,
        parked: Parked,
        mut limit: Option<Duration>,
    ) -> (MutexGuard<'s, State>, Parked) {
        state.parked[slot.0] = parked;
        match limit {
            // One that keeps watch is woken up for other things only if there is nobody else: another would have to
            // be woken up to keep watch instead.
            Some(_) => state.sleeping.insert(0, slot),
            None => state.sleeping.push(slot),
        }
        loop {
            state = self.work[slot.0].wait(state, limit);
            state.sleeping.retain(|sleeping| *sleeping != slot);
            match std::mem::replace(&mut state.parked[slot.0], Parked::InUse) {
                // A caller has borrowed it, and will say when it is back.
                Parked::InUse => limit = None,
                parked => return (state, parked),
            }
        }
    }

    /// Borrows a worker that waits for a call: the call of this map, if no other is ready.
    pub(crate) fn borrow(state: &mut State, map: MapId) -> Option<(Box<Seat>, Idle)> {
        if !state.jobs.is_next(map) {
            return None;
        }
        let slot = *state.sleeping.last()?;
        if state.posts[slot.0].dead {
            return None;
        }
        match std::mem::replace(&mut state.parked[slot.0], Parked::InUse) {
            Parked::Here(seat, idle) => {
                state.sleeping.pop();
                Some((seat, idle))
            }
            other => {
                state.parked[slot.0] = other;
                None
            }
        }
    }

    /// Gives back a worker that was borrowed.
    pub(crate) fn give_back(&self, state: &mut State, slot: SlotId, parked: Parked) {
        let stays = match &parked {
            Parked::Here(seat, _) => {
                !state.posts[slot.0].dead
                    && !seat.is_worn_out()
                    && state.jobs.wants_worker()
                    && !state.jobs.has_ready()
            }
            Parked::InUse | Parked::Gone => false,
        };
        state.parked[slot.0] = match parked {
            Parked::Here(seat, idle) if stays => Parked::Here(seat, idle.waits()),
            parked => parked,
        };
        if stays {
            state.sleeping.push(slot);
        } else {
            self.work[slot.0].notify_one();
        }
    }

    /// Waits until something is true of the pool as a whole, or until the limit has passed; says
    /// whether it is.
    pub(crate) fn wait_until(
        &self,
        limit: Option<Duration>,
        reached: impl Fn(&State) -> bool,
    ) -> bool {
        // A limit beyond what a clock can hold is none.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut state = self.state();
        loop {
            if reached(&state) {
                return true;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            state = self.milestone.wait(state, left);
        }
    }

    /// Tells those in [`wait_until`](Self::wait_until) to look again.
    pub(crate) fn milestone(&self) {
        self.milestone.notify_all();
    }

    /// Has a slot look again at what became of its worker.
    pub(crate) fn wake_slot(&self, slot: SlotId) {
        self.work[slot.0].notify_all();
    }

    pub(crate) fn watch(state: &mut State, map: MapId) -> Arc<Watcher> {
        Arc::clone(state.watchers.entry(map).or_default())
    }

    pub(crate) fn unwatch(state: &mut State, map: MapId) {
        state.watchers.remove(&map);
    }
}

impl Watcher {
    /// Waits for a change of the map, for at most `limit`.
    pub(crate) fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        limit: Option<Duration>,
    ) -> MutexGuard<'s, State> {
        self.changed.wait(state, limit)
    }

    /// Tells everyone who waits for the map to look again.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Whom to wake at the next change. The caller must not hold the state: cloning a waker and dropping
    /// one run the host's code, and that code may use the pool.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let waker = waker.clone();
        // The lock is gone at the end of this statement; the old waker is dropped after it.
        let replaced = self.waker().replace(waker);
        drop(replaced);
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
