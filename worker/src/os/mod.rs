//! The worker's use of the operating system. Only this module and `command` know which system it is.
//!
//! All of the worker uses it. Coordinators use `spawn`, `lifeline`, `home`, `image` and `path`, because both sides start
//! processes. Tasks and calls have no place here.

#[cfg(unix)]
mod first;
#[cfg(unix)]
mod fork;
#[cfg(unix)]
pub mod home;
#[cfg(unix)]
mod huge;
#[cfg(unix)]
pub mod image;
#[cfg(unix)]
pub mod lifeline;
#[cfg(unix)]
pub mod path;
#[cfg(unix)]
pub mod patient;
#[cfg(unix)]
mod peer;
#[cfg(unix)]
mod shared;
#[cfg(unix)]
pub mod spawn;
#[cfg(all(unix, feature = "builtin"))]
mod streams;
#[cfg(unix)]
mod tail;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod vfork;
#[cfg(unix)]
pub(crate) use first::{Before, what_runs};
#[cfg(unix)]
pub(crate) use fork::{NoCopy, Side, can_be_copied, copy};
#[cfg(unix)]
pub(crate) use huge::use_huge_pages;
#[cfg(all(unix, feature = "builtin"))]
pub(crate) use path::place_of;
#[cfg(unix)]
pub(crate) use peer::{check_peer, check_place};
#[cfg(unix)]
pub(crate) use shared::{Bytes, Words, give_memory_back, random, seal, shared_file};
#[cfg(all(unix, feature = "builtin"))]
pub(crate) use spawn::{Image, Spawn};
#[cfg(all(unix, feature = "builtin"))]
pub(crate) use streams::has_no_stdout;
#[cfg(unix)]
pub(crate) use tail::Tail;
#[cfg(unix)]
pub(crate) use unix::*;

#[cfg(not(unix))]
compile_error!(
    "workers run on Unix-like systems only: another system's part belongs into worker/src/os/"
);
