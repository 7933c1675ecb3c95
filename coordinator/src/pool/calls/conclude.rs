//! What a call's end is for its caller: a value, or an error that tells all there is to know.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{CallError, Details, Why};
use crate::payload::printed::TAIL;
use crate::payload::{Encoded, Trace};
use crate::scheduler::Ended;

/// A call's value, or why it has none. The rest of what is left of it stays in `ended`.
/// `shown` is the index that its caller knows it by, and `task` is asked for only where there is no value.
pub(in crate::pool) fn conclude<O>(
    ended: &mut Ended<Trace>,
    (index, shown): (u64, u64),
    decode: impl FnOnce(Encoded<'_>) -> Result<O, String>,
    task: impl FnOnce() -> Arc<str>,
) -> Result<O, CallError> {
    let trace = &mut ended.trace;
    let result = std::mem::replace(&mut ended.result, Ok(()));
    let result = result.and_then(|()| {
        let output = trace.as_mut().map(|trace| trace.take_output(index));
        decode(output.unwrap_or(Encoded::Bytes(&[]))).map_err(Why::Undecodable)
    });
    let trace = trace.as_ref();
    result.map_err(|why| CallError {
        details: Box::new(Details {
            task: task(),
            index: shown,
            attempts: ended.attempts,
            worker: trace.map(|trace| trace.by.pid).filter(|pid| *pid != 0),
            machine: trace.and_then(|trace| trace.by.machine.clone()),
            elapsed: trace.map_or(Duration::ZERO, |trace| trace.elapsed(index)),
            stderr: trace
                .map(|trace| trace.printed.stderr.tail(TAIL))
                .unwrap_or_default(),
            note: ended
                .note
                .take()
                .or_else(|| trace.and_then(|trace| trace.note.clone())),
            why,
        }),
    })
}

/// A call that was cancelled before it ran.
pub(in crate::pool) fn cancelled<T>(note: String) -> Ended<T> {
    Ended {
        result: Err(Why::Cancelled),
        attempts: 0,
        trace: None,
        note: Some(note),
        again: false,
    }
}
