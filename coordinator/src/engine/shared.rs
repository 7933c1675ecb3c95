//! What the threads of a pool share: the state under its lock, and whom to wake when it has changed.

use std::io::{self, PipeReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use protocol::board::Board;
use worker::private::home::Home;

use super::condition::Condition;
use super::config::Config;
use super::courier::Courier;
use super::signals::Signals;
use super::state::{Jobs, Parked, Post, State, Wanted};
use super::stray::{Stray, StraySource};
use crate::error::PoolError;
use crate::os::{self, Bell, WorkerProcess};
use crate::payload::forward::Forwarder;
use crate::payload::printed::{Output, Printed};
use crate::payload::{By, Payload, Trace};
use crate::scheduler::{Effects, SlotId, Stage, Time};

/// How many strays are kept until somebody takes them.
const KEPT: usize = 1024;

#[derive(Debug)]
pub(crate) struct PoolShared {
    pub(crate) config: Config,
    /// No code of the host runs while it is held: no waker's clone, wake or drop, no logger, no encoder or
    /// decoder of values. Such code may use the pool, and would wait for itself.
    state: Mutex<State>,
    /// Each slot waits at its own for calls.
    work: Vec<Condition>,
    /// The slot waits here whose turn it is next to start a worker.
    pub(crate) next_to_start: Condition,
    /// The other slots that wait to start a worker.
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
    /// Forwards what calls printed that nobody waits for. It has a thread of its own, because it may wait for
    /// the host's stdout for ever.
    pub(crate) printer: Courier,
}

/// What is to be done when the state is no longer held.
struct Afterwards {
    wakers: Vec<Waker>,
    /// Whether there may be signals to send.
    signals: bool,
    /// What is let go of then.
    printed: Vec<(Printed, Wanted)>,
}

impl PoolShared {
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
        let state = State::new(jobs, config.slots, began, stop_writer);
        let slots = config.slots;
        Ok(PoolShared {
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
        let Afterwards {
            wakers,
            signals,
            printed,
        } = self.carry_out(&mut state);
        drop(state);
        if !printed.is_empty() {
            self.printer.go();
        }
        if signals {
            self.signals.send();
        }
        // A waker may run anything: it may end this pool, which waits for its slots, or it may panic. So no
        // thread of the pool runs it.
        for waker in wakers {
            self.wakers.send(|| waker.wake());
        }
    }

    /// Does what has to be done under the lock, and keeps the rest for afterwards.
    fn carry_out(&self, state: &mut State) -> Afterwards {
        let Effects {
            wake,
            ended,
            work,
            everyone,
            signals,
            rearm,
            agents,
        } = state.jobs.take_effects();
        state.machines.tell(agents);
        let mut wakers = Vec::new();
        for map in wake {
            if let Some(watcher) = state.watchers.get(&map) {
                watcher.changed.notify_all();
                wakers.extend(watcher.waker().take());
            }
        }
        for (map, calls) in ended {
            for watcher in state.singles.watchers_of(map, calls) {
                watcher.notify();
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
            // A slot that is awake looks for calls before it sleeps, so nobody has to wake it.
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
        // In the order in which the calls were reported.
        for (printed, wanted) in &state.printed {
            if *wanted == Wanted::No && self.output() == Output::Forward {
                let printed = printed.clone();
                self.printer
                    .hold(move || Forwarder::default().forward(&printed));
            }
        }
        Afterwards {
            wakers,
            signals: !signals.is_empty(),
            printed: std::mem::take(&mut state.printed),
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

    /// Ends the pool, because one of its threads has panicked: that of a slot, or another. Whoever waits for its calls would wait
    /// for ever.
    pub(crate) fn break_down(&self, slot: Option<SlotId>) {
        let now = self.now();
        self.act(|state| {
            let why = "a thread of the pool panicked, which is a bug: what it said is on stderr";
            state
                .failure
                .get_or_insert_with(|| PoolError::System(why.to_owned()));
            if let Some(slot) = slot {
                let by = By::here(slot, state.posts[slot.0].pid.unwrap_or(0));
                let trace = Trace::one(by, Duration::ZERO, Printed::default(), Payload::default());
                let (jobs, sight) = state.jobs_and_sight();
                jobs.abandon(slot, trace, now, &sight);
            }
            let (jobs, sight) = state.jobs_and_sight();
            jobs.terminate(now, why, &sight);
        });
    }

    /// Keeps what a worker has printed outside of calls, if anything.
    pub(crate) fn strayed(&self, source: StraySource, slot: SlotId, worker: u32, printed: Printed) {
        if printed.stdout.is_empty() && printed.stderr.is_empty() {
            return;
        }
        match self.output() {
            Output::Forward => self
                .printer
                .send(move || Forwarder::default().forward(&printed)),
            Output::Capture => {
                let mut state = self.state();
                let oldest = (state.strays.len() >= KEPT).then(|| state.strays.pop_front());
                state.strays.push_back(Stray {
                    source,
                    slot: slot.number(),
                    worker,
                    stdout: printed.stdout,
                    stderr: printed.stderr,
                });
                drop(state);
                drop(oldest);
            }
            Output::Null => {}
        }
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
            // The slot that keeps watch is woken for calls only if no other slot sleeps, because another one would
            // then have to be woken to keep watch.
            Some(_) => state.sleeping.insert(0, slot),
            None => state.sleeping.push(slot),
        }
        loop {
            state = self.work[slot.0].wait(state, limit);
            state.sleeping.retain(|sleeping| *sleeping != slot);
            match std::mem::replace(&mut state.parked[slot.0], Parked::InUse) {
                // A caller has borrowed the worker, and will wake this slot when it gives it back.
                Parked::InUse => limit = None,
                parked => return (state, parked),
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

    /// A slot has this process, which is not ready yet.
    pub(crate) fn set_process(&self, slot: SlotId, process: &Arc<WorkerProcess>) {
        self.state().posts[slot.0] = Post {
            process: Some(Arc::clone(process)),
            ..Post::default()
        };
    }

    /// The slot has no process. This may drop the last handle of one, which kills and reaps: not under the lock.
    pub(crate) fn clear_post(&self, slot: SlotId) {
        let post = std::mem::take(&mut self.state().posts[slot.0]);
        drop(post);
    }

    /// Has a slot look again at what became of its worker.
    pub(crate) fn wake_slot(&self, slot: SlotId) {
        self.work[slot.0].notify_all();
    }
}
