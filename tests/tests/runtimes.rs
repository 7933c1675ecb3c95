//! Programs with an async runtime.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::{Command, Output};

fn run(mode: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runtimes"))
        .env("MODE", mode)
        .output()
        .unwrap()
}

#[test]
fn a_runtime_that_is_started_afterwards_is_only_here() {
    let output = run("before");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "6\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && output.stderr.is_empty());
}

#[cfg(debug_assertions)]
#[test]
fn inside_of_a_runtime_one_is_told_what_to_do() {
    for mode in ["inside", "inside-current"] {
        let output = run(mode);
        let said = String::from_utf8_lossy(&output.stderr);
        for part in [
            "`worker::init()`",
            "async runtime",
            "start the runtime afterwards",
        ] {
            assert!(said.contains(part), "{mode}: {said}");
        }
        assert_eq!(output.status.code(), Some(101), "{mode}");
    }
}

#[cfg(debug_assertions)]
#[test]
fn other_threads_are_named_and_tolerated() {
    let output = run("threads");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("should come first in `main`"), "{said}");
    assert!(said.contains("`a listener`"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Ok(1)\n", "{said}");
}
