//! Workers that somebody starts by hand, for a debugger.

use std::path::PathBuf;
use std::sync::Arc;

/// How to start, by hand, a worker that the pool waits for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ByHand {
    /// The worker's executable.
    pub program: PathBuf,
    /// The name to connect to: the argument after `--connect`.
    pub connect: PathBuf,
    /// What the environment variable `COORDINATOR_TOKEN` must hold.
    pub token: String,
}

/// Who is told how to start a worker by hand.
pub(crate) type Manual = Arc<dyn Fn(&ByHand) + Send + Sync>;
