//! What the calls of a map run.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use protocol::message::Encoding;

/// What the calls of a map run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: Arc<str>,
    pub(crate) types: Option<String>,
    pub(crate) encoding: Encoding,
    pub(crate) place: Place,
}

impl Job {
    /// A number that jobs have in common that run one task.
    pub(crate) fn kind(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.task, &self.types, self.encoding as u8).hash(&mut hasher);
        hasher.finish()
    }
}

/// What its calls are part of, elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The lease that another coordinator has given.
    pub(crate) lease: u64,
    /// The index of the first of them in that one's map.
    pub(crate) first: u64,
    /// How many attempts at them there have been.
    pub(crate) attempts: u32,
}
