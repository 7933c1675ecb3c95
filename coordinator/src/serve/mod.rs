//! An agent's process: it lends the slots of its machine to one run after another, over a broker.
//!
//! `service` is its thread, which hears the broker and its calls; `serving` is a run that it serves, `preparing` how it comes to
//! that, `calls` the calls of a lease, `event` what its threads say, `files` the files that go along with calls, `life` the lock
//! that proves that its former life is over, `pipe` its way to a broker over ssh, and `programs` what runs have
//! brought along. Who may run what until when is said in `agents::member`. The pool that runs the calls is an ordinary one.

mod calls;
mod event;
mod files;
mod life;
mod pipe;
mod preparing;
mod programs;
mod service;
mod serving;

pub use service::{Leave, Service};
