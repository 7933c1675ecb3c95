//! What the calls of a map run.

use protocol::message::Encoding;

/// What the calls of a map run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: String,
    pub(crate) types: Option<String>,
    pub(crate) encoding: Encoding,
}
