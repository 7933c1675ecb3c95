//! Machines that are reached by ssh, for one run: its broker, an ssh for each machine, and the pipe between the two.
//!
//! `hosts` reads which machines, `server` is the broker's process, `remote` is one ssh with what is said before an agent
//! speaks, `script` runs on the other machine first, and `hello` is what both sides must agree on. `crew` keeps all of it going
//! for as long as the run does. What agents say afterwards is none of its business: it copies bytes.

pub(crate) mod crew;
pub(crate) mod hello;
pub(crate) mod hosts;
mod remote;
mod script;
mod server;
