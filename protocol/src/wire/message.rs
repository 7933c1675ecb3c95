//! The messages, in the order in which a conversation uses them.
//!
//! On the wire an enum variant is the number of its position: add new variants at the end, and raise
//! [`VERSION`](crate::wire::handshake::VERSION) with every change of meaning. A new message also needs words in the
//! specification, which is this crate's first page, and `examples/worker.py` has to know it or to ignore it.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::memory::black_box::CALLS;

/// The worker's first message: who it is and what it can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Proof that the worker was invited: what `COORDINATOR_TOKEN` held.
    pub token: String,
    /// The worker's process id.
    pub pid: u32,
    /// The tasks it can run.
    pub tasks: Vec<TaskInfo>,
    /// Which build of its program it is: any text. All workers of a pool must say the same, so that no call is
    /// answered by another program.
    pub build: String,
    /// Whether it can share memory with its coordinator. A worker that can't is a [plain](crate#plain-workers) worker: it
    /// gets its calls one at a time, all by the socket.
    pub shares: bool,
}

/// A task, as a worker lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The name calls use.
    pub name: String,
    /// Its signature, as in the source: `fn square(x: i64) -> i64`.
    pub signature: String,
    /// The first line of its doc comment; empty if it has none.
    pub doc: String,
}

/// A message of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The worker is admitted.
    Welcome(Welcome),
    /// The worker is not admitted, and why.
    Refused(String),
    /// Calls to run, in this order.
    Batch(Batch),
    /// No further calls: leave with this exit code.
    Exit(i32),
    /// Here are descriptors of shared memory that the next batch refers to.
    Here,
    /// Become a template: no further calls, but copies of this process, as `Copy` asks for them.
    Template,
    /// Make a copy of this process, which becomes the worker that this message welcomes. Descriptors come along: the
    /// worker's socket, stdin, stdout and stderr, and what comes with every welcome.
    Copy(Welcome),
}

/// What the coordinator tells an admitted worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The slot it fills, counted from 1.
    pub slot: u32,
    /// Whether a [board](crate::memory::board) comes behind the [black box](crate::memory::black_box).
    pub board: bool,
}

/// The message of an admitted worker that has mapped its black box and waits for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready;

/// A worker's answer to [`ToWorker::Template`] and [`ToWorker::Copy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateReply {
    /// The worker is a template now.
    Ready,
    /// There is a copy, with this process id. Its pidfd comes along.
    Copied(u32),
    /// This process can't be copied, now or later, and why.
    Refused(String),
    /// There is no copy this time, and why.
    Failed(String),
}

/// Consecutive calls of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The serial number of the batch on this link. Each reply repeats it, so that a reply that comes late or unasked is
    /// never taken for the answer to another batch.
    pub serial: u32,
    /// The task's name.
    pub task: String,
    /// The types that the coordinator takes the task to have, as in `(i64) -> i64`, so that two builds that
    /// disagree find out before they misread each other. `None` if the coordinator does not know them.
    pub types: Option<String>,
    /// How inputs and outputs are encoded.
    pub encoding: Encoding,
    /// The place of the first call in its map, from 0. The other calls have the places behind it.
    pub first: u64,
    /// Which attempt at these calls this is, from 1.
    pub attempt: u32,
    /// The lengths of the inputs in the payload, in bytes: one for each call.
    pub lens: Runs,
}

/// A sequence of numbers in which neighbours are often equal: each number with how often it comes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Runs(Vec<(u32, u32)>);

impl Runs {
    /// Adds a number.
    #[inline]
    pub fn push(&mut self, number: u32) {
        match self.0.last_mut() {
            Some((last, times)) if *last == number && *times < u32::MAX => *times += 1,
            _ => self.0.push((number, 1)),
        }
    }

    /// How many numbers the sequence has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, times)| u64::from(*times)).sum()
    }

    /// The sum of the numbers.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let products = self
            .0
            .iter()
            .map(|(number, times)| u64::from(*number) * u64::from(*times));
        products.fold(0, u64::saturating_add)
    }

    /// The numbers, one after another. A caller that keeps them checks [`count`](Self::count) first: it costs
    /// the other side nothing to claim a great many.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let runs = self.0.iter();
        runs.flat_map(|(number, times)| std::iter::repeat_n(*number, *times as usize))
    }

    /// All numbers in a vector, faster than by [`iter`](Self::iter).
    #[must_use]
    pub fn to_vec(&self) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (number, times) in &self.0 {
            numbers.resize(numbers.len() + *times as usize, *number);
        }
        numbers
    }

    /// Removes the last number.
    pub fn pop(&mut self) {
        if let Some((_, times)) = self.0.last_mut() {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.0.pop();
            }
        }
    }

    /// Removes all numbers.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl FromIterator<u32> for Runs {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut runs = Runs::default();
        numbers.into_iter().for_each(|number| runs.push(number));
        runs
    }
}

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// Postcard of the task's own types.
    Postcard,
    /// Text in, JSON out: for callers that do not know the task's types.
    Text,
    /// Text in, nothing out: the worker does not run the task, and only says whether the text is an input of it.
    Check,
}

/// A message of the worker, after the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Consecutive calls. Their outputs are the payload.
    Calls(CallsReply),
    /// One call, whose output may be large.
    Call(CallReply),
    /// The worker runs no further call of the batch: the coordinator has taken the rest back.
    Stopped(Stopped),
}

/// The ends of consecutive calls, none of which ran for longer than `u32` nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallsReply {
    /// The batch they came in.
    pub serial: u32,
    /// The place of the first in its batch, from 0.
    pub at: u32,
    /// How long the outputs in the payload are, in bytes: one for each call. A call that returned no value has none.
    pub lens: Runs,
    /// How long each call ran, in nanoseconds.
    pub nanos: Runs,
    /// How some of them ended, each with its place among these calls, from 0, in ascending order. All others returned a value,
    /// and printed nothing.
    #[serde(deserialize_with = "few_ends")]
    pub ends: Vec<(u32, CallEnd)>,
}

/// Reads no more ends than a batch has calls: in memory one takes many times what it takes on the wire.
fn few_ends<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(u32, CallEnd)>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = Vec<(u32, CallEnd)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ends of calls")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut ends = Vec::new();
            while let Some(end) = seq.next_element()? {
                if ends.len() == CALLS {
                    return Err(A::Error::custom("more ends than a batch has calls"));
                }
                ends.push(end);
            }
            Ok(ends)
        }
    }

    deserializer.deserialize_seq(Few)
}

/// How a call ended, and where its printed output ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEnd {
    /// How long the file behind the worker's stdout is now, in bytes; 0 if it is no file.
    pub stdout: u64,
    /// How long the file behind the worker's stderr is now, in bytes; 0 if it is no file.
    pub stderr: u64,
    /// How the call ended.
    pub verdict: Verdict,
}

/// The end of one call. With [`Verdict::Value`] the payload is its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReply {
    /// The batch it came in.
    pub serial: u32,
    /// Its place in its batch, from 0.
    pub at: u32,
    /// How long the call ran, in nanoseconds.
    pub nanos: u64,
    /// How it ended.
    pub end: CallEnd,
}

/// The end of a batch that was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The batch.
    pub serial: u32,
    /// How many of its calls the worker has run.
    pub at: u32,
}

/// How a call ended, as far as the worker can tell. It decodes without knowing the task's types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The task returned a value: the payload.
    Value,
    /// The task returned an error, or could not be run.
    Failed(String),
    /// The task panicked.
    Panicked(Panic),
    /// The input could not be decoded, or the output not encoded.
    Undecodable(String),
}

impl Verdict {
    /// Whether the task returned a value.
    #[must_use]
    pub fn is_value(&self) -> bool {
        *self == Verdict::Value
    }
}

/// A panic, carried across processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// The panic's message.
    pub message: String,
    /// Where it happened, as in `src/lib.rs:10:5`.
    pub location: String,
    /// The worker's stack; empty unless `RUST_BACKTRACE` asks for it.
    pub backtrace: String,
}
