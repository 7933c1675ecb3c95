//! Commands: a process for each call. For `coordinator exec`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, ExitStatus, Stdio};

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::os::Group;
use crate::task;

/// Bytes that are usually text: a word of a command, or a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
            _ => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
        Ok(Bytes(text.as_bytes().to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = sequence.next_element()? {
            bytes.push(byte);
        }
        Ok(Bytes(bytes))
    }
}

/// A command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<Bytes>,
    /// The number of its input, from 1.
    pub seq: u64,
}

/// How a command ended that did not succeed.
///
/// ```
/// use worker::builtin::Ending;
/// assert_eq!(Ending::Exit(3).to_string(), "exited with code 3");
/// assert_eq!(Ending::parse("was killed by signal 9 (SIGKILL)"), Some(Ending::Signal(9)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

const EXITED: &str = "exited with code ";
const KILLED: &str = "was killed by signal ";

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "{EXITED}{code}"),
            Ending::Signal(number) => match crate::os::signal_name(*number) {
                Some(name) => write!(f, "{KILLED}{number} ({name})"),
                None => write!(f, "{KILLED}{number}"),
            },
        }
    }
}

impl Ending {
    /// Reads what it is displayed as.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.split(' ').next()?.parse().ok();
        match text.strip_prefix(EXITED) {
            Some(code) => number(code).map(Ending::Exit),
            None => number(text.strip_prefix(KILLED)?).map(Ending::Signal),
        }
    }

    pub(super) fn of(status: ExitStatus) -> Self {
        match status.signal() {
            Some(number) => Ending::Signal(number),
            None => Ending::Exit(status.code().unwrap_or(-1)),
        }
    }
}

/// Runs a command, without a shell; for `coordinator exec`.
///
/// It writes to the worker's own stdout and stderr, reads nothing, and has a process group of its own.
/// What is left of that when it ends is killed. Fails with an [`Ending`], or says why it can't be started.
#[task(register = false)]
pub fn exec(command: Command) -> Result<(), String> {
    let mut process = process(&command.argv)?;
    process
        .stdin(Stdio::null())
        .env("COORDINATOR_SEQ", command.seq.to_string());
    if let Some(call) = crate::current() {
        process
            .env("COORDINATOR_ATTEMPT", call.attempt.to_string())
            .env("COORDINATOR_WORKER", call.worker.to_string());
    }
    let mut group =
        Group::start(&mut process).map_err(|error| not_started(&command.argv, &error))?;
    match group.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Ending::of(status).to_string()),
        Err(error) => Err(format!("its end could not be waited for: {error}")),
    }
}

/// What starts a program with its arguments.
pub(super) fn process(argv: &[Bytes]) -> Result<process::Command, String> {
    let (program, arguments) = argv.split_first().ok_or("there is no command")?;
    let mut process = process::Command::new(OsStr::from_bytes(&program.0));
    process
        .args(arguments.iter().map(|word| OsStr::from_bytes(&word.0)))
        .env_remove("COORDINATOR_TOKEN");
    Ok(process)
}

pub(super) fn not_started(argv: &[Bytes], error: &std::io::Error) -> String {
    let program = argv
        .first()
        .map(|program| String::from_utf8_lossy(&program.0));
    format!(
        "`{}` could not be started: {error}",
        program.unwrap_or_default()
    )
}
