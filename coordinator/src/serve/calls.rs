//! The calls of a lease, while this machine runs them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::{Ending, Files, MOST_PAYLOAD, Values, What};
use protocol::message::Runs;

use super::event::{Event, News};
use super::files::{self, Made};
use crate::agents::bulk::Content;
use crate::agents::carriage::{Told, ending};
use crate::pool::{EncodedEnd, EncodedEnds, EncodedOutput};

/// How long values are gathered, and how many bytes of them.
const GATHER: Duration = Duration::from_millis(5);
const ENOUGH: usize = MOST_PAYLOAD / 2;
/// Of how many calls values are gathered: a length and a time of each stand in the message.
const MANY: u64 = 16 << 10;

/// Where the files of calls are.
pub(super) struct CallFiles {
    /// The directory that has one for each call.
    pub(super) calls: PathBuf,
    /// What goes along with each call, by its index.
    pub(super) files: BTreeMap<u64, Files>,
}

/// Follows the calls of a lease on a thread of its own, until the last has ended. `first` is the index of the first of them in
/// the map of the coordinator.
pub(super) fn follow(
    (epoch, lease, first): (u64, u64, u64),
    ends: EncodedEnds,
    files: Option<CallFiles>,
    to: Sender<Event>,
) -> std::io::Result<()> {
    let follower = Follower {
        epoch,
        lease,
        first,
        to,
        files,
        gathered: Vec::new(),
        outputs: Vec::new(),
        calls: 0,
        since: None,
    };
    thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || follower.run(ends))?;
    Ok(())
}

struct Follower {
    epoch: u64,
    lease: u64,
    first: u64,
    to: Sender<Event>,
    files: Option<CallFiles>,
    gathered: Vec<Values>,
    outputs: Vec<u8>,
    /// Of how many calls values were gathered.
    calls: u64,
    /// When the first of what was gathered came.
    since: Option<Instant>,
}

impl Follower {
    fn run(mut self, mut ends: EncodedEnds) {
        loop {
            let left = self
                .since
                .map(|since| GATHER.saturating_sub(since.elapsed()));
            match ends.next(left) {
                Some(Ok(EncodedEnd::Values {
                    first,
                    lens,
                    nanos,
                    outputs,
                    slot,
                    worker,
                })) => {
                    let by = (u32::try_from(slot).unwrap_or(0), worker);
                    let first = self.first + first;
                    match self.files {
                        None => self.gather(first, by, &lens, &nanos, &outputs),
                        Some(_) => self.say_each(first, by, &lens, &nanos, &outputs),
                    }
                }
                Some(Ok(EncodedEnd::One {
                    index,
                    result,
                    note,
                    trace,
                })) => {
                    self.say_gathered();
                    let index = self.first + index;
                    let elapsed = trace.elapsed(index - self.first);
                    let made = self.made_by(index, result.is_ok());
                    let (ending, made) = match made {
                        Ok(made) => (ending(result), made),
                        Err(why) => (Ending::Failed(why), Vec::new()),
                    };
                    let is_value = ending == Ending::Value;
                    let what = What::Ended {
                        index,
                        ending,
                        nanos: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
                        slot: u32::try_from(trace.by.slot.number()).unwrap_or(0),
                        worker: trace.by.pid,
                        stdout: trace.printed.stdout.len(),
                        stderr: trace.printed.stderr.len(),
                        note,
                    };
                    let stdout = trace.printed.stdout.clone();
                    let stderr = trace.printed.stderr.clone();
                    let told: Box<dyn Content> = match is_value {
                        true => Box::new(Told {
                            value: Output(EncodedOutput::new(trace, index - self.first)),
                            stdout,
                            stderr,
                        }),
                        false => Box::new(Told {
                            value: Vec::new(),
                            stdout,
                            stderr,
                        }),
                    };
                    self.say(1, what, told, made);
                }
                Some(Ok(EncodedEnd::Unbegun { first, count })) => {
                    self.say_gathered();
                    let first = self.first + first;
                    let what = What::Returned(vec![(first, first + u64::from(count))]);
                    self.say(count.into(), what, Box::new(Vec::new()), Vec::new());
                }
                Some(Err(())) => self.say_gathered(),
                None => break,
            }
        }
        self.say_gathered();
        // Nobody hears it if the agent has ended.
        let _ = self.to.send(Event::Over {
            epoch: self.epoch,
            lease: self.lease,
        });
    }

    fn gather(
        &mut self,
        first: u64,
        (slot, worker): (u32, u32),
        lens: &[u32],
        nanos: &[u32],
        outputs: &[u8],
    ) {
        let mut rest = outputs;
        let mut part: Option<Values> = None;
        for (index, (len, nanos)) in (first..).zip(lens.iter().zip(nanos)) {
            let (ours, others) = rest.split_at_checked(*len as usize).unwrap_or_default();
            rest = others;
            let is_large = !self.outputs.is_empty() && self.outputs.len() + ours.len() > ENOUGH;
            if is_large || self.calls >= MANY {
                self.gathered.extend(part.take());
                self.say_gathered();
            }
            self.outputs.extend_from_slice(ours);
            let part = part.get_or_insert_with(|| Values {
                first: index,
                lens: Runs::default(),
                nanos: Runs::default(),
                slot,
                worker,
            });
            part.lens.push(*len);
            part.nanos.push(*nanos);
            self.calls += 1;
            self.since.get_or_insert_with(Instant::now);
        }
        self.gathered.extend(part);
        if self.outputs.len() >= ENOUGH {
            self.say_gathered();
        }
    }

    fn say_gathered(&mut self) {
        self.since = None;
        let gathered = std::mem::take(&mut self.gathered);
        let outputs = std::mem::take(&mut self.outputs);
        let calls = std::mem::take(&mut self.calls);
        if calls > 0 {
            let outputs = Box::new(outputs);
            self.say(calls, What::Values(gathered), outputs, Vec::new());
        }
    }

    /// Tells of each of these calls by itself, with what it has made.
    fn say_each(
        &mut self,
        first: u64,
        (slot, worker): (u32, u32),
        lens: &[u32],
        nanos: &[u32],
        outputs: &[u8],
    ) {
        let mut rest = outputs;
        for (index, (len, nanos)) in (first..).zip(lens.iter().zip(nanos)) {
            let (ours, others) = rest.split_at_checked(*len as usize).unwrap_or_default();
            rest = others;
            let (ending, value, made) = match self.made_by(index, true) {
                Ok(made) => (Ending::Value, ours.to_vec(), made),
                Err(why) => (Ending::Failed(why), Vec::new(), Vec::new()),
            };
            let what = What::Ended {
                index,
                ending,
                nanos: u64::from(*nanos),
                slot,
                worker,
                stdout: 0,
                stderr: 0,
                note: None,
            };
            self.say(1, what, Box::new(value), made);
        }
    }

    /// What a call has made, if it has succeeded. An error says what it has not made.
    fn made_by(&self, index: u64, is_ok: bool) -> Result<Made, String> {
        let known = self.files.as_ref().filter(|_| is_ok);
        let files = known.and_then(|known| Some((&known.calls, known.files.get(&index)?)));
        match files {
            Some((calls, files)) => files::collect(calls, files),
            None => Ok(Vec::new()),
        }
    }

    fn say(&self, calls: u64, what: What, payload: Box<dyn Content>, made: Made) {
        // Nobody hears it if the agent has ended.
        let _ = self.to.send(Event::News(News {
            epoch: self.epoch,
            lease: self.lease,
            calls,
            what,
            payload,
            made,
        }));
    }
}

/// The output of a call, which stays where it is.
struct Output(EncodedOutput);

impl Deref for Output {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}
