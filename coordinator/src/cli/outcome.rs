//! How a call, or an attempt, ended, as a run reports it: on stderr, as JSON, and in the log.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coordinator::{CallError, Captured, Death, Report, Why};
use serde_json::{Map, Value, json};
use worker::builtin::Ending;

use super::status::Status;
use super::terminal;
use super::work::Work;

/// The version of the printed JSON, and of the log.
const VERSION: u32 = 1;
/// The most bytes of a call's output that stand in an object.
pub(super) const PRINTED: u64 = 16 << 20;
/// The most characters of an input that a message shows.
const SHOWN: usize = 60;

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Its input's number, from 1.
    pub(super) seq: u64,
    /// Its input. Several inputs of one command stand with NUL between them.
    pub(super) input: Vec<u8>,
    pub(super) status: Status,
    pub(super) exit: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) attempts: u32,
    /// Whether the call is tried again.
    pub(super) again: bool,
    pub(super) elapsed: Duration,
    pub(super) slot: Option<usize>,
    /// The machine that ran it, if that was another.
    pub(super) machine: Option<Arc<str>>,
    pub(super) pid: Option<u32>,
    pub(super) error: Option<String>,
    /// The value that the task returned.
    pub(super) value: Vec<u8>,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

/// The most bytes of a call's stderr that are kept, in the log too.
const LAST_WORDS: u64 = 2048;

impl Outcome {
    /// The end of what a call wrote to stderr, if it did not succeed.
    pub(super) fn last_words(&self) -> Option<String> {
        if self.status == Status::Ok || self.stderr.is_empty() {
            return None;
        }
        let mut said = Vec::new();
        let skipped = self.stderr.len().saturating_sub(LAST_WORDS);
        self.stderr.copy_from(skipped, &mut said).ok()?;
        let said = String::from_utf8_lossy(&said);
        Some(said.trim_end().to_owned())
    }

    pub(super) fn new(work: &Work, seq: u64, input: Vec<u8>, report: Report<Vec<u8>>) -> Self {
        let mut outcome = Outcome {
            seq,
            input,
            status: Status::Ok,
            exit: None,
            signal: None,
            attempts: report.attempts,
            again: report.again,
            elapsed: report.elapsed,
            slot: report.slot,
            machine: report.machine,
            pid: report.worker,
            error: None,
            value: Vec::new(),
            stdout: report.stdout,
            stderr: report.stderr,
        };
        match report.result {
            Ok(value) => {
                outcome.value = value;
                outcome.exit = matches!(work, Work::Exec { .. }).then_some(0);
            }
            Err(error) => outcome.fail(work, &error),
        }
        outcome
    }

    fn fail(&mut self, work: &Work, error: &CallError) {
        self.status = match error.why() {
            Why::Failed(_) => Status::Failed,
            Why::Panicked { .. } => Status::Panicked,
            Why::Died(_) => Status::Died,
            Why::TimedOut(_) => Status::TimedOut,
            Why::OutOfMemory { .. } => Status::OutOfMemory,
            Why::Cancelled => Status::Cancelled,
            _ => Status::Undecodable,
        };
        self.error = Some(match work {
            Work::Map { .. } => error.to_string(),
            // Which task runs commands is an internal matter.
            Work::Exec { .. } | Work::Pipe { .. } => reason(error),
        });
        match error.why() {
            Why::Died(Death::Exit(code)) => self.exit = Some(*code),
            Why::Died(Death::Signal(number)) => self.signal = Some(*number),
            _ => {}
        }
        if let (Work::Exec { .. } | Work::Pipe { .. }, Why::Failed(why)) = (work, error.why()) {
            match Ending::parse(why) {
                Some(Ending::Exit(code)) => self.exit = Some(code),
                Some(Ending::Signal(number)) => {
                    self.status = Status::Died;
                    self.signal = Some(number);
                }
                None => {}
            }
        }
    }

    /// The object that `--json` prints. It is an error if the call's output can't be read any more.
    pub(super) fn json(&self, work: &Work) -> std::io::Result<Value> {
        let mut object = Map::new();
        object.insert("v".into(), VERSION.into());
        object.insert("seq".into(), self.seq.into());
        put(&mut object, "input", &self.input);
        object.insert("status".into(), self.status.word().into());
        object.insert("exit".into(), json!(self.exit));
        object.insert("signal".into(), json!(self.signal));
        object.insert("attempts".into(), self.attempts.into());
        object.insert("ms".into(), millis(self.elapsed).into());
        object.insert("machine".into(), json!(self.machine.as_deref()));
        object.insert("worker".into(), json!(self.slot));
        object.insert("pid".into(), json!(self.pid));
        match (self.status, work) {
            (Status::Ok, Work::Map { .. }) => {
                let value = serde_json::from_slice(&self.value).unwrap_or(Value::Null);
                object.insert("result".into(), value);
            }
            (Status::Ok, Work::Pipe { .. }) => {
                let line = work.result(&self.value).unwrap_or_default();
                put(&mut object, "result", &line);
            }
            _ => {}
        }
        for (name, captured) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            put(&mut object, name, &captured.read_first(PRINTED)?);
            if captured.len() > PRINTED {
                let left_out = captured.len() - PRINTED;
                object.insert(format!("{name}_cut"), left_out.into());
            }
        }
        object.insert("error".into(), json!(self.error));
        Ok(Value::Object(object))
    }
}

/// Why a command did not succeed.
fn reason(error: &CallError) -> String {
    let why = match error.why() {
        Why::Failed(why) => why.clone(),
        // Instead of the library's words, which speak of calls: `error.rs`.
        Why::TimedOut(limit) => format!("was stopped, because it ran longer than {limit:?}"),
        Why::Died(Death::Machine) => {
            format!("{} was lost", error.machine().unwrap_or("its machine"))
        }
        why => why.to_string(),
    };
    match error.note() {
        Some(note) => format!("{why}: {note}"),
        None => why,
    }
}

/// Bytes as JSON: as text if they are UTF-8, or else in base64, under a name that says so.
fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    let (text, encoded) = text_or_base64(bytes);
    match (text, encoded) {
        (Some(text), _) => object.insert(name.to_owned(), text.into()),
        (None, encoded) => object.insert(format!("{name}_b64"), json!(encoded)),
    };
}

/// The text, or the bytes in base64.
pub(super) fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A duration in milliseconds, to the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// An input as a message shows it: quoted, and cut in the middle if it is long.
pub(super) fn shown(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input).replace('\0', " ");
    format!("{:?}", terminal::shortened(&text, SHOWN))
}
