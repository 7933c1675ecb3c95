//! What the tests share: where the binaries are, and tasks that misbehave.

pub mod brief;
pub mod builds;
pub mod ends;
pub mod foreign;
pub mod hogs;
pub mod hostile;
pub mod large;
pub mod processes;
pub mod python;
pub mod run;
pub mod shapes;
pub mod sharing;
pub mod soak;
pub mod tasks;
pub mod terminal;
pub mod warm;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The `coordinator` binary.
#[must_use]
pub fn coordinator() -> &'static Path {
    built("coordinator")
}

/// The `worker` binary.
#[must_use]
pub fn worker() -> &'static Path {
    built("worker")
}

/// An example of the `coordinator` package.
#[must_use]
pub fn example(name: &str) -> &'static Path {
    built(name)
}

/// A program of this workspace, built now if it was not. One build for all of them, so that the
/// packages' features, and with them what is in the target directory, are the same for all tests.
///
/// # Panics
///
/// If it can't be built.
fn built(name: &str) -> &'static Path {
    static BUILT: OnceLock<HashMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        processes::heed_signals();
        let build = escargot::CargoBuild::new()
            .arg("--workspace")
            .bins()
            .examples();
        let build = if cfg!(debug_assertions) {
            build
        } else {
            build.release()
        };
        let messages = build.exec().unwrap_or_else(|error| panic!("{error}"));
        let mut paths = HashMap::new();
        for message in messages {
            let message = message.unwrap_or_else(|error| panic!("{error}"));
            if let Ok(escargot::format::Message::CompilerArtifact(artifact)) = message.decode()
                && let Some(path) = artifact.executable
            {
                paths.insert(artifact.target.name.into_owned(), path.into_owned());
            }
        }
        paths
    });
    built
        .get(name)
        .unwrap_or_else(|| panic!("there is no program `{name}` in this workspace"))
}

/// Starts a program that was written a moment ago. Another thread's new process may still hold it open for writing,
/// until it has become its own program.
///
/// # Panics
///
/// If it can't be started for another reason.
pub fn when_written<R>(mut start: impl FnMut() -> std::io::Result<R>) -> R {
    loop {
        match start() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::yield_now();
            }
            started => return started.unwrap_or_else(|error| panic!("{error}")),
        }
    }
}

/// A program that is a shell script, named `worker` in a directory. Another process writes it: if this one did, another
/// test's child might have it open at the wrong moment, and nobody could run it.
///
/// # Panics
///
/// If it can't be written.
pub fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("worker");
    let status = std::process::Command::new("sh")
        .args(["-c", "printf '%s' \"$1\" > \"$0\" && chmod +x \"$0\""])
        .arg(&path)
        .arg(format!("#!/bin/sh\n{text}\n"))
        .status()
        .expect("a shell");
    assert!(status.success());
    path
}

/// A test can't be run here, for want of something that CI has.
///
/// # Panics
///
/// In CI.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// Waits until something is true.
///
/// # Panics
///
/// If it is not true within ten seconds.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_true() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        // Between two looks; what is waited for does not depend on it.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process lives: is there, and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z')
}

/// Whether a process is stopped.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

/// See proc_pid_stat(5).
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name, which may contain anything.
    stat.rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next())
}

/// The README and the guide: `cargo test` compiles and runs their code.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/cli.md")]
    struct Cli;
    #[doc = include_str!("../../docs/pipe.md")]
    struct Pipe;
    #[doc = include_str!("../../docs/json-and-log.md")]
    struct JsonAndLog;
    #[doc = include_str!("../../docs/many-machines.md")]
    struct ManyMachines;
    #[doc = include_str!("../../docs/library.md")]
    struct Library;
    #[doc = include_str!("../../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../../docs/from-python.md")]
    struct FromPython;
    #[doc = include_str!("../../docs/isolating-c.md")]
    struct IsolatingC;
    #[doc = include_str!("../../docs/services.md")]
    struct Services;
    #[doc = include_str!("../../docs/debugging.md")]
    struct Debugging;
    #[doc = include_str!("../../docs/performance.md")]
    struct Performance;
    #[doc = include_str!("../../docs/promises.md")]
    struct Promises;
    #[doc = include_str!("../../docs/limits.md")]
    struct Limits;
}
