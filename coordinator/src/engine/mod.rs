//! What keeps a pool going: the state under its one lock, the threads that serve it, and the conversations with workers.
//!
//! `slot_thread` is a slot's thread and `seat` its living worker; `conversation` is a batch, `death` a worker's end. `recruit`
//! gets a slot its worker, `warm` a copy of one that is ready, `start_turn` lets a few start at a time. `supervisor` sees deaths and deadlines. `state` is what all of
//! them share, and `shared` its lock. `machines` is what the pool knows of agents, and `singles` which maps are open for calls that are made one by
//! one. The rest are tools.
//!
//! The pool's face uses it. What runs when is the scheduler's; how a worker is started, and in what words it is spoken to,
//! is said in `workers`. No type of a user's task is known here, and no code of the host runs here under the lock.

pub(crate) mod condition;
pub(crate) mod config;
mod conversation;
mod courier;
mod death;
mod ends;
#[cfg_attr(
    not(feature = "agents"),
    allow(dead_code, reason = "only agents need it")
)]
pub(crate) mod machines;
#[cfg(test)]
mod model;
mod recruit;
pub(crate) mod running;
mod seat;
pub(crate) mod shared;
mod signals;
pub(crate) mod singles;
pub(crate) mod slot_thread;
pub(crate) mod state;
pub(crate) mod stray;
pub(crate) mod supervisor;
/// What [`condition`] is made of.
mod sync {
    pub(crate) use std::sync::atomic::AtomicUsize;
    pub(crate) use std::sync::{Condvar, MutexGuard};
}
mod start_turn;
mod warm;
pub(crate) mod watcher;
