//! What is said over a link, in the scheduler's words.

use std::io::{Read, Write};
use std::time::Duration;

use protocol::descriptors::{self, Giving};
use protocol::link::{Link, LinkError};
use protocol::message::{Batch, ToWorker, Verdict};
use worker::private::{Given, Kept};

use super::socket::SharedSocket;
use crate::error::Why;
use crate::payload::{EncodedInputs, Job, Piece};
use crate::scheduler::Part;

/// How long a worker whose link has ended may take to end by itself, before it is killed.
pub(crate) const LINGER: Duration = Duration::from_millis(200);

/// Gives a worker the shared values that calls refer to and that it has not been given yet, if it can map them.
pub(crate) fn give(
    socket: &SharedSocket,
    given: &mut Given,
    parts: &[Part<EncodedInputs>],
    shares: bool,
) -> Result<(), LinkError> {
    if !shares || parts.iter().all(|part| part.inputs.kept().is_empty()) {
        return Ok(());
    }
    let missing = given.add(parts.iter().flat_map(|part| part.inputs.kept()));
    for some in missing.chunks(descriptors::MOST) {
        let descriptors: Vec<_> = some.iter().map(Kept::descriptor).collect();
        let giving = Giving {
            stream: &mut socket.clone(),
            descriptors: &descriptors,
        };
        Link::new(giving).send(&ToWorker::Here, &[])?;
    }
    Ok(())
}

/// Sends calls to run. A worker that shares no memory gets all of them by its socket.
pub(crate) fn send<S: Read + Write>(
    link: &mut Link<S>,
    serial: u32,
    job: &Job,
    (first, attempt): (u64, u32),
    parts: &[Part<EncodedInputs>],
    shares: bool,
) -> Result<(), LinkError> {
    let lens = parts
        .iter()
        .flat_map(|part| part.inputs.lens(part.at, part.count));
    let message = ToWorker::Batch(Batch {
        serial,
        task: job.task.to_string(),
        types: job.types.clone(),
        encoding: job.encoding,
        first: first.saturating_add(job.place.first),
        attempt: attempt.saturating_add(job.place.attempts),
        lens: lens.collect(),
    });
    let inputs = parts
        .iter()
        .map(|part| part.inputs.piece(part.at, part.count));
    let inputs: Vec<Piece<'_>> = inputs.collect();
    match &inputs[..] {
        [Piece::OnBoard(region)] if shares => link.send_from_board(&message, region),
        [Piece::Large(bytes, piece)] => link.send_large(&message, bytes, piece.clone()),
        _ => {
            let bytes: Vec<&[u8]> = inputs.iter().map(|piece| &**piece).collect();
            link.send(&message, &bytes)
        }
    }
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
