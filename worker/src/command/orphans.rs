//! Ends processes that a command has started in other process groups.
//!
//! The worker passes SIGTERM on to the command's group. A descendant with a group of its own, as under
//! `timeout`, does not receive it, and once its parent is gone, nobody can tell that it belonged to the command. So from
//! SIGTERM on the kernel makes the worker the parent of orphaned descendants, and the worker kills them before it dies.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group};

/// How often to look again: a killed process leaves its own children behind.
const ROUNDS: u32 = 1000;

/// Makes this process the parent of descendants that are orphaned from now on. A signal handler may call it: it makes one
/// system call, and does not touch `errno`.
pub(super) fn adopt() {
    // This can't fail on a system that has the flag.
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

/// Kills all children, and then the children that those leave.
pub(super) fn end() {
    for _ in 0..ROUNDS {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            // A group other than the worker's belongs to the command as a whole.
            let _ = match group_of(child) {
                Some(group) if Some(group) != group_of(getpid()) => {
                    kill_process_group(group, Signal::KILL)
                }
                _ => kill_process(child, Signal::KILL),
            };
            while let Err(Errno::INTR) = rustix::process::waitpid(Some(child), WaitOptions::empty())
            {
            }
        }
    }
}

/// A process's group. `None` if the group is outside of this pid namespace: rustix's own function would make an invalid
/// [`Pid`] of it.
#[expect(unsafe_code, reason = "std has no such function")]
fn group_of(pid: Pid) -> Option<Pid> {
    // SAFETY: a plain call that takes a number and returns one.
    Pid::from_raw(unsafe { libc::getpgid(pid.as_raw_nonzero().get()) }.max(0))
}

fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    let numbers = lists.iter().flat_map(|list| list.split_whitespace());
    numbers
        .filter_map(|number| Pid::from_raw(number.parse().ok()?))
        .collect()
}
