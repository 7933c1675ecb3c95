//! The command line, run as a person or a shell script runs it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// The coordinator, with a directory for temporary files that must be empty in the end.
#[derive(Debug)]
pub struct Run {
    /// What is run; it may still be changed.
    pub command: Command,
    /// The directory for temporary files.
    pub temporary: TempDir,
}

/// The coordinator with these arguments.
///
/// # Panics
///
/// If there is no room for a directory.
#[must_use]
pub fn coordinator(arguments: &[&str]) -> Run {
    let temporary = tempfile::Builder::new().prefix("c").tempdir().unwrap();
    let mut command = Command::new(crate::coordinator());
    command
        .args(arguments)
        .env("TMPDIR", temporary.path())
        .env_remove("RUST_LOG")
        .env_remove("COORDINATOR_WORKER")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Run { command, temporary }
}

impl Run {
    /// The same under strace, with these options, for at most thirty seconds: then its exit code is 124.
    #[must_use]
    pub fn under_strace(mut self, options: &[&str]) -> Run {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "30", "strace", "-f", "-qq"]);
        command.args(options);
        command.arg(self.command.get_program());
        command.args(self.command.get_args());
        command
            .env("TMPDIR", self.temporary.path())
            .env("RUST_BACKTRACE", "0")
            .env_remove("RUST_LOG")
            .env_remove("COORDINATOR_WORKER")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.command = command;
        self
    }

    /// Runs it.
    ///
    /// # Panics
    ///
    /// If it can't be run, or leaves something behind.
    pub fn output(mut self) -> Output {
        let output = self.command.output().unwrap();
        self.nothing_left();
        output
    }

    /// Runs it with this as stdin.
    ///
    /// # Panics
    ///
    /// If it can't be run, or leaves something behind.
    pub fn with_input(mut self, input: &[u8]) -> Output {
        let mut child = self.command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        self.nothing_left();
        output
    }

    /// Asserts that no temporary file is left.
    ///
    /// # Panics
    ///
    /// If it can't be run, or leaves something behind.
    pub fn nothing_left(&self) {
        let left: Vec<_> = self.temporary.path().read_dir().unwrap().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// What it wrote to stdout.
///
/// # Panics
///
/// If that is no UTF-8.
#[must_use]
pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What it wrote to stderr.
///
/// # Panics
///
/// If that is no UTF-8.
#[must_use]
pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Asserts what it wrote to stdout, and its exit code.
///
/// # Panics
///
/// If it did not.
pub fn prints(output: &Output, code: i32, expected: &str) {
    assert_eq!(stdout(output), expected, "stderr: {}", stderr(output));
    assert_eq!(
        output.status.code(),
        Some(code),
        "stderr: {}",
        stderr(output)
    );
}

/// A mistake gets one line on stderr that contains `says`, and nothing on stdout.
///
/// # Panics
///
/// If it does not.
pub fn complains(output: &Output, code: i32, says: &str) {
    prints(output, code, "");
    assert_eq!(stderr(output).lines().count(), 1, "{}", stderr(output));
    assert!(stderr(output).contains(says), "{}", stderr(output));
}
