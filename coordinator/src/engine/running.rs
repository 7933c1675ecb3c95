//! A call that is running, as it is shown.

use std::sync::Arc;
use std::time::Duration;

use crate::payload::printed::Captured;

/// A call that is running; found by [`Pool::running`](crate::Pool::running).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunningCall {
    /// Its task.
    pub task: String,
    /// Its index in its map, from 0. Single calls of one task with the same limits count as one map.
    pub index: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The slot that runs it, counted from 1.
    pub slot: usize,
    /// The agent whose machine runs it; `None` if it runs here.
    pub machine: Option<Arc<str>>,
    /// The worker's process id.
    pub worker: u32,
    /// For how long the attempt has been running, pauses included.
    pub elapsed: Duration,
    /// What the attempt has written to stdout so far. Empty also if the output is not kept, or if it is
    /// not known yet where that of the calls before ends.
    pub stdout: Captured,
    /// What the attempt has written to stderr so far; empty as for stdout.
    pub stderr: Captured,
}
