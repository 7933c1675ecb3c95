//! An agent's process: it lends the slots of its machine to one run after another, over a broker.
//!
//! `service` has its settings, `identity` who it is, and `steward` is its thread, which hears the broker and its calls. `preparing`
//! is how it comes to a run, `building` its workers until they are ready, `serving` a run that it serves, `calls` the calls of a
//! lease, `files` what goes along with calls, and `programs` what runs have brought along. `event` is what its threads say, `life` the
//! lock that proves that its former life is over, `machine` how busy its machine is, and `pipe` its way to a broker over ssh.
//!
//! Who may run what until when is said in `agents::member`. The pool that runs the calls is an ordinary one, and nothing here knows
//! how it does that.

mod building;
mod calls;
mod event;
mod files;
mod identity;
mod life;
mod machine;
mod pipe;
mod preparing;
mod programs;
mod service;
mod serving;
mod steward;

pub use identity::Leave;
pub use service::Service;
