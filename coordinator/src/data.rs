//! What calls carry: encoded inputs on their way to the workers, and what comes back.

mod inputs;
mod outputs;

use protocol::message::Encoding;

pub(crate) use inputs::{Chunk, Inputs, Piece};
pub(crate) use outputs::{By, Encoded, Payload, Trace, Values};

/// What the calls of a map run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: String,
    pub(crate) types: Option<String>,
    pub(crate) encoding: Encoding,
}
