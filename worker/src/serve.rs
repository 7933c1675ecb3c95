//! The conversation with the coordinator, from the worker's side.

use std::io::{Read, Write};

use protocol::frame::Caps;
use protocol::link::{Answer, Link, LinkError};
use protocol::message::{Batch, Encoding, Reply, ToWorker, Verdict};
use std::time::Instant;

use crate::current::{self, Current};
use crate::output::Printed;
use crate::registry::{self, Entry};
use crate::run;

/// Runs batches until the coordinator says that it was the last, and returns the exit code it
/// wishes. A coordinator that is gone wishes 0.
pub(crate) fn serve<S: Read + Write>(link: &mut Link<S>, slot: u32) -> Result<i32, LinkError> {
    let mut outputs = Vec::new();
    loop {
        match link.receive_to_answer(Caps::FULL) {
            Ok((ToWorker::Batch(batch), payload, mut answer)) => {
                run_batch(&batch, payload, slot, &mut answer, &mut outputs)?;
            }
            Ok((ToWorker::Exit(code), ..)) => return Ok(code),
            Ok((other, ..)) => return Err(LinkError::Malformed(format!("{other:?} out of turn"))),
            Err(LinkError::Closed) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
}

fn run_batch<S: Read + Write>(
    batch: &Batch,
    payload: &[u8],
    slot: u32,
    answer: &mut Answer<'_, S>,
    output: &mut Vec<u8>,
) -> Result<(), LinkError> {
    let inputs = inputs(batch, payload)?;
    let task = find(batch);
    for (call, input) in batch.calls.iter().zip(inputs) {
        output.clear();
        current::set(Some(Current {
            worker: slot,
            index: call.index,
            attempt: call.attempt,
        }));
        let started = Instant::now();
        let verdict = match &task {
            Ok(task) => run::guarded(runner(task, batch.encoding), input, output),
            Err(why) => Verdict::Undecodable(why.clone()),
        };
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        current::set(None);
        let printed = Printed::settle();
        let reply = Reply {
            index: call.index,
            nanos,
            stdout: printed.stdout,
            stderr: printed.stderr,
            verdict,
        };
        send(answer, reply, output)?;
    }
    Ok(())
}

/// Cuts a batch's payload into its inputs. A batch that does not add up is refused as a whole, before
/// its first call runs: who knows where the others begin.
fn inputs<'p>(
    batch: &'p Batch,
    payload: &'p [u8],
) -> Result<impl Iterator<Item = &'p [u8]>, LinkError> {
    // No sum of so many lengths as fit into a header overflows this.
    let claimed: u64 = batch.calls.iter().map(|call| u64::from(call.len)).sum();
    if claimed != payload.len() as u64 {
        return Err(LinkError::Malformed(format!(
            "a batch whose inputs are {claimed} bytes long, and its payload {}",
            payload.len()
        )));
    }
    let mut rest = payload;
    Ok(batch.calls.iter().map(move |call| {
        let (input, behind) = rest.split_at(call.len as usize);
        rest = behind;
        input
    }))
}

/// Sends a reply. One that is too large for the protocol costs its call and not the worker.
fn send<S: Read + Write>(
    answer: &mut Answer<'_, S>,
    mut reply: Reply,
    output: &[u8],
) -> Result<(), LinkError> {
    match answer.send(&reply, &[output]) {
        Err(LinkError::TooLarge(what)) => {
            reply.verdict = Verdict::Undecodable(format!("the output is too large: {what}"));
            answer.send(&reply, &[])
        }
        sent => sent,
    }
}

fn runner(task: &Entry, encoding: Encoding) -> registry::Runner {
    match encoding {
        Encoding::Postcard => task.postcard,
        Encoding::Text => task.text,
    }
}

fn find(batch: &Batch) -> Result<&'static Entry, String> {
    let task = registry::find(&batch.task)?;
    match &batch.types {
        Some(types) if types != task.types => Err(format!(
            "the coordinator knows `{}` as {types}, this worker as {}: build both from the same \
             source",
            task.name, task.types
        )),
        _ => Ok(task),
    }
}
