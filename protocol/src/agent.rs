//! What a coordinator and its agents say to each other, over a broker.
//!
//! An agent offers the slots of its machine. It gets its calls in leases, says each second what it holds, and reports what became
//! of them. Any message may be lost, come twice, come late, or overtake another; so each is sent again until it is answered, and
//! numbers in it tell what is new.
//!
//! A message is two bytes of version, the length of its header in four, the header in postcard encoding, and a payload: encoded
//! inputs or outputs, one behind the other. [`encode`] and [`decode`] do that.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ValueError;
use crate::message::{Encoding, Runs, Verdict};

/// The version of these messages. Agents of another version are not heard.
pub const VERSION: u16 = 1;
/// The largest message, in bytes: half of what a broker takes unless it is told otherwise.
pub const MOST: usize = 512 << 10;
/// The most leases, or running calls, that a beat may name.
pub const MOST_NAMED: usize = 4096;

/// An agent to its coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Up {
    /// It would take calls.
    Join(Join),
    /// What it holds, each second.
    Beat(Beat),
    /// What became of calls.
    Report(Report),
}

/// An agent that would take calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its life, a number that only grows. A new one says that nothing of an earlier one runs.
    pub epoch: u64,
    /// The agent's own clock when it sent this, in nanoseconds. The answer repeats it.
    pub clock: u64,
    /// How many calls it runs at once.
    pub slots: u32,
}

/// What an agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Its life.
    pub epoch: u64,
    /// The agent's own clock when it sent this, in nanoseconds. The answer repeats it.
    pub clock: u64,
    /// Leases that it has, by number.
    pub leases: Vec<u64>,
    /// Calls that have run for a while: each is known to have begun.
    pub running: Vec<Named>,
}

/// A call that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// Its lease.
    pub lease: u64,
    /// Its index in its map.
    pub index: u64,
}

/// What became of calls of a lease. The agent keeps it, and sends it each second, until it has been heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The agent's life.
    pub epoch: u64,
    /// Which report of that life this is, from 1.
    pub serial: u64,
    /// The lease.
    pub lease: u64,
    /// What became of its calls.
    pub what: What,
}

/// What became of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// Calls from an index on have returned values; the payload is their outputs.
    Values {
        /// The first.
        first: u64,
        /// The lengths of the outputs, in bytes.
        lens: Runs,
        /// How long each ran, in nanoseconds; `u32::MAX` stands for anything longer.
        nanos: Runs,
    },
    /// A call has ended otherwise; a value is the payload.
    Ended {
        /// Its index.
        index: u64,
        /// How.
        verdict: Verdict,
        /// How long it ran, in nanoseconds.
        nanos: u64,
    },
    /// Calls that it has not begun, and will not begin: from one index to before another.
    Returned(Vec<(u64, u64)>),
}

/// A coordinator to one of its agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Down {
    /// The agent may stay, and has been heard so far.
    Heard(Heard),
    /// Calls to run. The payload is their inputs.
    Lease(Lease),
    /// Calls that are wanted back.
    Recall(Recall),
    /// The agent was taken for lost in this life: it has to end what it holds, and to begin another.
    Unknown {
        /// That life.
        epoch: u64,
    },
}

/// How far an agent has been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The agent's life.
    pub epoch: u64,
    /// The clock of the beat that this answers; `None` if it answers something else.
    pub clock: Option<u64>,
    /// All reports up to this one have been heard.
    pub serial: u64,
    /// No lease below this number is open.
    pub low: u64,
}

/// Consecutive calls of one map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The life of the agent that it is for.
    pub epoch: u64,
    /// Its number, which is never used again.
    pub number: u64,
    /// The task's name.
    pub task: String,
    /// The types the coordinator takes the task to have. `None` if it does not know them.
    pub types: Option<String>,
    /// How inputs and outputs are encoded.
    pub encoding: Encoding,
    /// The index of the first call.
    pub first: u64,
    /// Which attempt at the calls this is, from 1.
    pub attempt: u32,
    /// How long a call may run, in nanoseconds.
    pub timeout: Option<u64>,
    /// How much memory a worker may have, in bytes.
    pub memory: Option<u64>,
    /// The lengths of the inputs in the payload, in bytes: one for each call.
    pub lens: Runs,
}

/// Calls that an agent should give back if it has not begun them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// The agent's life.
    pub epoch: u64,
    /// The lease.
    pub lease: u64,
    /// The calls from this index on.
    pub from: u64,
    /// Those that run are ended, too.
    pub kill: bool,
}

/// Why a message can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// It is of another version.
    Version(u16),
    /// It makes no sense.
    Nonsense(String),
}

/// Encodes a message with its payload.
///
/// # Errors
///
/// It would be larger than [`MOST`].
pub fn encode<M: Serialize>(message: &M, payload: &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut bytes = [&VERSION.to_le_bytes()[..], &[0; 4]].concat();
    crate::encode(message, &mut bytes)?;
    let header = (bytes.len() - HEAD) as u32;
    bytes[2..HEAD].copy_from_slice(&header.to_le_bytes());
    bytes.extend_from_slice(payload);
    match bytes.len() {
        0..=MOST => Ok(bytes),
        many => Err(serde::ser::Error::custom(format_args!(
            "a message of {many} bytes, of {MOST} at most"
        ))),
    }
}

/// What stands before the header, in bytes.
const HEAD: usize = 6;

/// Decodes a message, and what is its payload.
///
/// # Errors
///
/// It is of another version, or makes no sense.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<(M, &[u8]), Unreadable> {
    let nonsense = |why: &str| Unreadable::Nonsense(why.to_owned());
    let (version, rest) = bytes
        .split_first_chunk::<2>()
        .ok_or_else(|| nonsense("it is empty"))?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let (length, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| nonsense("it is cut off"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, payload) = rest
        .split_at_checked(length)
        .ok_or_else(|| nonsense("it is cut off"))?;
    match crate::decode(header) {
        Ok(message) => Ok((message, payload)),
        Err(why) => Err(Unreadable::Nonsense(why)),
    }
}
