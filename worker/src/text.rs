//! The text encoding: inputs as people type them, and outputs as people read them.

use std::any::TypeId;
use std::borrow::Cow;

use protocol::message::TaskInfo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads an input as a person types it: JSON of the input type, or else a plain string. Empty text is the input of a
/// task without parameters.
pub(crate) fn parse<I: DeserializeOwned>(input: &[u8]) -> Result<I, String> {
    let as_json = match serde_json::from_slice(input) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let text = std::str::from_utf8(input).map_err(|_| "it is not UTF-8".to_owned())?;
    let as_string = match I::deserialize(Value::String(text.to_owned())) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if text.is_empty()
        && let Ok(value) = I::deserialize(Value::Null)
    {
        return Ok(value);
    }
    Err(match as_json.classify() {
        // The text was JSON, but not of this type. That error says more than "a string is no number".
        serde_json::error::Category::Data => as_json.to_string(),
        _ => as_string.to_string(),
    })
}

/// Appends an output as JSON. A unit becomes empty text, and `Option::None` becomes `null`.
pub(crate) fn encode<O: Serialize + 'static>(
    value: &O,
    output: &mut Vec<u8>,
) -> Result<(), String> {
    if TypeId::of::<O>() == TypeId::of::<()>() {
        return Ok(());
    }
    serde_json::to_writer(output, value).map_err(|error| error.to_string())
}

/// An output in the text encoding as it is shown to a person: strings raw, all else as JSON, and
/// `None` for a unit.
///
/// ```
/// use worker::text::show;
/// assert_eq!(show(b"[1,2]").as_deref(), Some("[1,2]"));
/// assert_eq!(show(br#""a\"b""#).as_deref(), Some("a\"b"));
/// assert_eq!(show(b""), None);
/// ```
#[must_use]
pub fn show(output: &[u8]) -> Option<Cow<'_, str>> {
    if output.is_empty() {
        return None;
    }
    // A string without escapes can be borrowed from the text.
    if let Ok(shown) = serde_json::from_slice::<&str>(output) {
        return Some(Cow::Borrowed(shown));
    }
    let shown = serde_json::from_slice::<String>(output);
    Some(shown.map_or_else(|_| String::from_utf8_lossy(output), Cow::Owned))
}

/// A listing of tasks for a person: signature, and the first line of documentation behind it.
#[must_use]
pub fn list(tasks: &[TaskInfo]) -> String {
    let width = tasks
        .iter()
        .map(|task| listed(task).len())
        .max()
        .unwrap_or(0);
    tasks
        .iter()
        .map(|task| {
            let line = format!("{:width$}  {}", listed(task), task.doc);
            format!("{}\n", line.trim_end())
        })
        .collect()
}

/// The signature, with the task's name in place of the function's.
fn listed(task: &TaskInfo) -> String {
    let own_name = task
        .signature
        .strip_prefix("fn ")
        .and_then(|rest| rest.split('(').next());
    if own_name == Some(task.name.as_str()) {
        task.signature.clone()
    } else {
        format!("{}: {}", task.name, task.signature)
    }
}
