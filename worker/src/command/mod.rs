//! Commands that tasks run: their process groups, their input and output, and their end when the worker is told to end.
//!
//! The built-in tasks `exec` and `pipe` use this module. It starts processes by [`os::spawn`](crate::os). Calls, and the
//! conversation with a coordinator, have no place here.

mod answers;
mod group;
mod handler;
mod orphans;
mod pipes;
mod pump;
mod term;

pub(crate) use answers::Answers;
pub(crate) use group::{Group, Streams, Waited};
pub(crate) use pipes::{Moved, set_nonblocking, unread, write_now};
pub(crate) use pump::Pump;
pub(crate) use term::Hold;
