//! What a process has started.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Pid;

/// How deep the children of children are looked for.
pub(super) const DEPTH: u32 = 32;

/// The children of all threads of a process; none where the kernel was built without such lists.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let numbers = |list: String| -> Vec<u32> {
        list.split(' ')
            .filter_map(|word| word.parse().ok())
            .collect()
    };
    lists.flat_map(numbers).collect()
}

/// The process groups of a process's descendants that are not its own.
pub(super) fn other_groups(process: Pid) -> BTreeSet<i32> {
    let mut groups = BTreeSet::new();
    let mut level = vec![process.as_raw_nonzero().get().unsigned_abs()];
    for _ in 0..DEPTH {
        level = level.into_iter().flat_map(children).collect();
        for pid in &level {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw);
            if let Some(Ok(group)) = pid.map(|pid| rustix::process::getpgid(Some(pid))) {
                groups.insert(group.as_raw_nonzero().get());
            }
        }
    }
    groups.remove(&process.as_raw_nonzero().get());
    // Whatever happens in between, this is nobody's business but ours.
    groups.remove(&rustix::process::getpgrp().as_raw_nonzero().get());
    groups
}
