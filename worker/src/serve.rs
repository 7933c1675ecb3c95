//! The conversation with the coordinator, from the worker's side.

use std::io::{Read, Write};
use std::ops::Range;

use protocol::black_box::{BlackBox, CALLS, Recorder};
use protocol::descriptors::Taken;
use protocol::frame::Caps;
use protocol::lane::Placed;
use protocol::link::{Answer, Link, LinkError};
use protocol::message::{
    Batch, CallEnd, CallReply, CallsReply, Encoding, Reply, Stopped, TemplateReply, ToWorker,
    Verdict,
};
use protocol::parcel::Received;

use crate::current::{self, Current};
use crate::os;
use crate::output::{Printed, Watch};
use crate::registry::{self, Entry};
use crate::run;
use crate::shared;

/// The longest time for which outputs are gathered before they are sent, in nanoseconds, unless a single call takes
/// longer. A coordinator that needs the outputs sooner finds them in the black box.
const GATHER: u64 = 2_000_000;
/// For how long the ends of calls that failed or printed something are gathered, in nanoseconds, after the first in a batch
/// was sent at once: whoever waits for a failure may stop all other calls.
const GATHER_ENDS: u64 = 50_000;
/// How much of the buffer for outputs is kept from one batch to the next, in bytes.
const KEEP: usize = 4 << 20;
/// The most calls in a batch.
const MOST_CALLS: u64 = CALLS as u64;
/// The most bytes of outputs that are gathered.
const GATHERED: usize = 128 << 10;

/// Why a worker runs no further batch.
#[derive(Debug)]
pub(crate) enum End {
    /// It is to leave with this exit code: the coordinator asked for that, or is gone.
    Exit(i32),
    /// It is to be a template.
    Template,
}

/// Runs batches until the coordinator ends the conversation. `taken` holds the descriptors that arrive on the link.
pub(crate) fn serve<S: Read + Write>(
    link: &mut Link<S>,
    taken: &Taken,
    slot: u32,
    black_box: &BlackBox,
) -> Result<End, LinkError> {
    let mut watch = Watch::new();
    let mut outputs = Vec::new();
    run::begin();
    loop {
        match link.receive_to_answer(Caps::FULL) {
            Ok((ToWorker::Batch(batch), payload, answer)) => {
                add_up(&batch, &payload)?;
                shared::forget_dropped();
                taken.take().into_iter().for_each(shared::arrived);
                let mut run = Run::new(&batch, slot, black_box, &mut watch, answer);
                run.outputs = std::mem::take(&mut outputs);
                outputs = run.run(payload)?;
                // The next outputs are likely to be as large as these, within reason.
                outputs.clear();
                outputs.shrink_to(KEEP);
            }
            Ok((ToWorker::Here, ..)) => {}
            Ok((ToWorker::Exit(code), ..)) => return Ok(End::Exit(code)),
            Ok((ToWorker::Template, _, mut answer)) => {
                match os::can_be_copied().and_then(|()| os::fill_streams()) {
                    Ok(()) => return Ok(End::Template),
                    Err(why) => answer.send(&TemplateReply::Refused(why), &[])?,
                }
            }
            Ok((other, ..)) => return Err(LinkError::Malformed(format!("{other:?} out of turn"))),
            Err(LinkError::Closed) => return Ok(End::Exit(0)),
            Err(error) => return Err(error),
        }
    }
}

/// Checks that the inputs fill the payload. This happens before any call runs, because a call can't be undone.
fn add_up(batch: &Batch, payload: &Received<'_>) -> Result<(), LinkError> {
    let (total, calls) = (batch.lens.sum(), batch.lens.count());
    if total == payload.len() as u64 && calls <= MOST_CALLS {
        return Ok(());
    }
    Err(LinkError::Malformed(format!(
        "a batch of {calls} calls whose inputs are {total} bytes, in a payload of {}",
        payload.len()
    )))
}

/// The batch that is being run.
struct Run<'b, 'l, S> {
    batch: &'b Batch,
    slot: u32,
    black_box: &'b BlackBox,
    recorder: Recorder<'b>,
    watch: &'b mut Watch,
    answer: Answer<'l, S>,
    /// How many calls it has.
    calls: u32,
    gathered: CallsReply,
    /// The number of gathered calls.
    many: u32,
    /// The output's length and the running time of the last gathered call.
    last: (u32, u32),
    /// The gathered outputs, one after another.
    outputs: Vec<u8>,
    /// When the gathered calls have to be sent.
    send_at: u64,
    /// When calls were last sent among which some had failed or printed something.
    ends_sent: u64,
    /// Where an end is encoded.
    end: Vec<u8>,
    /// How long the gathered ends are when they are encoded.
    texts: usize,
    clock: Clock,
}

/// The place of a call's output, if it has one.
#[derive(Debug, Clone)]
enum Output {
    /// In `outputs`, from this byte on. A large piece of it has this place in it.
    From(usize, Range<usize>),
    /// In shared memory, where the coordinator takes it from.
    Placed(Placed),
}

/// Times calls. Reading the system's clock costs about as much as a very short call, so short calls are timed
/// several at a time, and all of them count as equally long.
struct Clock {
    /// When the clock was read last.
    now: u64,
    /// How long each of the last calls took, in nanoseconds.
    pace: u64,
    /// How many calls have ended since the clock was read.
    unread: u32,
}

/// How many calls are timed together, and how short they must be, in nanoseconds.
const TOGETHER: u32 = 16;
const SHORT: u64 = 1000;

impl Clock {
    fn new() -> Self {
        Clock {
            now: os::now(),
            pace: SHORT,
            unread: 0,
        }
    }

    /// Whether the call that ends now is timed together with others.
    fn skips(&self) -> bool {
        self.pace < SHORT && self.unread + 1 < TOGETHER
    }

    /// Returns how long the call took that has just ended. With `alone` it always reads the clock, so that the time in a
    /// reply of its own is no guess.
    fn tick(&mut self, alone: bool) -> u64 {
        let skips = self.skips() && !alone;
        self.unread += 1;
        if skips {
            return self.pace;
        }
        let before = std::mem::replace(&mut self.now, os::now());
        let took = self.now.saturating_sub(before);
        let others = self.pace * u64::from(self.unread - 1);
        self.pace = took / u64::from(self.unread);
        self.unread = 0;
        // The other calls counted as being as short as those before them. If the sum is longer, the last call most
        // likely made it so: after the first long call, the clock is read after each call.
        took.saturating_sub(others)
    }
}

impl<'b, 'l, S: Read + Write> Run<'b, 'l, S> {
    fn new(
        batch: &'b Batch,
        slot: u32,
        black_box: &'b BlackBox,
        watch: &'b mut Watch,
        answer: Answer<'l, S>,
    ) -> Self {
        let gathered = CallsReply {
            serial: batch.serial,
            ..CallsReply::default()
        };
        Run {
            batch,
            slot,
            black_box,
            recorder: black_box.recorder(),
            watch,
            answer,
            calls: u32::try_from(batch.lens.count()).unwrap_or(u32::MAX),
            gathered,
            many: 0,
            last: (0, 0),
            outputs: Vec::new(),
            send_at: 0,
            ends_sent: 0,
            end: Vec::new(),
            texts: 0,
            clock: Clock::new(),
        }
    }

    /// Runs the batch, and returns the buffer for outputs.
    fn run(mut self, payload: Received<'_>) -> Result<Vec<u8>, LinkError> {
        let task = find(self.batch);
        // The input of a single call is given to it. Those of several are parts of one payload.
        let (mut single, joined) = match self.calls {
            1 => (Some(payload), Received::Lent(&[])),
            _ => (None, payload),
        };
        let joined = joined.join();
        let mut rest = &*joined;
        for (at, len) in (0..).zip(self.batch.lens.iter()) {
            let input = single.take().unwrap_or_else(|| {
                let (input, behind) = rest.split_at_checked(len as usize).unwrap_or_default();
                rest = behind;
                Received::Lent(input)
            });
            if !self.black_box.start(self.clock.now) {
                current::set(None);
                self.send_gathered(at)?;
                let serial = self.batch.serial;
                self.answer
                    .send(&Reply::Stopped(Stopped { serial, at }), &[])?;
                return Ok(self.outputs);
            }
            current::set(Some(Current {
                worker: self.slot,
                index: self.batch.first + u64::from(at),
                attempt: self.batch.attempt,
                cancelled: false,
            }));
            let start = self.outputs.len();
            let mut sheet = self.answer.sheet(&mut self.outputs);
            let verdict = match &task {
                Ok(task) => run::guarded(runner(task, self.batch.encoding), input, &mut sheet),
                Err(why) => Verdict::Undecodable(why.clone()),
            };
            // This call has panicked.
            run::end_a_copy();
            let piece = sheet.piece();
            let output = match sheet.placed() {
                Some(placed) => Output::Placed(placed),
                None => Output::From(start, piece),
            };
            let in_passing = self.clock.skips() && verdict == Verdict::Value;
            let printed = self.watch.look(in_passing);
            self.ended(at, verdict, printed, output)?;
        }
        current::set(None);
        self.close()?;
        Ok(self.outputs)
    }

    /// A call has ended.
    fn ended(
        &mut self,
        at: u32,
        verdict: Verdict,
        printed: Option<Printed>,
        output: Output,
    ) -> Result<(), LinkError> {
        let is_silent_value = verdict == Verdict::Value && printed.is_none();
        let is_last = at + 1 == self.calls;
        // No later call could correct the time of the last one.
        let nanos = self.clock.tick(!is_silent_value || is_last);
        let end = (!is_silent_value).then(|| CallEnd {
            verdict,
            ..self.printed(printed)
        });
        let start = match output {
            Output::From(start, _) if self.outputs.len() - start < GATHERED => start,
            _ => return self.send_call(at, end, output, nanos),
        };
        let (Ok(brief), true) = (u32::try_from(nanos), self.encode(end.as_ref())) else {
            return self.send_call(at, end, output, nanos);
        };
        if self.many == 0 {
            self.gathered.at = at;
            self.send_at = self.clock.now + GATHER;
        }
        self.many += 1;
        let output = &self.outputs[start..];
        // The last call is sent at once. Before that, the worker looks once more for what the call has printed: if the
        // output were in the box already, the coordinator would take the call for one that printed nothing.
        let kept = is_last
            || match &end {
                None => self.recorder.finish(output, brief),
                Some(_) => self.recorder.finish_with(&self.end, output, brief),
            };
        // A longer output would not be gathered.
        self.last = (output.len() as u32, brief);
        self.gathered.lens.push(self.last.0);
        self.gathered.nanos.push(brief);
        if let Some(end) = end {
            self.gather_end(end);
        }
        if is_last {
            return Ok(()); // `close` sends it
        }
        if !kept || self.outputs.len() >= GATHERED || self.clock.now >= self.send_at {
            return self.send_gathered(at + 1);
        }
        Ok(())
    }

    /// Encodes how a call ended, if there is something to say of that. Returns whether it is short enough to be gathered.
    #[inline]
    fn encode(&mut self, end: Option<&CallEnd>) -> bool {
        end.is_none_or(|end| {
            self.end.clear();
            // What can't be encoded is tried once more when it is sent.
            protocol::encode(end, &mut self.end).is_ok() && self.end.len() < GATHERED
        })
    }

    /// Gathers how the last of the gathered calls ended.
    #[cold]
    fn gather_end(&mut self, end: CallEnd) {
        self.gathered.ends.push((self.many - 1, end));
        self.texts += self.end.len();
        self.send_at = match self.texts < GATHERED {
            true => self.send_at.min(self.ends_sent + GATHER_ENDS),
            false => 0,
        };
    }

    /// The end of a call that has printed this. A call that has printed nothing ends where the last one did.
    fn printed(&self, printed: Option<Printed>) -> CallEnd {
        let Printed { stdout, stderr } = printed.unwrap_or_else(|| self.watch.seen());
        CallEnd {
            stdout,
            stderr,
            verdict: Verdict::Value,
        }
    }

    /// Sends the gathered outputs of the calls before `done`.
    fn send_gathered(&mut self, done: u32) -> Result<(), LinkError> {
        self.send_calls(done, self.outputs.len())?;
        self.outputs.clear();
        Ok(())
    }

    /// Sends the gathered calls before `done`. Their outputs end at `end`.
    fn send_calls(&mut self, done: u32, end: usize) -> Result<(), LinkError> {
        if self.many == 0 {
            return Ok(());
        }
        let calls = Reply::Calls(std::mem::take(&mut self.gathered));
        self.answer.send(&calls, &[&self.outputs[..end]])?;
        if let Reply::Calls(calls) = calls {
            self.gathered = calls; // keeps its buffers
        }
        if !self.gathered.ends.is_empty() {
            self.ends_sent = self.clock.now;
        }
        self.gathered.lens.clear();
        self.gathered.nanos.clear();
        self.gathered.ends.clear();
        self.texts = 0;
        self.many = 0;
        self.recorder.sent(done);
        Ok(())
    }

    /// Sends the gathered calls, and then this call by itself.
    fn send_call(
        &mut self,
        at: u32,
        end: Option<CallEnd>,
        output: Output,
        nanos: u64,
    ) -> Result<(), LinkError> {
        let outputs_end = match output {
            Output::From(start, _) => start,
            Output::Placed(_) => self.outputs.len(),
        };
        self.send_calls(at, outputs_end)?;
        // Output that an earlier look has missed counts as this call's, too.
        let now = self.watch.look_closely();
        let mut end = end.unwrap_or_else(|| self.printed(now));
        if let Some(Printed { stdout, stderr }) = now {
            (end.stdout, end.stderr) = (stdout, stderr);
        }
        let CallEnd { stdout, stderr, .. } = end;
        match self.send_one(at, end, nanos, output) {
            Err(LinkError::TooLarge(what)) => {
                let end = CallEnd {
                    stdout,
                    stderr,
                    verdict: too_large(&what),
                };
                let nothing = Output::From(self.outputs.len(), 0..0);
                self.send_one(at, end, nanos, nothing)?;
            }
            sent => sent?,
        }
        self.outputs.clear();
        self.recorder.sent(at + 1);
        Ok(())
    }

    fn send_one(
        &mut self,
        at: u32,
        end: CallEnd,
        nanos: u64,
        output: Output,
    ) -> Result<(), LinkError> {
        let reply = Reply::Call(CallReply {
            serial: self.batch.serial,
            at,
            nanos,
            end,
        });
        match output {
            Output::From(start, piece) => {
                (self.answer).send_large(&reply, &[&self.outputs[start..]], piece)
            }
            Output::Placed(placed) => self.answer.send_placed(&reply, placed),
        }
    }

    /// Sends the remaining calls at the batch's end. Printed output that earlier looks have missed counts as the last
    /// call's.
    fn close(&mut self) -> Result<(), LinkError> {
        if self.many == 0 {
            return Ok(());
        }
        if let Some(printed) = self.watch.look_closely() {
            let end = self.printed(Some(printed));
            let last = self.many - 1;
            match self.gathered.ends.last_mut() {
                Some((at, known)) if *at == last => {
                    (known.stdout, known.stderr) = (end.stdout, end.stderr);
                }
                _ => self.gathered.ends.push((last, end)),
            }
        }
        if !self.gathered.ends.is_empty() {
            // A failure may cancel what this worker runs. By the box it runs nothing any more.
            self.record_last();
        }
        self.send_gathered(self.calls)
    }

    /// Records the last call, of which all is known now.
    fn record_last(&mut self) {
        let ends = self.gathered.ends.last();
        let end = ends.filter(|(place, _)| place + 1 == self.many);
        self.end.clear();
        if end.is_some_and(|(_, end)| protocol::encode(end, &mut self.end).is_err()) {
            return;
        }
        let output = &self.outputs[self.outputs.len() - self.last.0 as usize..];
        // If there is no room, it counts as finished when it has been sent.
        let _ = match end {
            None => self.recorder.finish(output, self.last.1),
            Some(_) => self.recorder.finish_with(&self.end, output, self.last.1),
        };
    }
}

fn too_large(what: &str) -> Verdict {
    Verdict::Undecodable(format!("the output is too large: {what}"))
}

fn runner(task: &Entry, encoding: Encoding) -> run::Runner {
    match encoding {
        Encoding::Postcard => task.postcard,
        Encoding::Text => task.text,
        Encoding::Check => task.check,
    }
}

fn find(batch: &Batch) -> Result<&'static Entry, String> {
    let task = registry::find(&batch.task)?;
    match &batch.types {
        Some(types) if types != task.types => Err(format!(
            "the coordinator knows `{}` as {types}, this worker as {}: build both from the same \
             source",
            task.name, task.types
        )),
        _ => Ok(task),
    }
}
