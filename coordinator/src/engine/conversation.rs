//! The conversation with a worker. The thread that holds the worker's seat leads it: the slot's own thread, or a caller who has
//! borrowed the seat. What follows when the worker dies stands in `death`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::Caps;
use protocol::link::LinkError;
use protocol::message::{self, CallReply, Reply};

use super::seat::Seat;
use super::shared::PoolShared;
use crate::error::Why;
use crate::payload::buffers;
use crate::payload::forward::Forwarder;
use crate::payload::printed::{Output, Printed};
use crate::payload::{EncodedInputs, Job, Payload, Trace, Values};
use crate::scheduler::{Batch, Idle, MOST_CALLS, Running};
use crate::workers::launch::Admitted;
use crate::workers::talk;

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
                    Ok(Heard::of(state.jobs.is_answered(running), false))
                })
                .map_err(LinkError::Malformed),
        }
    }

    fn hear_values(
        &mut self,
        shared: &PoolShared,
        running: &Running,
        first: u64,
        values: message::Values,
        payload: Payload,
    ) -> Result<Heard, LinkError> {
        let at = values.at;
        let count = checked_count(&values)?;
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
                Ok(Heard::of(state.jobs.is_answered(running), news > 0))
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
                Ok(Heard::of(state.jobs.is_answered(running), true))
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

    /// Nobody takes a call's result, so what it has printed is forwarded here, if it is to be.
    pub(super) fn forward(&self, shared: &PoolShared, printed: &Printed) {
        if shared.output() == Output::Forward && !printed.is_empty() {
            let printed = printed.clone();
            shared
                .printer
                .send(move || Forwarder::default().forward(&printed));
        }
    }
}

/// How many calls a reply has values of.
fn checked_count(values: &message::Values) -> Result<u32, LinkError> {
    let count = values.lens.count();
    match u32::try_from(count) {
        Ok(few @ ..=MOST_CALLS) if values.nanos.count() == count => Ok(few),
        _ => Err(LinkError::Malformed(
            "a reply to more calls than a batch has".to_owned(),
        )),
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

impl Heard {
    fn of(answered: bool, news: bool) -> Self {
        match (answered, news) {
            (true, _) => Heard::All,
            (false, true) => Heard::News,
            (false, false) => Heard::Nothing,
        }
    }
}
