//! Calls over several machines: what a coordinator and its agents say to each other, and when either takes the other for dead.
//!
//! `fleet` is the coordinator's half and `member` the agent's. Both are pure: messages and times go in, messages and deeds come
//! out, so that a test can play them against each other over a network that loses, doubles and delays. The ledger of who holds
//! which calls is the scheduler's. A broker, files and processes have no place in these two: `broker` alone speaks to one, and
//! `ssh` reaches machines on which nobody has started an agent.

pub(crate) mod access;
mod awaited;
pub(crate) mod broker;
pub(crate) mod bulk;
pub(crate) mod carriage;
pub(crate) mod desk;
mod fleet;
mod former;
mod keys;
mod known;
mod ledger;
mod look;
mod measure;
pub(crate) mod member;
mod opening;
pub(crate) mod rights;
pub(crate) mod ssh;
pub(crate) mod subjects;
#[cfg(test)]
mod tests;

pub use access::Agents;
pub(crate) use access::Wanted;
pub use former::FormerRun;
pub use keys::NewKeys;
pub use look::{Presence, ServedRun};

/// Which of the rules that keep a call from running twice a test has left out, to see that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests leave rules out"))]
pub(crate) enum Broken {
    /// An agent says that a life has ended before all that it ran is dead.
    EarlyEpoch,
    /// An agent forgets which leases it has had.
    Forgetful,
    /// An agent takes a lease of an earlier life.
    AnyEpoch,
    /// An agent begins to end its calls only when its time is over, and not the grace before.
    NoGrace,
    /// The coordinator does not wait longer than the lease, though clocks differ.
    NoMargin,
    /// An agent counts from when a beat was answered, and not from when it was sent.
    CountsFromAnswer,
    /// The coordinator does not tell an agent that it was taken for lost. Then it may wait for an answer for ever.
    Silent,
    /// An agent's process is started again while calls of the former one still run.
    NoLock,
    /// No timer kills an agent that is stopped when its time is over.
    NoFuse,
    /// An agent heeds a pause that is over.
    AnyPause,
    /// An agent's lease becomes shorter by the answer to an old beat.
    OldAnswer,
}
