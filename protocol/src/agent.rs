//! What a coordinator and its agents say to each other, over a broker.
//!
//! An agent offers the slots of its machine. It gets its calls in leases, says each second what it holds, and reports what became
//! of them. Any message may be lost, come twice, come late, or overtake another; so each is sent again until it is answered, and
//! numbers in it tell what is new.
//!
//! What is larger than a message (inputs, outputs, what was printed, files, programs) is a [bulk](Bulk): the message names it, and
//! whoever wants it asks for it piece by piece. So large things are taken as fast as they are read, and begin again where a cut
//! ended them.
//!
//! A message is two bytes of version, the length of its header in four, the header in postcard encoding, and a payload: encoded
//! inputs or outputs, one behind the other. [`encode`] and [`decode`] do that.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ValueError;
use crate::message::{Encoding, Panic, Runs, TaskInfo};

/// The version of these messages. Agents of another version are not heard.
pub const VERSION: u16 = 2;
/// The largest message, in bytes: half of what a broker takes unless it is told otherwise.
pub const MOST: usize = 512 << 10;
/// The most leases, or running calls, that a beat may name.
pub const MOST_NAMED: usize = 4096;
/// The largest payload that a message carries itself, in bytes. A larger one is a [`Bulk`].
pub const MOST_PAYLOAD: usize = MOST / 2;
/// How large each piece of a bulk is but the last, in bytes.
pub const PIECE: u64 = 256 << 10;

/// Something large, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bulk {
    /// Its SHA-256.
    pub hash: [u8; 32],
    /// How long it is, in bytes.
    pub len: u64,
}

/// Where the payload of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carried {
    /// Behind its header.
    Here,
    /// It has to be asked for.
    Apart(Bulk),
}

/// A piece of a bulk that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Of which bulk.
    pub bulk: Bulk,
    /// Which piece, from 0: it begins at so many times [`PIECE`] bytes.
    pub piece: u64,
}

/// A value that many calls refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedValue {
    /// Its number, which the inputs of calls name.
    pub id: u64,
    /// Its content.
    pub bulk: Bulk,
}

/// The files that go along with a call, and those that come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The call's index in its map.
    pub index: u64,
    /// What stands in its directory when it begins.
    pub send: Vec<Sent>,
    /// What is wanted of that directory when it has succeeded, by relative name.
    pub fetch: Vec<Vec<u8>>,
}

/// A file that goes along with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its relative name.
    pub name: Vec<u8>,
    /// Its permissions, as chmod(2) has them.
    pub mode: u32,
    /// Its content.
    pub bulk: Bulk,
}

/// A run that wants machines, to all agents. With an initializer the payload is its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The run, by a name that can't be guessed.
    pub run: String,
    /// How long an agent may be out of sight, in nanoseconds.
    pub lease: u64,
    /// How long a call has between SIGTERM and SIGKILL, in nanoseconds.
    pub grace: u64,
    /// The program of its workers.
    pub program: Bulk,
    /// What each worker runs before its first call.
    pub initializer: Option<Initializer>,
    /// In which directory workers run.
    pub directory: Vec<u8>,
    /// Each call has a directory of its own instead, with the files that go along with it.
    pub is_apart: bool,
    /// Variables that are set for them.
    pub variables: Vec<(Vec<u8>, Vec<u8>)>,
    /// After how many calls a worker is replaced.
    pub recycle_after: Option<u64>,
    /// Above how many bytes of memory it is replaced.
    pub recycle_above: Option<u64>,
    /// Whether what calls print is wanted.
    pub prints: bool,
    /// Whose run it is, and what it does, for people.
    pub about: String,
    /// Whether calls wait for somebody to run them.
    pub is_hungry: bool,
}

/// What each worker runs before its first call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initializer {
    /// The task's name.
    pub task: String,
    /// The types that the coordinator takes the task to have.
    pub types: Option<String>,
    /// How its input is encoded.
    pub encoding: Encoding,
    /// Where its input is.
    pub input: Carried,
    /// What its input refers to.
    pub shared: Vec<SharedValue>,
}

/// A coordinator to all agents of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum All {
    /// What runs is stopped, and nothing is begun. The coordinator may be silent for so long, in nanoseconds.
    Pause {
        /// How long.
        patience: u64,
        /// How often the run was paused or went on.
        turns: u64,
    },
    /// It goes on.
    Resume {
        /// How often the run was paused or went on.
        turns: u64,
    },
    /// The run is over: agents end what they hold.
    End,
}

/// What an agent says of itself to whoever asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub name: String,
    /// How many calls it can run at once.
    pub slots: u32,
    /// How many it runs.
    pub busy: u32,
    /// What its run is about, if it serves one, and for how many seconds.
    pub run: Option<(String, u64)>,
    /// That run's name.
    pub serves: Option<String>,
    /// The load of its machine, over the last minute.
    pub load: f32,
    /// Its version and architecture.
    pub version: String,
}

/// An agent to its coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Up {
    /// It would take calls.
    Join(Join),
    /// What it holds, each second.
    Beat(Beat),
    /// What became of calls.
    Report(Report),
    /// It leaves: nothing of this life runs, and no other follows.
    Leave {
        /// That life.
        epoch: u64,
    },
    /// It can't take part, and why.
    Cannot {
        /// Why, for people.
        why: String,
    },
    /// It wants a piece of a bulk.
    Want(Want),
    /// Here is a piece: the payload.
    Piece(Want),
    /// It does not have a bulk any more.
    Gone {
        /// The agent's life: another may have had it.
        epoch: u64,
        /// Which bulk.
        bulk: Bulk,
        /// Why, for people.
        why: String,
    },
}

/// An agent that would take calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its life, a number that only grows. A new one says that nothing of an earlier one runs.
    pub epoch: u64,
    /// The agent's own clock when it sent this, in nanoseconds. The answer repeats it.
    pub clock: u64,
    /// Who it is.
    pub about: About,
}

/// Who an agent is, and what it can run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct About {
    /// How many calls it runs at once.
    pub slots: u32,
    /// Its home, by a number that is never two machines'.
    pub home: u64,
    /// The tasks of its workers.
    pub tasks: Vec<TaskInfo>,
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
    /// It takes no further leases now.
    pub takes_none: bool,
    /// How long it takes itself to be allowed out of sight, in nanoseconds.
    pub patience: u64,
    /// How often the run was paused or went on, as far as it knows. It ignores what it is told of an earlier pause.
    pub turns: u64,
}

/// A call that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// Its lease.
    pub lease: u64,
    /// Its index in its map.
    pub index: u64,
    /// The slot that runs it, from 1.
    pub slot: u32,
    /// The worker's process id there.
    pub worker: u32,
    /// For how long it has run, in nanoseconds.
    pub nanos: u64,
}

/// What became of calls of a lease. The agent keeps it until it has been heard, and sends it again when the answer to a later
/// beat shows that it was not.
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
    /// Where its payload is.
    pub payload: Carried,
    /// The files that were wanted of a call that has succeeded, in the order in which they were named.
    pub files: Vec<Bulk>,
}

/// What became of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// Calls have returned values and printed nothing; the payload is their outputs, in this order.
    Values(Vec<Values>),
    /// A call has ended otherwise, has printed something, or has a large output. The payload is its output, and behind that what
    /// it wrote to stdout and to stderr.
    Ended {
        /// Its index.
        index: u64,
        /// How.
        ending: Ending,
        /// How long it ran, in nanoseconds.
        nanos: u64,
        /// The slot that ran it, from 1.
        slot: u32,
        /// The worker's process id there.
        worker: u32,
        /// How much of the payload, before the last part, is what it wrote to stdout, in bytes.
        stdout: u64,
        /// How long the last part of the payload is, which is what it wrote to stderr, in bytes.
        stderr: u64,
        /// What else there is to know.
        note: Option<String>,
    },
    /// Calls that it has not begun, and will not begin: from one index to before another.
    Returned(Vec<(u64, u64)>),
}

/// Consecutive calls that returned values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// The index of the first.
    pub first: u64,
    /// The lengths of the outputs, in bytes.
    pub lens: Runs,
    /// How long each ran, in nanoseconds; `u32::MAX` stands for anything longer.
    pub nanos: Runs,
    /// The slot that ran them, from 1.
    pub slot: u32,
    /// The worker's process id there.
    pub worker: u32,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The task returned a value.
    Value,
    /// The task returned an error, or could not be run.
    Failed(String),
    /// The task panicked.
    Panicked(Panic),
    /// The input could not be decoded, or the output not encoded.
    Undecodable(String),
    /// The worker exited with this code.
    Exited(i32),
    /// The worker was killed by the signal of this number.
    Killed(i32),
    /// The worker died, and nobody knows how.
    Vanished,
    /// It ran longer than its limit, in nanoseconds.
    TimedOut(u64),
    /// It needed more memory than its limit, in bytes.
    OutOfMemory(u64),
    /// It was ended because the coordinator wanted that.
    Cancelled,
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
    /// The coordinator will have nothing to do with it, and why.
    Refused {
        /// The agent's home.
        home: u64,
        /// Why, for people.
        why: String,
    },
    /// It wants a piece of a bulk.
    Want(Want),
    /// Here is a piece: the payload.
    Piece(Want),
    /// It does not have a bulk any more.
    Gone {
        /// Which bulk.
        bulk: Bulk,
        /// Why, for people.
        why: String,
    },
}

/// How far an agent has been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The agent's home: another machine's agent may have the same name.
    pub home: u64,
    /// The agent's life.
    pub epoch: u64,
    /// The clock of the beat that this answers; `None` if it answers something else.
    pub clock: Option<u64>,
    /// All reports up to this one have been heard.
    pub serial: u64,
    /// No lease below this number is open.
    pub low: u64,
    /// How long the agent may be out of sight from now on, in nanoseconds.
    pub patience: u64,
    /// Whether nothing may run.
    pub is_paused: bool,
    /// How often the run was paused or went on.
    pub turns: u64,
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
    /// How long it has between SIGTERM and SIGKILL, in nanoseconds.
    pub grace: u64,
    /// How much memory a worker may have, in bytes.
    pub memory: Option<u64>,
    /// Where the inputs are.
    pub inputs: Carried,
    /// The values that the inputs refer to.
    pub shared: Vec<SharedValue>,
    /// The files of those calls that have some.
    pub files: Vec<Files>,
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

/// Whether a message with a payload of so many bytes can be [encoded](encode).
#[must_use]
pub fn fits<M: Serialize>(message: &M, payload: u64) -> bool {
    let mut header = Vec::new();
    let left = MOST.saturating_sub(HEAD + SPARE) as u64;
    crate::encode(message, &mut header).is_ok()
        && payload.saturating_add(header.len() as u64) <= left
}

/// What stands before the header, in bytes.
const HEAD: usize = 6;
/// How much a message may grow by what is entered when it is sent, as an epoch and its kind are, in bytes.
const SPARE: usize = 32;

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
