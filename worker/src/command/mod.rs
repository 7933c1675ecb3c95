//! A command that a task runs: its process group, what it reads and writes, and what becomes of it when its worker is told
//! to end.
//!
//! The built-in tasks `exec` and `pipe` use it. It starts processes by [`os::spawn`](crate::os), and knows nothing of calls or
//! of the conversation with a coordinator.

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
