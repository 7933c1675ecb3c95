//! What a process has started: its descendants, by parent, in whatever group or session they are.

#![expect(
    unsafe_code,
    reason = "rustix has no getpgid that is right in every process namespace"
)]

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions};

/// How deep the children of children are looked for.
const DEPTH: u32 = 32;

/// All descendants of a process, parents before their children. Those whose parent is gone are
/// somebody else's children by now, and not found.
pub(super) fn descendants(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut generation = vec![pid];
    for _ in 0..DEPTH {
        generation = generation.into_iter().flat_map(children).collect();
        if generation.is_empty() {
            break;
        }
        all.extend(&generation);
    }
    all
}

/// The process groups of a process's descendants that are neither its own nor this program's.
pub(super) fn groups_below(leader: Pid) -> Vec<Pid> {
    // Without it, one can't tell whom a signal would reach.
    let Some(ours) = group_of("self") else {
        return Vec::new();
    };
    let leader = leader.as_raw_nonzero().get();
    let groups = descendants(leader.unsigned_abs());
    let mut groups: Vec<i32> = groups
        .into_iter()
        // One that is gone has no group.
        .filter_map(|pid| group_of(&pid.to_string()))
        // 0 stands for a group outside of this process namespace, and would be our own; 1 is the
        // system's.
        .filter(|group| *group > 1 && *group != leader && *group != ours)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into_iter().filter_map(Pid::from_raw).collect()
}

/// Reaps what falls to this process of groups that were killed, but not the one that is theirs to reap who started
/// it. Only the first process of a system (of a container, mostly) and one that has asked for it get other
/// processes' orphans.
pub(super) fn reap_ours(groups: &[Pid], but: Pid) {
    let asked = rustix::process::child_subreaper().is_ok_and(|reaper| reaper.is_some());
    if !asked && rustix::process::getpid() != Pid::INIT {
        return;
    }
    for _ in 0..LOOKS {
        let mut left = false;
        for pid in members(groups).filter(|pid| *pid != but) {
            // One that is another's child yet may fall to this process when its parent has died.
            let reaped = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            left |= !matches!(reaped, Ok(Some(_)));
        }
        if !left {
            return;
        }
        // They have been killed, and die when they are next given a processor.
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// The processes of some groups, the dead that nobody has reaped included.
fn members(groups: &[Pid]) -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_member = |pid: &Pid| {
        // SAFETY: it takes a number and returns one; 0 if the group is outside of this process namespace, of which
        // rustix's would make an invalid `Pid`.
        let group = unsafe { libc::getpgid(pid.as_raw_nonzero().get()) };
        Pid::from_raw(group.max(0)).is_some_and(|group| groups.contains(&group))
    };
    pids.filter_map(Pid::from_raw).filter(is_member)
}

/// How long to wait at most for those that were killed, and how often to look.
const LOOKS: u32 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// See proc_pid_stat(5): behind the name, which may contain anything, are state, parent and group.
fn group_of(pid: &str) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(2)?.parse().ok()
}

/// The children of all threads of a process; none where the kernel was built without such lists.
fn children(pid: u32) -> Vec<u32> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::os::unix::process::CommandExt;
    use std::process::{Command, id};

    use super::*;

    #[test]
    fn descendants_are_found_by_parent_and_groups_are_never_ours() {
        let mut apart = Command::new("sleep")
            .arg("1000")
            .process_group(0)
            .spawn()
            .unwrap();
        let mut near = Command::new("sleep").arg("1000").spawn().unwrap();
        let found = descendants(id());
        let this = Pid::from_raw(id() as i32).unwrap();
        let groups = groups_below(this);
        for child in [&mut apart, &mut near] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(found.contains(&apart.id()) && found.contains(&near.id()));
        assert!(groups.contains(&Pid::from_raw(apart.id() as i32).unwrap()));
        let ours = group_of("self").unwrap();
        let raw = |group: &Pid| group.as_raw_nonzero().get();
        assert!(
            groups
                .iter()
                .map(raw)
                .all(|group| group > 1 && group != ours)
        );
    }
}
