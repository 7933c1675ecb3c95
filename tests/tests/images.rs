//! Workers are the program that the pool began with, whatever becomes of its file.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::when_written;

/// A directory with a copy of the first build, and what that prints there.
fn run(arguments: impl FnOnce(&Path) -> Vec<PathBuf>) -> Vec<String> {
    let directory = TempDir::new().unwrap();
    let app = directory.path().join("app");
    std::fs::copy(env!("CARGO_BIN_EXE_build_one"), &app).unwrap();
    let arguments = arguments(directory.path());
    let output = when_written(|| Command::new(&app).args(&arguments).output());
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

fn other() -> PathBuf {
    env!("CARGO_BIN_EXE_build_two").into()
}

fn all_from_the_first_build() -> Vec<String> {
    let mut lines = vec!["100".to_owned(); 8];
    lines.push("new pool: 100".to_owned());
    lines
}

#[test]
fn a_program_that_is_replaced_goes_on_as_it_was() {
    assert_eq!(
        run(|_| vec!["replaced".into(), other()]),
        all_from_the_first_build()
    );
    assert_eq!(
        run(|_| vec!["named".into(), other()]),
        all_from_the_first_build()
    );
}

#[test]
fn a_program_that_is_deleted_or_renamed_goes_on() {
    assert_eq!(run(|_| vec!["deleted".into()]), all_from_the_first_build());
    let elsewhere = |directory: &Path| vec!["renamed".into(), directory.join("elsewhere")];
    assert_eq!(run(elsewhere), all_from_the_first_build());
}

#[test]
fn a_pool_never_mixes_two_builds_of_a_separate_worker() {
    let lines = run(|directory| {
        let separate = directory.join("separate");
        std::fs::copy(env!("CARGO_BIN_EXE_build_one"), &separate).unwrap();
        vec!["separate".into(), separate, other()]
    });
    let (values, refusals): (Vec<_>, Vec<_>) = lines[..8].iter().partition(|line| *line == "100");
    assert!(!values.is_empty() && !refusals.is_empty(), "{lines:?}");
    for refusal in refusals {
        assert!(
            refusal.contains("it is another build than this pool began with"),
            "{lines:?}"
        );
    }
}

/// What each of the processes leaves in the ledger that began as a program without `worker::init()`.
fn ledger(program: &str, worker: impl FnOnce(&Path) -> Option<PathBuf>) -> Vec<String> {
    let directory = TempDir::new().unwrap();
    let app = directory.path().join(program);
    std::fs::copy(env!("CARGO_BIN_EXE_uninitiated"), &app).unwrap();
    let ledger = directory.path().join("ledger");
    let mut command = Command::new(&app);
    command.env("TEST_LEDGER", &ledger);
    if let Some(worker) = worker(directory.path()) {
        command.env("TEST_WORKER", worker);
    }
    assert!(when_written(|| command.status()).success());
    let lines = std::fs::read_to_string(ledger).unwrap();
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn a_program_is_not_its_own_worker_unless_it_says_so() {
    let named = ledger("app", |directory| Some(directory.join("app")));
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0].starts_with("0 the worker "), "{named:?}");
    assert!(
        named[0].contains("call coordinator::init() first thing in main"),
        "{named:?}"
    );
    // A worker beside itself is what it takes itself for.
    let beside = ledger("worker", |_| None);
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert!(beside[0].contains("that is this executable"), "{beside:?}");
}

#[test]
fn whoever_was_started_to_be_a_worker_and_is_none_has_no_pool() {
    use std::os::unix::fs::PermissionsExt;
    let lines = ledger("app", |directory| {
        let script = directory.join("script");
        let runs = format!("#!/bin/sh\nexec {}\n", directory.join("app").display());
        std::fs::write(&script, runs).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
        Some(script)
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("1 this process was started to be a worker"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("exited with code 0 before it was ready"),
        "{lines:?}"
    );
}

#[test]
fn pools_stand_within_each_other_only_so_deep() {
    let output = Command::new(env!("CARGO_BIN_EXE_uninitiated"))
        .env("TEST_NEST", "")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("there are 5 pools around this one"), "{said}");
}
