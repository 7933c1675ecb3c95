//! A call that is made by itself, as its caller has it: a place among the single calls of its kind.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::engine::shared::PoolShared;
use crate::engine::singles::Kind;
use crate::engine::state::{Parked, State};
use crate::engine::watcher::Watcher;
use crate::error::{PoolError, Why};
use crate::payload::forward::Forwarder;
use crate::payload::printed::Output;
use crate::payload::{Chunk, Job, Trace};
use crate::pool::codec::Codec;
use crate::scheduler::{Ended, MapId, MapSpec, Next};

/// A call's place.
#[derive(Debug)]
pub(in crate::pool) struct Single {
    shared: Arc<PoolShared>,
    map: MapId,
    index: u64,
    /// By which its caller hears of its end, once the caller has had to wait.
    watcher: Option<Arc<Watcher>>,
}

/// What single calls are to run, and how.
pub(in crate::pool) struct Plan<'p, C> {
    pub(in crate::pool) shared: &'p Arc<PoolShared>,
    pub(in crate::pool) codec: C,
    pub(in crate::pool) kind: Kind,
}

impl<C: Codec> Plan<'_, C> {
    /// Adds a call, or says why the pool takes none.
    pub(in crate::pool) fn submit(
        &self,
        input: C::Input,
        spec: impl FnOnce(Arc<Job>) -> MapSpec<Arc<Job>>,
    ) -> Result<Single, String> {
        let added = self.add(input, spec, |_, _| None::<()>);
        added.map(|(single, _)| single)
    }

    /// Adds a call, and runs it on this thread if there is a worker that waits for one.
    pub(in crate::pool) fn run(
        &self,
        input: C::Input,
        spec: impl FnOnce(Arc<Job>) -> MapSpec<Arc<Job>>,
    ) -> Result<Single, String> {
        let shared = self.shared;
        let (single, borrowed) = self.add(input, spec, |state, map| {
            let (seat, idle) = state.borrow(map)?;
            let slot = seat.slot();
            let now = shared.now();
            let (jobs, sight) = state.jobs_and_sight();
            match jobs.next(idle.awake(), 1, now, &sight) {
                Next::Run(running, batch) => {
                    seat.open(&batch);
                    state.jobs.spare_a_waking();
                    Some((seat, running, batch))
                }
                Next::Wait(idle, _) => {
                    shared.give_back(state, slot, Parked::Here(seat, idle));
                    None
                }
                Next::Leave => {
                    // There is nothing left to run. The slot's thread finds that out by itself, and needs the token for it.
                    let idle = jobs.ready(slot);
                    shared.give_back(state, slot, Parked::Here(seat, idle));
                    None
                }
            }
        })?;
        if let Some((mut seat, running, batch)) = borrowed {
            let slot = seat.slot();
            let parked = match seat.converse(shared, running, batch) {
                Ok(idle) => Parked::Here(seat, idle),
                Err(()) => Parked::Gone,
            };
            shared.act(|state| shared.give_back(state, slot, parked));
        }
        Ok(single)
    }

    /// Adds a call, and does something more before anybody else can see it.
    fn add<R>(
        &self,
        input: C::Input,
        spec: impl FnOnce(Arc<Job>) -> MapSpec<Arc<Job>>,
        and: impl FnOnce(&mut State, MapId) -> Option<R>,
    ) -> Result<(Single, Option<R>), String> {
        let shared = self.shared;
        if shared.is_copied() {
            return Err(PoolError::Copied.to_string());
        }
        let mut chunk = Chunk::default();
        let encoded = chunk.add(shared.board(), |sheet| self.codec.encode(input, sheet));
        let mut state = shared.state();
        if let Some(why) = state.jobs.refusal() {
            return Err(why);
        }
        let map = match state.singles.find(&self.kind) {
            Some(map) => map,
            None => {
                drop(state);
                let spec = spec(Arc::new(self.codec.job()));
                state = shared.state();
                let State { singles, jobs, .. } = &mut *state;
                // Another thread may have been here meanwhile.
                match singles.find(&self.kind) {
                    Some(map) => map,
                    None => singles.open(jobs, self.kind, spec)?,
                }
            }
        };
        let (index, and) = match encoded {
            Ok(()) => {
                let first = chunk.take().map(|inputs| state.jobs.push(map, inputs));
                let index = first.last().unwrap_or_default();
                (index, and(&mut state, map))
            }
            Err(why) => {
                let now = shared.now();
                let (jobs, sight) = state.jobs_and_sight();
                let why = Why::Undecodable(why);
                (jobs.push_ended(map, why, now, &sight), None)
            }
        };
        shared.release(state);
        let single = Single {
            shared: Arc::clone(shared),
            map,
            index,
            watcher: None,
        };
        Ok((single, and))
    }
}

impl Single {
    /// Its index among the calls of its kind.
    pub(in crate::pool) fn index(&self) -> u64 {
        self.index
    }

    /// Passes on what it has printed, if that is to be forwarded.
    pub(in crate::pool) fn forward(&self, ended: &Ended<Trace>) {
        if let (Output::Forward, Some(trace)) = (self.shared.output(), &ended.trace)
            && !trace.printed.is_empty()
        {
            Forwarder::default().forward(&trace.printed);
        }
    }

    /// Waits for its end, for at most `limit`. It ends once, so this gives an end once.
    pub(in crate::pool) fn wait(&mut self, limit: Option<Duration>) -> Option<Ended<Trace>> {
        let began = limit.map(|_| Instant::now());
        let mut state = self.shared.state();
        loop {
            if let Some(ended) = state.jobs.take_one(self.map, self.index) {
                self.unwatch(&mut state);
                return Some(ended);
            }
            let waited = began.map_or(Duration::ZERO, |began| began.elapsed());
            let left = limit.map(|limit| limit.saturating_sub(waited));
            if left.is_some_and(|left| left.is_zero()) {
                drop(state);
                self.glance();
                return self.take();
            }
            let watcher = self.watcher.get_or_insert_default();
            state.singles.watch(self.map, self.index, watcher);
            state = watcher.wait(state, left);
        }
    }

    /// Its end, if it has come; else a task is woken when it comes.
    pub(in crate::pool) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended<Trace>> {
        if let Some(ended) = self.take() {
            return Poll::Ready(ended);
        }
        let watcher = self.watcher.get_or_insert_default();
        watcher.set_waker(context.waker());
        let watched = Arc::clone(watcher);
        self.shared
            .state()
            .singles
            .watch(self.map, self.index, &watched);
        // It may have ended before the waker was there.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self) -> Option<Ended<Trace>> {
        let mut state = self.shared.state();
        let ended = state.jobs.take_one(self.map, self.index)?;
        self.unwatch(&mut state);
        Some(ended)
    }

    /// Whether it has ended.
    pub(in crate::pool) fn is_ready(&self) -> bool {
        let has_ended = || self.shared.state().jobs.has_ended(self.map, self.index);
        self.shared.is_copied() || has_ended() || {
            self.glance();
            has_ended()
        }
    }

    /// Looks whether its result stands in a black box, behind a call that takes long.
    fn glance(&self) {
        let now = self.shared.now();
        self.shared.act(|state| {
            if let Some(slot) = state.jobs.batch_of(self.map, self.index) {
                state.collect(slot, now);
            }
        });
    }

    /// Cancels it, if it has not ended.
    pub(in crate::pool) fn cancel(&self, note: &str) {
        if self.shared.is_copied() {
            return;
        }
        let now = self.shared.now();
        self.shared.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            jobs.cancel_one(self.map, self.index, now, note, &sight);
        });
    }

    /// Lets it go on without anyone taking its result. What it prints is forwarded all the same: now if it has ended, or
    /// else by its slot when it does.
    pub(in crate::pool) fn let_go(&self) {
        if self.shared.is_copied() {
            return;
        }
        let ended = {
            let mut state = self.shared.state();
            self.unwatch(&mut state);
            state.jobs.let_go(self.map, self.index)
        };
        if let Some(ended) = ended {
            self.forward(&ended);
        }
    }

    /// Whether it is another process's.
    pub(in crate::pool) fn is_copied(&self) -> bool {
        self.shared.is_copied()
    }

    fn unwatch(&self, state: &mut State) {
        if self.watcher.is_some() {
            state.singles.unwatch(self.map, self.index);
        }
    }
}
