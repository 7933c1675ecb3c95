//! What workers print outside of calls.

use crate::payload::printed::Captured;

/// When a worker printed something that belongs to no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StraySource {
    /// Before its first call: its program as it began, or the initializer.
    Initializer,
    /// After its last call, when it was asked to leave.
    Exit,
}

/// What a worker printed outside of calls; found by [`Pool::take_strays`](crate::Pool::take_strays).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stray {
    /// When it was printed.
    pub source: StraySource,
    /// The slot that the worker fills, counted from 1.
    pub slot: usize,
    /// The worker's process id.
    pub worker: u32,
    /// What it wrote to stdout.
    pub stdout: Captured,
    /// What it wrote to stderr.
    pub stderr: Captured,
}
