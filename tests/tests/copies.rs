//! A program that is copied by `fork`: what it has is its own, and not the copy's.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::Command;

use rustix::process::Signal;
use tests::processes::signal;
use tests::{eventually, is_alive};

#[test]
fn a_copy_uses_nothing_and_harms_nobody() {
    let output = Command::new(env!("CARGO_BIN_EXE_copies"))
        .arg("both")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "all is well\n",
        "{stderr}"
    );
}

#[test]
fn workers_die_with_their_coordinator_though_a_copy_of_it_lives() {
    // It ends when the program has died, and the copy does not keep it open.
    let output = Command::new("sh")
        .arg("-c")
        .arg("exec \"$0\" dies 2>&1 | head -n 1")
        .arg(env!("CARGO_BIN_EXE_copies"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let pids: Vec<u32> = said
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let [copy, first, second] = pids[..] else {
        panic!("{said}")
    };
    eventually("the workers are gone", || {
        !is_alive(first) && !is_alive(second)
    });
    assert!(is_alive(copy));
    signal(copy, Signal::KILL);
}
