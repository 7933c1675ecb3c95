//! What a map is to do, and within which limits.

use std::time::Duration;

/// In which order results are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// In the order of the inputs.
    #[default]
    Input,
    /// As they come.
    Completion,
}

/// How much of a map may be under way: read from its inputs and not yet taken as a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) calls: usize,
    /// The inputs of calls that have not ended and, in a lazy map, the inputs or the outputs of those that
    /// have, whichever are larger. Others keep their outputs in any case.
    pub(crate) bytes: usize,
    /// For so many calls there is room however large they are.
    pub(crate) least: usize,
}

/// What a call may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// How long an attempt may run.
    pub(crate) timeout: Option<Duration>,
    /// How long a worker has between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// How much memory a worker may have while it runs the call, in bytes.
    pub(crate) memory: Option<u64>,
    /// How often a call that did not succeed is tried again.
    pub(crate) retries: u32,
    /// How long to wait before the second attempt; doubled for each further one.
    pub(crate) backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            timeout: None,
            grace: Duration::from_secs(1),
            memory: None,
            retries: 0,
            backoff: Duration::ZERO,
        }
    }
}

/// What calls that did not succeed, after all of their attempts, mean for the others of their map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Failures {
    /// Nothing.
    #[default]
    Any,
    /// The first cancels those behind it.
    First,
    /// After so many no further call starts; with `now`, those that run are killed, too.
    Most { calls: u64, now: bool },
}

/// What a map is to do.
#[derive(Debug, Clone)]
pub(crate) struct MapSpec<J> {
    pub(crate) job: J,
    pub(crate) limits: Limits,
    pub(crate) order: Order,
    pub(crate) window: Window,
    pub(crate) failures: Failures,
    /// Inputs are only read while someone takes results.
    pub(crate) lazy: bool,
    /// Attempts that are not the call's last are handed out, too: only for [`Order::Completion`].
    pub(crate) every_attempt: bool,
    /// Its calls are of separate callers: each is taken, let go or cancelled by itself, in any order.
    pub(crate) separate: bool,
    /// A call that may have begun on a machine that was lost is charged, so that it does not run twice.
    pub(crate) at_most_once: bool,
    /// Maps of one kind run one task. What its calls cost is remembered from one to the next.
    pub(crate) kind: Option<u64>,
}
