//! How much memory processes have, and how much they may have.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "a setting of C's allocator")
)]

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, Rlimit};

use super::tree;

/// How far beyond its limit a process may reach for memory before the kernel refuses. It may reserve
/// more than it uses, and only what it uses counts.
const REACH: u64 = 2;

/// The memory, in bytes, that a process and its descendants have to themselves: what is neither a file
/// nor shared. That of a process that is gone is 0.
pub(super) fn of_tree(pid: u32) -> u64 {
    let theirs = tree::descendants(pid).into_iter().map(of_process);
    of_process(pid).saturating_add(theirs.sum())
}

/// See proc_pid_statm(5): all, resident, shared, in pages.
fn of_process(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let mut pages = statm
        .split(' ')
        .skip(1)
        .map_while(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * rustix::param::page_size() as u64
}

/// Sets how much private writable memory a process can have, mapped or used.
pub(super) fn limit(pid: Pid, limit: Option<u64>) -> io::Result<()> {
    // What this process may have at most, its children may, too.
    let maximum = rustix::process::getrlimit(Resource::Data).maximum;
    let wanted = limit.map(|limit| limit.saturating_mul(REACH));
    let current = match (wanted, maximum) {
        (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
        (wanted, maximum) => wanted.or(maximum),
    };
    rustix::process::prlimit(Some(pid), Resource::Data, Rlimit { current, maximum })?;
    Ok(())
}

/// Has threads share what C's allocator has mapped. Otherwise each maps another 64 MiB, little of which it uses, and
/// where addresses are limited soon nothing else finds any. It has no effect if there were threads before.
pub(crate) fn use_few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes a number, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
