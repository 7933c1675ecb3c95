//! A line of a log, as it is written and as a run that resumes reads it.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Trouble;
use super::outcome;
use super::suspects::Range;

/// How each line begins.
pub(super) const BEGINNING: &[u8] = b"{\"v\":1,\"run\":\"";

/// A line of the log.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) v: u32,
    /// The run that wrote it: its process id, and when it began.
    pub(super) run: String,
    /// Whether that run skipped earlier successes.
    pub(super) resumed: bool,
    pub(super) template: String,
    pub(super) seq: u64,
    #[serde(flatten)]
    pub(super) input: Input,
    pub(super) attempt: u32,
    pub(super) again: bool,
    pub(super) status: String,
    pub(super) exit: Option<i32>,
    pub(super) signal: Option<i32>,
    /// When the attempt began, in seconds since 1970.
    pub(super) start: f64,
    pub(super) ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) machine: Option<String>,
    pub(super) worker: Option<usize>,
    pub(super) pid: Option<u32>,
    pub(super) error: Option<String>,
    /// The end of what an attempt wrote to stderr, if it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stderr: Option<String>,
    /// The numbers of inputs of this run that were logged as done, but may have the answers of other inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) suspects: Vec<Range>,
    /// That other machines take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) machines: Option<Machines>,
}

/// The status of a line that tells of machines, and not of an attempt.
pub(super) const MACHINES: &str = "machines";

/// What a log knows of the machines of a run: enough to end what they run, should this program be killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machines {
    /// The run, as the machines know it.
    pub(super) run: String,
    /// One that has joined since the last such line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) joined: Option<String>,
    /// How long each may be out of sight, in milliseconds: so long it may run calls that nobody ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease_ms: Option<u64>,
    /// Nothing of the run is left on any of them.
    #[serde(default)]
    pub(super) ended: bool,
}

/// A text that only lines with suspects contain.
pub(super) const SUSPECTS: &[u8] = b"\"suspects\":[[";

#[derive(Debug, Serialize)]
pub(super) struct Input {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input_b64: Option<String>,
}

/// The part of a line that a run that resumes needs.
#[derive(Debug, Deserialize)]
pub(super) struct Entry<'l> {
    #[serde(borrow)]
    pub(super) run: Cow<'l, str>,
    #[serde(default)]
    pub(super) resumed: bool,
    #[serde(borrow)]
    pub(super) template: Cow<'l, str>,
    pub(super) seq: u64,
    #[serde(borrow, default)]
    pub(super) input: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    pub(super) input_b64: Option<Cow<'l, str>>,
    #[serde(borrow)]
    pub(super) status: Cow<'l, str>,
    #[serde(default)]
    pub(super) suspects: Vec<Range>,
    #[serde(default)]
    pub(super) machines: Option<Machines>,
}

/// The input that the line names.
pub(super) fn bytes_of<'l>(
    text: Option<Cow<'l, str>>,
    encoded: Option<Cow<'l, str>>,
) -> Option<Cow<'l, [u8]>> {
    match (encoded, text) {
        (Some(encoded), _) => outcome::from_base64(&encoded).map(Cow::Owned),
        (None, Some(Cow::Borrowed(text))) => Some(Cow::Borrowed(text.as_bytes())),
        (None, Some(Cow::Owned(text))) => Some(Cow::Owned(text.into_bytes())),
        (None, None) => None,
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Trouble {
    Trouble::Usage(format!("the log {} can't be read: {error}", path.display()))
}
