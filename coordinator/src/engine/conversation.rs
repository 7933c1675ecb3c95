//! The conversation with a worker. The thread that holds the worker's seat leads it: the slot's own thread, or a caller who has
//! borrowed the seat. What follows when the worker dies stands in `death`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::Caps;
use protocol::link::LinkError;
use protocol::message::Reply;

use super::ends::Answer;
use super::seat::Seat;
use super::shared::PoolShared;
use crate::error::Why;
use crate::payload::buffers;
use crate::payload::printed::Printed;
use crate::payload::{EncodedInputs, Job, Payload};
use crate::scheduler::{Batch, Idle, Running};
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
            Reply::Calls(calls) => calls.serial,
            Reply::Call(call) => call.serial,
            Reply::Stopped(stopped) => stopped.serial,
        };
        if serial != self.worker.serial {
            return Err(LinkError::Malformed(format!(
                "a reply to batch {serial} instead of {}",
                self.worker.serial
            )));
        }
        let now = shared.now();
        let heard = match reply {
            Reply::Calls(calls) => {
                let answer = Answer::check(first, calls, payload).map_err(LinkError::Malformed)?;
                self.answered += u64::from(answer.count);
                self.last_failed = answer.last_failed();
                let by = self.by();
                shared.act(|state| {
                    let is_news = state.hear_calls(running, &by, answer, now)?;
                    Ok(Heard::of(state.jobs.is_answered(running), is_news))
                })
            }
            Reply::Call(call) => {
                self.answered += 1;
                self.last_failed = !call.end.verdict.is_value();
                let by = self.by();
                shared.act(|state| {
                    state.hear_call(running, by, call, payload, now)?;
                    Ok(Heard::of(state.jobs.is_answered(running), true))
                })
            }
            Reply::Stopped(stopped) => shared.act(|state| {
                state.jobs.stopped(running, stopped.at)?;
                Ok(Heard::of(state.jobs.is_answered(running), false))
            }),
        };
        heard.map_err(LinkError::Malformed)
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
