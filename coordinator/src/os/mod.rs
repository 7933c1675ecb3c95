//! What differs between operating systems: process groups, death, signals, private directories.
//! The only place that knows which system it is.
//!
//! The engine, `workers` and `payload` use it. It knows processes and files, and nothing of calls or of what a worker is for.
//!
//! Another system's part provides what `linux` does: a [`WorkerProcess`] that can be started,
//! signalled with all its children, and waited for; whose death wakes whoever polls for it; and
//! that dies, with its children, when the coordinator does.

#[cfg(all(target_os = "linux", feature = "agents"))]
mod boot;
#[cfg(target_os = "linux")]
mod janitor;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod tree;
#[cfg(all(target_os = "linux", feature = "agents"))]
pub(crate) use boot::{Fuse, boot_time};
#[cfg(target_os = "linux")]
pub(crate) use janitor::Janitor;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "linux")]
pub(crate) use memory::use_few_arenas;
#[cfg(target_os = "linux")]
pub(crate) use process::{Beginning, GroupSignal, WorkerProcess};

#[cfg(not(target_os = "linux"))]
compile_error!("the coordinator runs on Linux only: another system's part belongs into os/");
