//! What the threads of a pool share: the scheduler under its lock, and whom to wake.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use protocol::message::{Encoding, TaskInfo};

use crate::error::{Death, PoolError};
use crate::launch::Launcher;
use crate::os::{GroupSignal, WorkerProcess};
use crate::output::{Output, Printed};
use crate::scheduler::{Effects, Limits, MapId, Scheduler, SlotId, Stage, Time};
use crate::socket::SharedSocket;

/// An encoded input. Shared, because a call that is tried again needs it again.
pub(crate) type Input = Arc<Vec<u8>>;
pub(crate) type Jobs = Scheduler<Arc<Job>, Input, Trace>;

/// What the calls of a map run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: String,
    pub(crate) types: Option<String>,
    pub(crate) encoding: Encoding,
}

/// What is left of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) pid: u32,
    pub(crate) elapsed: Duration,
    pub(crate) printed: Printed,
    /// The encoded output, if the call succeeded.
    pub(crate) value: Vec<u8>,
    pub(crate) note: Option<String>,
}

/// The initializer: what each worker runs before its first call.
#[derive(Debug)]
pub(crate) struct Initializer {
    pub(crate) job: Job,
    pub(crate) input: Vec<u8>,
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
    state: Mutex<State>,
    /// Slots wait here for calls.
    work: Condvar,
    /// Whoever waits for the pool as a whole waits here: its first worker, its end.
    milestone: Condvar,
    began: Instant,
    /// Wakes the supervisor.
    wake: PipeWriter,
    /// Readable once the pool needs no more workers.
    pub(crate) stop: PipeReader,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) jobs: Jobs,
    /// What each slot's worker is, for those outside of its thread.
    pub(crate) posts: Vec<Post>,
    watchers: HashMap<MapId, Arc<Watcher>>,
    /// Slots whose threads have not ended.
    pub(crate) slots_left: usize,
    /// The tasks of the first worker that got ready.
    pub(crate) tasks: Option<Arc<[TaskInfo]>>,
    /// Why the pool can't work.
    pub(crate) failure: Option<PoolError>,
    pub(crate) last_death: Option<Death>,
    pub(crate) counts: Counts,
    /// Somebody waits for the pool's end.
    pub(crate) hurry: bool,
    /// How many slots wait for calls.
    waiting_slots: usize,
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
    /// The supervisor has seen it die.
    pub(crate) dead: bool,
    /// How many calls it has answered for.
    pub(crate) calls: u64,
}

/// Who waits for a map.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    changed: Condvar,
    waker: Mutex<Option<Waker>>,
}

impl Shared {
    /// The state of a new pool, and the pipe on which the supervisor waits for its wake-ups.
    pub(crate) fn new(config: Config, jobs: Jobs) -> io::Result<(Self, PipeReader)> {
        let (wake_reader, wake) = io::pipe()?;
        let (stop, stop_writer) = io::pipe()?;
        let state = State {
            jobs,
            posts: (0..config.slots).map(|_| Post::default()).collect(),
            watchers: HashMap::new(),
            slots_left: config.slots,
            tasks: None,
            failure: None,
            last_death: None,
            counts: Counts::default(),
            hurry: false,
            waiting_slots: 0,
            stop_writer: Some(stop_writer),
        };
        let shared = Shared {
            config,
            state: Mutex::new(state),
            work: Condvar::new(),
            milestone: Condvar::new(),
            began: Instant::now(),
            wake,
            stop,
        };
        Ok((shared, wake_reader))
    }

    pub(crate) fn now(&self) -> Time {
        self.began.elapsed()
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
        let wakers = self.carry_out(&mut state);
        drop(state);
        // A waker may run anything, this pool's own methods included.
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    fn carry_out(&self, state: &mut State) -> Vec<Waker> {
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
            self.work.notify_all();
            self.milestone.notify_all();
            if !state.jobs.wants_worker() {
                state.stop_writer = None;
            }
        } else {
            // A slot that does not wait looks for calls by itself before it does.
            (0..work.min(state.waiting_slots)).for_each(|_| self.work.notify_one());
        }
        for (slot, stage) in signals {
            self.signal(state, slot, stage);
        }
        if rearm {
            self.wake_supervisor();
        }
        wakers
    }

    fn signal(&self, state: &State, slot: SlotId, stage: Stage) {
        let post = &state.posts[slot.0];
        match (&post.process, &post.socket) {
            (Some(process), _) => process.signal(match stage {
                Stage::Term => GroupSignal::Term,
                Stage::Kill => GroupSignal::Kill,
                Stage::Stop => GroupSignal::Stop,
                Stage::Continue => GroupSignal::Continue,
            }),
            // A worker that was started by hand is not ours to kill; we stop listening to it.
            (None, Some(socket)) if matches!(stage, Stage::Term | Stage::Kill) => {
                socket.stop_reading();
            }
            (None, _) => {}
        }
    }

    pub(crate) fn wake_supervisor(&self) {
        // The pipe only breaks when the supervisor has ended, and needs no waking.
        let _ = (&self.wake).write(&[0]);
    }

    // ---- Waiting ---------------------------------------------------------------------------

    /// Waits for work, for at most `limit`.
    pub(crate) fn wait_for_work<'s>(
        &self,
        mut state: MutexGuard<'s, State>,
        limit: Option<Duration>,
    ) -> MutexGuard<'s, State> {
        state.waiting_slots += 1;
        let mut state = wait(&self.work, state, limit);
        state.waiting_slots -= 1;
        state
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
            state = wait(&self.milestone, state, left);
        }
    }

    /// Tells those in [`wait_until`](Self::wait_until) to look again.
    pub(crate) fn milestone(&self) {
        self.milestone.notify_all();
        self.work.notify_all();
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
        wait(&self.changed, state, limit)
    }

    /// Tells everyone who waits for the map to look again.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Whom to wake at the next change.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        *self.waker() = Some(waker.clone());
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'s>(
    condvar: &Condvar,
    state: MutexGuard<'s, State>,
    limit: Option<Duration>,
) -> MutexGuard<'s, State> {
    match limit {
        Some(limit) => {
            condvar
                .wait_timeout(state, limit)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
        None => condvar.wait(state).unwrap_or_else(PoisonError::into_inner),
    }
}
