//! P1, P2, P3, P4 and P6 all at once: many calls, of which about one in a hundred misbehaves, in every
//! way there is. Each must end exactly as its index says, and in its place.
//!
//! The long run, of 100,000 calls, is made by
//! `cargo test -p tests --release --test soak -- --ignored`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::Command;

use tempfile::TempDir;

fn soak(calls: u64) {
    let (temporary, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .args(["soak", &calls.to_string()])
        .arg(directory.path())
        .env("TMPDIR", temporary.path())
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{complained}");
    let expected = format!("{calls} calls in ");
    assert!(said.contains(&expected), "{said}");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}

#[test]
fn three_thousand_calls_end_as_they_must() {
    soak(3_000);
}

#[test]
#[ignore = "takes a minute or two"]
fn a_hundred_thousand_calls_end_as_they_must() {
    soak(100_000);
}
