//! What does not change in a pool's life.

use std::time::Duration;

use worker::private::Kept;

use crate::payload::Job;
use crate::scheduler::Limits;
use crate::workers::launch::Launcher;

/// The initializer: what each worker runs before its first call.
#[derive(Debug)]
pub(crate) struct Initializer {
    pub(crate) job: Job,
    pub(crate) input: Vec<u8>,
    /// What the input refers to.
    pub(crate) kept: Vec<Kept>,
}

/// What does not change in a pool's life.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) launcher: Launcher,
    pub(crate) slots: usize,
    /// How many processors this process may use.
    pub(crate) processors: usize,
    /// What calls may cost, unless they say otherwise.
    pub(crate) limits: Limits,
    pub(crate) initializer: Option<Initializer>,
    pub(crate) recycle_after: Option<u64>,
    /// Workers are copied from one that has run the initializer.
    pub(crate) warm_copies: bool,
    /// In bytes.
    pub(crate) recycle_above: Option<u64>,
    /// The worker leaves with 1 if its last call did not succeed, and not before this long after
    /// it got ready, unless someone is waiting for that: see [`Process`](crate::Process).
    pub(crate) single: Option<Duration>,
}
