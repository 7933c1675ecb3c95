//! A slot: one thread that keeps one worker busy. It starts a worker, asks the scheduler for calls,
//! sends them, receives the replies, reports them, and starts another worker when that one dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::Caps;
use protocol::link::LinkError;
use protocol::message::{Reply, ToWorker};

use crate::error::{Death, Why};
use crate::launch::Worker;
use crate::os::{self, GroupSignal, WorkerProcess};
use crate::output::{Forwarder, Output, Printed, TAIL};
use crate::scheduler::{Batch, Idle, Next, Running, SlotId};
use crate::shared::{Input, Job, Post, Shared, State, Trace};
use crate::start;
use crate::talk::{self, send};

/// What Rust's allocator says, among other things, before it aborts.
const NO_MEMORY: &str = "memory allocation of ";
/// How long to wait before a start is tried again that has failed.
const START_AGAIN: Duration = Duration::from_millis(50);

/// What is to follow a worker.
enum After {
    /// Another one.
    Another,
    /// Nothing: the pool ends.
    Nothing,
}

/// The thread of a slot.
pub(crate) fn run(shared: &Arc<Shared>, slot: SlotId) {
    // The slot leaves however this thread ends, or whoever joins the pool would wait for ever.
    let _leaving = Leaving { shared, slot };
    let mut place = None;
    while shared.state().jobs.wants_worker() {
        match start::start(shared, slot, &mut place) {
            Ok(worker) => match Seat::new(shared, slot, worker).work() {
                // The process is the call: no other process takes its place.
                After::Another if shared.config.single.is_some() => return,
                After::Another => {}
                After::Nothing => return,
            },
            Err(error) => {
                log::debug!("slot {}: {error}", slot.0 + 1);
                start::failed(shared, error);
                shared.wait_until(Some(START_AGAIN), |state| !state.jobs.wants_worker());
            }
        }
    }
}

struct Leaving<'s> {
    shared: &'s Shared,
    slot: SlotId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.posts[self.slot.0] = Post::default();
        state.slots_left -= 1;
        drop(state);
        self.shared.milestone();
        self.shared.wake_supervisor();
    }
}

/// A slot with a living worker.
struct Seat<'s> {
    shared: &'s Shared,
    slot: SlotId,
    worker: Worker,
    answered: u64,
    /// What its memory is limited to.
    memory: Option<u64>,
    last_failed: bool,
    ready_since: Instant,
}

impl<'s> Seat<'s> {
    fn new(shared: &'s Shared, slot: SlotId, worker: Worker) -> Self {
        Seat {
            shared,
            slot,
            worker,
            answered: 0,
            memory: None,
            last_failed: false,
            ready_since: Instant::now(),
        }
    }

    /// Runs calls until the worker dies or is not needed any more.
    fn work(mut self) -> After {
        let mut idle = self.shared.act(|state| {
            let post = &mut state.posts[self.slot.0];
            post.socket = Some(self.worker.socket.clone());
            post.pid = Some(self.worker.pid);
            state.counts.started += 1;
            if state.tasks.is_none() {
                state.tasks = Some(std::mem::take(&mut self.worker.tasks).into());
            }
            state.jobs.ready(self.slot)
        });
        self.shared.milestone();
        if self.worker.process.is_some() {
            self.shared.wake_supervisor();
        }
        loop {
            let (running, batch) = match self.next(idle) {
                Step::Run(running, batch) => (running, batch),
                Step::Leave => {
                    self.dismiss();
                    return After::Nothing;
                }
                Step::Dead(idle) => {
                    self.lose_idle(idle);
                    return After::Another;
                }
            };
            match self.converse(running, batch) {
                Ok(again) if self.is_worn_out() => {
                    self.shared.act(|state| state.jobs.idle_died(again));
                    self.dismiss();
                    return After::Another;
                }
                Ok(again) => idle = again,
                Err(()) => return After::Another,
            }
        }
    }

    /// Waits for something to do.
    fn next(&self, mut idle: Idle) -> Step {
        let mut state = self.shared.state();
        loop {
            if state.posts[self.slot.0].dead {
                return Step::Dead(idle);
            }
            let now = self.shared.now();
            match state.jobs.next(idle, now) {
                Next::Run(running, batch) => {
                    drop(state);
                    // A call with a deadline has begun: the supervisor has to know.
                    self.shared.act(|_| ());
                    return Step::Run(running, batch);
                }
                Next::Leave => return Step::Leave,
                Next::Wait(again, until) => {
                    idle = again;
                    let limit = until.map(|until| until.saturating_sub(now));
                    state = self.shared.wait_for_work(state, limit);
                }
            }
        }
    }

    /// Has the worker run a batch. On an error the worker is gone, and the scheduler knows.
    fn converse(
        &mut self,
        mut running: Running,
        batch: Batch<Arc<Job>, Input>,
    ) -> Result<Idle, ()> {
        let began = Instant::now();
        let calls: Vec<_> = batch
            .calls
            .into_iter()
            .map(|call| (call.index, call.attempt, call.input))
            .collect();
        self.limit_memory(batch.memory);
        match send(&mut self.worker.link, &batch.job, &calls) {
            Ok(()) => {}
            Err(LinkError::TooLarge(what)) => {
                for (index, ..) in &calls {
                    let why = Why::Undecodable(format!("the input is too large: {what}"));
                    let trace = self.trace(began.elapsed(), Printed::default(), Vec::new());
                    // The scheduler has just given us these calls, in this order.
                    let _ = self.report(&mut running, *index, Err(why), trace);
                }
                return self.idle_again(running);
            }
            // It died before it had read the calls.
            Err(error) => {
                self.lose(running, &error, began);
                return Err(());
            }
        }
        drop(calls);
        let mut call_began = began;
        while let Some(call) = running.front() {
            if let Err(error) = self.hear(&mut running) {
                self.lose(running, &error, call_began);
                return Err(());
            }
            // A call that is being killed stays, whatever its worker still says.
            if running.front() != Some(call) {
                call_began = Instant::now();
            }
        }
        self.idle_again(running)
    }

    fn idle_again(&self, running: Running) -> Result<Idle, ()> {
        self.shared
            .act(|state| state.jobs.idle_again(running))
            .map_err(|running| {
                let now = self.shared.now();
                let trace = self.trace(Duration::ZERO, Printed::default(), Vec::new());
                self.shared
                    .act(|state| state.jobs.died(running, Why::Cancelled, trace, now));
            })
    }

    /// Receives one reply and reports it.
    fn hear(&mut self, running: &mut Running) -> Result<(), LinkError> {
        let (reply, payload) = self.worker.link.receive::<Reply>(Caps::FULL)?;
        let why = talk::why(reply.verdict);
        let value = match why {
            None => payload.to_vec(),
            Some(_) => Vec::new(),
        };
        let printed = self
            .worker
            .files
            .as_mut()
            .map(|files| files.advance(reply.stdout, reply.stderr));
        let trace = self.trace(
            Duration::from_nanos(reply.nanos),
            printed.unwrap_or_default(),
            value,
        );
        let result = why.map_or(Ok(()), Err);
        self.report(running, reply.index, result, trace)
            .map_err(LinkError::Malformed)
    }

    fn report(
        &mut self,
        running: &mut Running,
        index: u64,
        result: Result<(), Why>,
        trace: Trace,
    ) -> Result<(), String> {
        self.answered += 1;
        self.last_failed = result.is_err();
        let bytes = trace.value.len();
        let now = self.shared.now();
        self.forward_if_detached(running, &trace);
        self.shared.act(|state| {
            state.posts[self.slot.0].calls += 1;
            if result.is_ok() {
                state.counts.succeeded += 1;
            } else {
                state.counts.failed += 1;
            }
            state.jobs.reply(running, index, result, trace, bytes, now)
        })
    }

    /// The worker died while it had nothing to do.
    fn lose_idle(&mut self, idle: Idle) {
        let death = self.bury();
        log::debug!(
            "slot {}: idle worker {} {death}",
            self.slot.0 + 1,
            self.worker.pid
        );
        let printed = self.last_words();
        let trace = self.trace(Duration::ZERO, printed, Vec::new());
        let now = self.shared.now();
        self.shared.act(|state| {
            state.counts.died += 1;
            if self.shared.config.single.is_none() {
                return state.jobs.idle_died(idle);
            }
            match state.jobs.next(idle, now) {
                Next::Run(running, _) => state.jobs.died(running, Why::Died(death), trace, now),
                Next::Wait(idle, _) => {
                    state.jobs.idle_died(idle);
                    let cause = format!("the process {death} before its function began");
                    state.jobs.give_up(&cause);
                }
                Next::Leave => {}
            }
        });
    }

    /// What a worker that is dead has printed since its last reply.
    fn last_words(&mut self) -> Printed {
        self.worker
            .files
            .as_mut()
            .map(|files| files.rest())
            .unwrap_or_default()
    }

    /// The worker has gone in the middle of a batch, or what it says makes no sense.
    fn lose(&mut self, running: Running, error: &LinkError, began: Instant) {
        let note = match error {
            LinkError::Malformed(what) => {
                log::warn!(
                    "slot {}: worker {} is killed, because it sent rubbish: {what}",
                    self.slot.0 + 1,
                    self.worker.pid
                );
                self.kill();
                Some(format!("it was killed because it sent rubbish: {what}"))
            }
            _ => match self.worker.process.as_deref() {
                Some(process) if !process.wait(Some(talk::LINGER)) => {
                    self.kill();
                    Some("it was killed because it closed its link".to_owned())
                }
                _ => None,
            },
        };
        // A worker that dies with something unread resets the connection, and one that has died
        // already breaks it for writing; a worker reads all of a batch before it begins.
        let unread = matches!(error, LinkError::Broken(error) if matches!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ));
        let death = self.bury();
        let printed = self
            .worker
            .files
            .as_mut()
            .map(|files| files.rest())
            .unwrap_or_default();
        let mut trace = self.trace(began.elapsed(), printed, Vec::new());
        trace.note = note;
        let now = self.shared.now();
        log::debug!(
            "slot {}: worker {} {death}",
            self.slot.0 + 1,
            self.worker.pid
        );
        self.forward_if_detached(&running, &trace);
        self.shared.act(|state| {
            state.counts.died += 1;
            if unread && self.shared.config.single.is_none() {
                if !state.jobs.died_unstarted(running, trace, now) {
                    state.counts.failed += 1;
                } else if self.answered == 0 {
                    // It never did anything: that is as bad as a start that failed.
                    let cause = format!("a worker {death} before its first call");
                    state.jobs.start_failed(&cause, now);
                }
            } else {
                state.counts.failed += 1;
                let why = self.why_it_died(death, &trace);
                state.jobs.died(running, why, trace, now);
            }
        });
    }

    /// A program that is refused memory usually aborts, and says so: that is the limit's doing.
    fn why_it_died(&self, death: Death, trace: &Trace) -> Why {
        match self.memory {
            Some(limit)
                if death == Death::Signal(os::ABORTED)
                    && trace.printed.stderr.tail(TAIL * 16).contains(NO_MEMORY) =>
            {
                Why::OutOfMemory { limit }
            }
            _ => Why::Died(death),
        }
    }

    /// Sets how much memory the worker may have for its next calls.
    fn limit_memory(&mut self, limit: Option<u64>) {
        if limit == self.memory {
            return;
        }
        self.memory = limit;
        if let Some(process) = &self.worker.process
            && let Err(error) = process.limit_memory(limit)
        {
            // The supervisor looks at what it uses all the same.
            log::debug!(
                "slot {}: the memory of worker {} can't be limited by the kernel: {error}",
                self.slot.0 + 1,
                self.worker.pid
            );
        }
    }

    /// What a call prints that nobody waits for has no one else to forward it.
    fn forward_if_detached(&self, running: &Running, trace: &Trace) {
        if self.shared.output() == Output::Forward
            && self.shared.state().jobs.is_detached(running.map())
        {
            Forwarder::default().forward(&trace.printed);
        }
    }

    fn trace(&self, elapsed: Duration, printed: Printed, value: Vec<u8>) -> Trace {
        Trace {
            pid: self.worker.pid,
            elapsed,
            printed,
            value,
            note: None,
        }
    }

    fn is_worn_out(&self) -> bool {
        let config = &self.shared.config;
        let process = self.worker.process.as_ref();
        config
            .recycle_after
            .is_some_and(|limit| self.answered >= limit)
            || config
                .recycle_above
                .is_some_and(|limit| process.is_some_and(|process| process.memory() > limit))
    }

    /// Lets the worker go. It has the grace to leave by itself.
    fn dismiss(&mut self) {
        if let Some(least) = self.shared.config.single {
            let left = least.saturating_sub(self.ready_since.elapsed());
            self.shared.wait_until(Some(left), |state| state.hurry);
        }
        let code = i32::from(self.shared.config.single.is_some() && self.last_failed);
        // If it does not hear this, it is gone already.
        let _ = self.worker.link.send(&ToWorker::Exit(code), &[]);
        if let Some(process) = self.worker.process.as_deref()
            && !process.wait(Some(self.shared.config.limits.grace))
        {
            log::warn!(
                "slot {}: worker {} did not leave when asked to, and is killed",
                self.slot.0 + 1,
                self.worker.pid
            );
            self.kill();
        }
        self.bury();
    }

    fn kill(&self) {
        if let Some(process) = &self.worker.process {
            process.signal(GroupSignal::Kill);
        }
    }

    /// Waits for the worker's death, and clears its post.
    fn bury(&self) -> Death {
        let reap = |process: &Arc<WorkerProcess>| process.reap();
        // What became of one that was started by hand, only its starter knows.
        let death = self.worker.process.as_ref().map_or(Death::Exit(0), reap);
        let mut state: std::sync::MutexGuard<'_, State> = self.shared.state();
        state.posts[self.slot.0] = Post::default();
        state.last_death = Some(death);
        drop(state);
        self.shared.milestone();
        death
    }
}

enum Step {
    Run(Running, Batch<Arc<Job>, Input>),
    Leave,
    /// The worker died while it had nothing to do.
    Dead(Idle),
}
