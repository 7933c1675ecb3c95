//! A slot: one thread that keeps one worker busy. It starts a worker, asks the scheduler for calls,
//! sends them, receives the replies, reports them, and starts another worker when that one dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::Caps;
use protocol::link::LinkError;
use protocol::message::{Batch as BatchMessage, CallHeader, Reply, ToWorker, Verdict};

use crate::error::{Death, PoolError, Why};
use crate::launch::Worker;
use crate::os::{GroupSignal, WorkerProcess};
use crate::output::{Forwarder, Output, Printed};
use crate::scheduler::{Batch, Idle, Next, Running, SlotId};
use crate::shared::{Initializer, Input, Job, Post, Shared, State, Trace};

/// How long a worker whose link has ended may take to end by itself, before it is killed.
const LINGER: Duration = Duration::from_millis(200);
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
    while shared.state().jobs.wants_worker() {
        match start(shared, slot) {
            Ok(worker) => match Seat::new(shared, slot, worker).work() {
                // The process is the call: no other process takes its place.
                After::Another if shared.config.single.is_some() => return,
                After::Another => {}
                After::Nothing => return,
            },
            Err(error) => {
                log::debug!("slot {}: {error}", slot.0 + 1);
                start_failed(shared, error);
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

fn start(shared: &Shared, slot: SlotId) -> Result<Worker, PoolError> {
    // Slots are counted from 1 where people see them.
    let number = u32::try_from(slot.0 + 1).unwrap_or(u32::MAX);
    let worker = shared
        .config
        .launcher
        .launch(number, &shared.stop, |process| {
            let mut state = shared.state();
            let process = Some(Arc::clone(process));
            state.posts[slot.0] = Post {
                process,
                ..Post::default()
            };
        });
    let mut worker = worker.inspect_err(|_| shared.state().posts[slot.0] = Post::default())?;
    if let Some(initializer) = &shared.config.initializer
        && let Err(error) = initialize(shared, &mut worker, initializer)
    {
        if let Some(process) = &worker.process {
            if !shared.state().jobs.wants_worker() {
                process.signal(GroupSignal::Term);
                process.wait(Some(shared.config.grace));
            }
            process.signal(GroupSignal::Kill);
            process.reap();
        }
        shared.state().posts[slot.0] = Post::default();
        return Err(error);
    }
    Ok(worker)
}

fn start_failed(shared: &Shared, error: PoolError) {
    let now = shared.now();
    shared.act(|state| {
        if !state.jobs.wants_worker() {
            return; // the pool has ended in the meantime: that is why
        }
        match error {
            // It would fail in the next worker just so.
            PoolError::Initializer(_) => state.jobs.give_up(&error.to_string()),
            _ => state.jobs.start_failed(&error.to_string(), now),
        }
        if !state.jobs.wants_worker() {
            state.failure.get_or_insert(error);
        }
    });
    shared.milestone();
}

fn initialize(
    shared: &Shared,
    worker: &mut Worker,
    initializer: &Initializer,
) -> Result<(), PoolError> {
    let died = |error: LinkError| PoolError::Initializer(format!("ended its worker: {error}"));
    let input = Input::new(initializer.input.clone());
    send(worker, &initializer.job, &[(0, 1, input)]).map_err(died)?;
    // It may take its time, but the end of the pool does not wait for it.
    if !worker.socket.wait(&shared.stop) {
        let cause = "the pool ended before the initializer of a worker did";
        return Err(PoolError::System(cause.to_owned()));
    }
    let (reply, _) = worker.link.receive::<Reply>(Caps::FULL).map_err(died)?;
    match why(reply.verdict) {
        None => Ok(()),
        Some(why) => Err(PoolError::Initializer(why.to_string())),
    }
}

fn send(worker: &mut Worker, job: &Job, calls: &[(u64, u32, Input)]) -> Result<(), LinkError> {
    let headers = calls.iter().map(|(index, attempt, input)| {
        let len = u32::try_from(input.len());
        len.map(|len| CallHeader {
            index: *index,
            attempt: *attempt,
            len,
        })
    });
    let headers = headers.collect::<Result<Vec<_>, _>>().map_err(|_| {
        LinkError::TooLarge("an input of more than 4 GiB can't be sent to a worker".to_owned())
    })?;
    let message = ToWorker::Batch(BatchMessage {
        task: job.task.clone(),
        types: job.types.clone(),
        encoding: job.encoding,
        calls: headers,
    });
    let inputs: Vec<&[u8]> = calls.iter().map(|(.., input)| input.as_slice()).collect();
    worker.link.send(&message, &inputs)
}

/// Why a call did not succeed, by the worker's word.
fn why(verdict: Verdict) -> Option<Why> {
    Some(match verdict {
        Verdict::Value => return None,
        Verdict::Failed(text) => Why::Failed(text),
        Verdict::Undecodable(text) => Why::Undecodable(text),
        Verdict::Panicked(panic) => Why::Panicked {
            message: panic.message,
            location: panic.location,
            backtrace: panic.backtrace,
        },
    })
}

/// A slot with a living worker.
struct Seat<'s> {
    shared: &'s Shared,
    slot: SlotId,
    worker: Worker,
    answered: u64,
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
        match send(&mut self.worker, &batch.job, &calls) {
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
        while running.front().is_some() {
            if let Err(error) = self.hear(&mut running) {
                self.lose(running, &error, call_began);
                return Err(());
            }
            call_began = Instant::now();
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
        let why = why(reply.verdict);
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
                Some(process) if !process.wait(Some(LINGER)) => {
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
                state.jobs.died_unstarted(running, trace, now);
                if self.answered == 0 {
                    // It never did anything: that is as bad as a start that failed.
                    let cause = format!("a worker {death} before its first call");
                    state.jobs.start_failed(&cause, now);
                }
            } else {
                state.counts.failed += 1;
                state.jobs.died(running, Why::Died(death), trace, now);
            }
        });
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
        self.shared
            .config
            .recycle_after
            .is_some_and(|limit| self.answered >= limit)
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
            && !process.wait(Some(self.shared.config.grace))
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
