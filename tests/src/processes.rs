//! What tests do to processes, and how they find them.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::is_alive;
use crate::tasks::heed;

/// Sends a signal to a process; whether it is still there is the caller's business.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// What is started from now on heeds the signals that a terminal sends. As a job in the background of a script,
/// or under `nohup`, this process ignores them, and what ignores them as it starts goes on to.
pub fn heed_signals() {
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT]
        .into_iter()
        .for_each(heed);
}

/// The process ids in a file, separated by spaces.
///
/// # Panics
///
/// If they can't be read.
#[must_use]
pub fn pids_in(file: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}"));
    let pids = text.split_whitespace().map(str::parse);
    pids.collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The processes with this directory for temporary files: a coordinator that was started so, its
/// workers, and all that these have started, in whatever group or session.
///
/// # Panics
///
/// If there is no `/proc`.
#[must_use]
pub fn processes_with(temporary: &Path) -> Vec<u32> {
    let wanted = format!("TMPDIR={}", temporary.display());
    let processes = std::fs::read_dir("/proc").unwrap_or_else(|error| panic!("{error}"));
    let numbers =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // Those of other users can't be read; those that have just ended are empty.
    let has_it = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    };
    numbers
        .filter(has_it)
        .filter(|pid| is_alive(*pid))
        .collect()
}
