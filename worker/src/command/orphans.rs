//! What a command has started in other process groups, when it is to be ended.
//!
//! SIGTERM is passed on to the command's group. What has a group of its own does not hear of it, as with
//! `timeout`, and when its parent is gone nobody can tell whose it was. So from SIGTERM on the kernel
//! gives what loses its parent to the worker, which kills it before it dies itself.

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group};

/// How often to look again: a process that is killed leaves what it had started.
const ROUNDS: u32 = 1000;

/// What loses its parent from now on is this process's. Allowed in a signal handler: a system call, and no `errno`.
pub(super) fn adopt() {
    // It can't fail where there is such a flag.
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

/// Kills all children and what they leave.
pub(super) fn end() {
    for _ in 0..ROUNDS {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            // A group that is not the worker's is the command's, all of it.
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

/// A process's group; none if it is outside of this process namespace, of which rustix's would make an invalid [`Pid`].
#[expect(unsafe_code, reason = "std has no such function")]
fn group_of(pid: Pid) -> Option<Pid> {
    // SAFETY: it takes a number and returns one.
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
