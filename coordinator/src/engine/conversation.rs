//! The conversation with a worker, and what follows when the worker dies. The thread that holds the worker's seat
//! leads it: the slot's own thread, or a caller who has borrowed the seat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::Caps;
use protocol::link::LinkError;
use protocol::message::{CallReply, Reply, ToWorker};

use super::recruit;
use super::seat::Seat;
use super::shared::PoolShared;
use super::state::Post;
use super::stray::StraySource;
use crate::error::{Death, PoolError, Why};
use crate::os::WorkerProcess;
use crate::payload::buffers;
use crate::payload::forward::Forwarder;
use crate::payload::printed::{Output, Printed};
use crate::payload::{EncodedInputs, Job, Payload, Trace, Values};
use crate::scheduler::{Batch, Idle, Loss, MOST_CALLS, Next, Running};
use crate::workers::launch::Admitted;
use crate::workers::talk::{self, LINGER};

/// How long a worker has at least to leave when it is asked to.
pub(super) const TO_LEAVE: Duration = Duration::from_secs(1);
impl Seat {
    /// The worker is ready for calls.
    pub(crate) fn enter(&mut self, shared: &PoolShared) -> Idle {
        let idle = shared.act(|state| {
            let post = &mut state.posts[self.slot.0];
            post.socket = Some(self.worker.socket.clone());
            post.black_box = Some(Arc::clone(&self.worker.black_box));
            post.pid = Some(self.worker.pid);
            post.files = self.worker.files.clone();
            state.counts.started += 1;
            if state.tasks.is_none() {
                state.tasks = Some(std::mem::take(&mut self.worker.tasks).into());
            }
            state.jobs.ready(self.slot)
        });
        shared.milestone();
        if self.worker.process.is_some() {
            shared.wake_supervisor();
        }
        idle
    }

    /// Has the worker run a batch. On an error the worker is gone, and the scheduler knows.
    pub(crate) fn converse(
        &mut self,
        shared: &PoolShared,
        running: Running,
        batch: Batch<Arc<Job>, EncodedInputs>,
    ) -> Result<Idle, ()> {
        self.limit_memory(batch.memory);
        let began = Instant::now();
        match self.send(&batch) {
            Ok(()) => {}
            Err(LinkError::TooLarge(what)) => {
                return self.too_large(shared, running, &batch, &what);
            }
            // The worker died before it had read the calls.
            Err(error) => {
                self.lose(shared, running, &error, began);
                return Err(());
            }
        }
        let first = batch.first;
        // The worker reads these inputs from the board until it has answered or is dead, even if the call is given
        // up. So they stay on the board that long.
        let inputs = batch.parts.into_iter().map(|part| part.inputs);
        let _on_board: Vec<EncodedInputs> = inputs.filter(EncodedInputs::is_on_board).collect();
        shared.state().jobs.sent(&running, shared.now());
        if let Err((error, call_began)) = self.hear_all(shared, &running, first) {
            self.lose(shared, running, &error, call_began);
            return Err(());
        }
        self.worn_out = self.wears_out(&shared.config);
        let now = shared.now();
        shared
            .act(|state| state.jobs.idle_again(running, now))
            .map_err(|running| {
                // The pool was terminated after the batch was answered, and the worker is being killed.
                self.lose(shared, running, &LinkError::Closed, Instant::now());
            })
    }

    /// Sends a batch, and before it the descriptors of shared values that the worker does not have yet.
    fn send(&mut self, batch: &Batch<Arc<Job>, EncodedInputs>) -> Result<(), LinkError> {
        self.worker.serial = self.worker.serial.wrapping_add(1);
        let of = (batch.first, batch.attempt);
        let Admitted {
            link,
            socket,
            given,
            serial,
            shares,
            ..
        } = &mut self.worker;
        talk::give(socket, given, &batch.parts, *shares)?;
        talk::send(link, *serial, &batch.job, of, &batch.parts, *shares)
    }

    /// Takes the worker's replies until it has answered the whole batch. An error comes with the time at which the
    /// running call began, as far as the replies tell.
    fn hear_all(
        &mut self,
        shared: &PoolShared,
        running: &Running,
        first: u64,
    ) -> Result<(), (LinkError, Instant)> {
        let mut call_began = Instant::now();
        loop {
            match self.hear(shared, running, first) {
                // While a worker is being killed its call stays open, whatever the worker still says.
                Ok(Heard::All) => return Ok(()),
                Ok(Heard::News) => call_began = Instant::now(),
                Ok(Heard::Nothing) => {}
                Err(error) => return Err((error, call_began)),
            }
        }
    }

    /// The batch can't be sent: it is a single call whose input is larger than a frame.
    fn too_large(
        &mut self,
        shared: &PoolShared,
        running: Running,
        batch: &Batch<Arc<Job>, EncodedInputs>,
        what: &str,
    ) -> Result<Idle, ()> {
        let now = shared.now();
        shared.act(|state| {
            for call in 0..batch.count {
                let why = Why::Undecodable(format!("the input is too large: {what}"));
                let trace = self.trace(Duration::ZERO, Printed::default());
                let (jobs, sight) = state.jobs_and_sight();
                // The scheduler has just given us these calls, in this order.
                let _ = jobs.reply(&running, call, Err(why), (trace, 0), now, &sight);
                state.counts.failed += 1;
            }
        });
        let now = shared.now();
        let again = shared.act(|state| state.jobs.idle_again(running, now));
        again.map_err(|running| {
            // The call was cancelled meanwhile, and the worker is being killed.
            let error = LinkError::Closed;
            self.lose(shared, running, &error, Instant::now());
        })
    }

    /// Receives one message and reports what it says.
    fn hear(
        &mut self,
        shared: &PoolShared,
        running: &Running,
        first: u64,
    ) -> Result<Heard, LinkError> {
        let link = &mut self.worker.link;
        let (reply, parcel) = link.receive_owned::<Reply>(Caps::FULL, buffers::take)?;
        let payload = Payload::from(parcel);
        let serial = match &reply {
            Reply::Values(values) => values.serial,
            Reply::Call(call) => call.serial,
            Reply::Stopped(stopped) => stopped.serial,
        };
        if serial != self.worker.serial {
            return Err(LinkError::Malformed(format!(
                "a reply to batch {serial} instead of {}",
                self.worker.serial
            )));
        }
        match reply {
            Reply::Values(values) => self.hear_values(shared, running, first, values, payload),
            Reply::Call(call) => self.hear_call(shared, running, call, payload),
            Reply::Stopped(stopped) => shared
                .act(|state| {
                    state.jobs.stopped(running, stopped.at)?;
                    Ok(self.heard(state.jobs.is_answered(running), false))
                })
                .map_err(LinkError::Malformed),
        }
    }

    fn heard(&self, answered: bool, news: bool) -> Heard {
        match (answered, news) {
            (true, _) => Heard::All,
            (false, true) => Heard::News,
            (false, false) => Heard::Nothing,
        }
    }

    fn hear_values(
        &mut self,
        shared: &PoolShared,
        running: &Running,
        first: u64,
        values: protocol::message::Values,
        payload: Payload,
    ) -> Result<Heard, LinkError> {
        let at = values.at;
        let count = values.lens.count();
        let count = u32::try_from(count)
            .ok()
            .filter(|count| *count <= MOST_CALLS);
        let count = count.filter(|count| u64::from(*count) == values.nanos.count());
        let count = count.ok_or_else(|| {
            LinkError::Malformed("a reply to more calls than a batch has".to_owned())
        })?;
        let worked = Duration::from_nanos(values.nanos.sum());
        let (lens, nanos) = (values.lens.to_vec(), values.nanos.to_vec());
        let values = Values::new(first + u64::from(at), lens, nanos, payload)
            .map(Arc::new)
            .map_err(LinkError::Malformed)?;
        let by = self.by();
        let now = shared.now();
        self.answered += u64::from(count);
        self.last_failed = false;
        shared
            .act(|state| {
                let mut news = 0;
                state.jobs.worked(running, worked);
                state.jobs.values(running, at, count, now, |fresh| {
                    news = fresh.end - fresh.start;
                    let bytes = values.size(fresh.start - at, fresh.end - at);
                    (Trace::many(by, values), bytes)
                })?;
                state.posts[self.slot.0].calls += u64::from(count);
                // What was found in its black box before has been counted.
                state.counts.succeeded += u64::from(news);
                Ok(self.heard(state.jobs.is_answered(running), news > 0))
            })
            .map_err(LinkError::Malformed)
    }

    fn hear_call(
        &mut self,
        shared: &PoolShared,
        running: &Running,
        reply: CallReply,
        payload: Payload,
    ) -> Result<Heard, LinkError> {
        let why = talk::why(reply.verdict);
        let value = match why {
            None => payload,
            Some(_) => Payload::default(),
        };
        let files = self.worker.files.as_ref();
        let printed = files.map(|files| files.advance(reply.stdout, reply.stderr));
        let bytes = value.len();
        let elapsed = Duration::from_nanos(reply.nanos);
        let printed = printed.unwrap_or_default();
        let trace = Trace::one(self.by(), elapsed, printed.clone(), value);
        let result = why.map_or(Ok(()), Err);
        self.answered += 1;
        self.last_failed = result.is_err();
        let now = shared.now();
        let (mut is_unwanted, mut is_news) = (false, true);
        let heard = shared
            .act(|state| {
                let succeeded = result.is_ok();
                state.jobs.worked(running, elapsed);
                let (jobs, sight) = state.jobs_and_sight();
                // Before it is told of: whoever lets go of the call a moment later forwards what it has printed.
                is_unwanted = jobs.is_unwanted(running, Some(reply.at));
                let news = jobs.reply(running, reply.at, result, (trace, bytes), now, &sight)?;
                is_news = news;
                state.posts[self.slot.0].calls += 1;
                match succeeded {
                    true => state.counts.succeeded += u64::from(news),
                    false => state.counts.failed += u64::from(news),
                }
                Ok(self.heard(state.jobs.is_answered(running), true))
            })
            .map_err(LinkError::Malformed);
        if is_news && is_unwanted {
            self.forward(shared, &printed);
        } else if let (false, Some(files)) = (is_news, &self.worker.files) {
            // The scheduler has decided that the call ends in another way. What the call has printed belongs to that
            // outcome.
            files.put_back(&printed);
        }
        heard
    }

    /// The worker died while it had nothing to do.
    pub(crate) fn lose_idle(&mut self, shared: &PoolShared, idle: Idle) {
        let death = self.bury(shared);
        log::debug!(
            "slot {}: idle worker {} {death}",
            self.slot.0 + 1,
            self.worker.pid
        );
        let printed = self.last_words();
        if shared.config.single.is_none() {
            let pid = self.worker.pid;
            shared.strayed(StraySource::Exit, self.slot, pid, printed.clone());
        }
        let trace = self.trace(Duration::ZERO, printed);
        let now = shared.now();
        shared.act(|state| {
            state.counts.died += 1;
            if shared.config.single.is_none() {
                return state.jobs.idle_died(idle);
            }
            let (jobs, sight) = state.jobs_and_sight();
            match jobs.next(idle, 1, now, &sight) {
                Next::Run(running, _) => {
                    _ = jobs.died(running, 1, Why::Died(death), trace, now, &sight);
                }
                Next::Wait(idle, _) => {
                    jobs.idle_died(idle);
                    let cause = format!("the process {death} before its function began");
                    jobs.give_up(&cause);
                }
                Next::Leave => {}
            }
        });
    }

    /// The worker died in the middle of a batch, or sent something that makes no sense. This finds out how far it has come;
    /// `Scheduler::died` decides what follows for its calls.
    fn lose(&mut self, shared: &PoolShared, running: Running, error: &LinkError, began: Instant) {
        let note = self.see_it_dead(error);
        // From here on the black box says which calls began and ended. A worker that was started by hand may still
        // live, so its ticket is closed: it must not begin another call.
        let (started, convicted) = shared.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            (jobs.gone(&running, &sight), jobs.why_killed(&running))
        });
        // A message that makes no sense is charged to the call that the worker is running.
        let rubbish = matches!(error, LinkError::Malformed(_));
        let started = if rubbish { started.max(1) } else { started };
        let now = shared.now();
        shared.act(|state| state.collect(self.slot, now));
        let refused = self.worker.process.as_deref();
        let refused = refused.and_then(WorkerProcess::refused);
        let note = note.or(convicted.map(str::to_owned));
        let note = note.or(refused.map(|why| {
            format!("its worker was killed at once, because this program may not signal it: {why}")
        }));
        let death = self.bury(shared);
        let mut trace = self.trace(began.elapsed(), Printed::default());
        trace.printed = self.last_words();
        trace.note = note;
        log::debug!(
            "slot {}: worker {} {death}",
            self.slot.0 + 1,
            self.worker.pid
        );
        let why = self.why_it_died(death, &trace);
        let loss = self.died(shared, running, started, why, trace);
        let by_itself = !matches!(death, Death::Signal(_));
        if loss == Loss::default() && self.answered == 0 && by_itself {
            // It never did anything, and left: that is as bad as a start that failed. One that was killed says nothing of
            // the next.
            let error = PoolError::CannotStart {
                program: shared.config.launcher.program.path.clone(),
                cause: format!("it {death} before its first call"),
            };
            recruit::failed(shared, error);
        }
    }

    /// Waits until the worker is dead, and kills it if it is not about to be. Says so if it was killed.
    fn see_it_dead(&self, error: &LinkError) -> Option<String> {
        let process = self.worker.process.as_deref();
        let note = match (error, process) {
            (LinkError::Malformed(what), _) => {
                let (slot, pid) = (self.slot.0 + 1, self.worker.pid);
                log::warn!("slot {slot}: worker {pid} is killed, because it sent rubbish: {what}");
                self.kill();
                Some(format!("it was killed because it sent rubbish: {what}"))
            }
            (error, Some(process)) if !process.wait(Some(LINGER)) => {
                self.kill();
                let why = match error {
                    LinkError::Closed => "it closed its link".to_owned(),
                    error => error.to_string(),
                };
                Some(format!("it was killed because {why}"))
            }
            _ => None,
        };
        if let Some(process) = process {
            process.wait(None);
        }
        note
    }

    /// Tells the scheduler of the worker's death.
    fn died(
        &self,
        shared: &PoolShared,
        running: Running,
        started: u32,
        why: Why,
        trace: Trace,
    ) -> Loss {
        let started = match shared.config.single {
            // A `Process` has a single call, which ends with its process, begun or not.
            Some(_) => started.max(1),
            None => started,
        };
        let now = shared.now();
        let printed = trace.printed.clone();
        let (loss, is_unwanted) = shared.act(|state| {
            state.counts.died += 1;
            let (jobs, sight) = state.jobs_and_sight();
            // Before it is told of: whoever lets go of the call a moment later forwards what it has printed.
            let is_unwanted = jobs.is_unwanted(&running, None);
            let loss = jobs.died(running, started, why, trace, now, &sight);
            state.posts[self.slot.0].black_box = None;
            state.counts.failed += u64::from(loss.charged);
            (loss, is_unwanted)
        });
        if is_unwanted {
            self.forward(shared, &printed);
        }
        loss
    }

    /// Nobody takes a call's result, so what it has printed is forwarded here, if it is to be.
    fn forward(&self, shared: &PoolShared, printed: &Printed) {
        if shared.output() == Output::Forward && !printed.is_empty() {
            let printed = printed.clone();
            shared
                .printer
                .send(move || Forwarder::default().forward(&printed));
        }
    }

    /// Asks the worker to leave, and kills it if it has not left when the grace is over.
    pub(crate) fn dismiss(&mut self, shared: &PoolShared) {
        if let Some(least) = shared.config.single {
            let left = least.saturating_sub(self.ready_since.elapsed());
            shared.wait_until(Some(left), |state| state.hurry);
        }
        let code = i32::from(shared.config.single.is_some() && self.last_failed);
        if let Err(error) = self.worker.link.send(&ToWorker::Exit(code), &[]) {
            // Most workers have left by now.
            let (slot, pid) = (self.slot.0 + 1, self.worker.pid);
            log::debug!("slot {slot}: worker {pid} could not be asked to leave: {error}");
        }
        if let Some(process) = self.worker.process.as_deref()
            && !process.wait(Some(shared.config.limits.grace.max(TO_LEAVE)))
        {
            log::warn!(
                "slot {}: worker {} did not leave when asked to, and is killed",
                self.slot.0 + 1,
                self.worker.pid
            );
            self.kill();
        }
        self.bury(shared);
        let (pid, last) = (self.worker.pid, self.last_words());
        shared.strayed(StraySource::Exit, self.slot, pid, last);
    }

    /// Waits for the worker's death, and clears its post. Its black box stays there until the scheduler knows:
    /// an idle slot that took calls back in between would see none that had been started, and run the one
    /// again that the worker has died of.
    fn bury(&self, shared: &PoolShared) -> Death {
        let reap = |process: &Arc<WorkerProcess>| process.reap();
        // Only the person who started a worker by hand knows how it ended.
        let death = self.worker.process.as_ref().map_or(Death::Exit(0), reap);
        let mut state = shared.state();
        let post = &mut state.posts[self.slot.0];
        *post = Post {
            black_box: post.black_box.take(),
            ..Post::default()
        };
        state.last_death = Some(death);
        drop(state);
        shared.milestone();
        death
    }
}

/// What a message from a worker came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// The worker has answered for all calls of the batch.
    All,
    News,
    Nothing,
}
