//! What is said over a link, in the scheduler's words.

use std::io::{Read, Write};
use std::time::Duration;

use protocol::link::{Link, LinkError};
use protocol::message::{Batch, CallHeader, ToWorker, Verdict};

use crate::error::Why;
use crate::shared::{Input, Job};

/// How long a worker whose link has ended may take to end by itself, before it is killed.
pub(crate) const LINGER: Duration = Duration::from_millis(200);

/// Sends calls to run: index, attempt and input of each.
pub(crate) fn send<S: Read + Write>(
    link: &mut Link<S>,
    job: &Job,
    calls: &[(u64, u32, Input)],
) -> Result<(), LinkError> {
    let headers = calls.iter().map(|(index, attempt, input)| {
        let len = u32::try_from(input.len());
        len.map(|len| CallHeader {
            index: *index,
            attempt: *attempt,
            len,
        })
    });
    let headers = headers.collect::<Result<Vec<_>, _>>().map_err(|_| {
        LinkError::TooLarge("an input of more than 4 GiB can't be sent to a worker".to_owned())
    })?;
    let message = ToWorker::Batch(Batch {
        task: job.task.clone(),
        types: job.types.clone(),
        encoding: job.encoding,
        calls: headers,
    });
    let inputs: Vec<&[u8]> = calls.iter().map(|(.., input)| input.as_slice()).collect();
    link.send(&message, &inputs)
}

/// Why a call did not succeed, by the worker's word.
pub(crate) fn why(verdict: Verdict) -> Option<Why> {
    Some(match verdict {
        Verdict::Value => return None,
        Verdict::Failed(text) => Why::Failed(text),
        Verdict::Undecodable(text) => Why::Undecodable(text),
        Verdict::Panicked(panic) => Why::Panicked {
            message: panic.message,
            location: panic.location,
            backtrace: panic.backtrace,
        },
    })
}
