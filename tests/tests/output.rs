//! P5: what tasks print comes out as if they had run one after another.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::{Command, Output};

use tempfile::TempDir;
use tests::{eventually, is_alive};

fn run(arguments: &[&str]) -> Output {
    let temporary = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .args(arguments)
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
    output
}

#[test]
fn lines_come_in_input_order_whoever_prints_them() {
    let output = run(&["every-way"]);
    let out: String = (1..=5)
        .map(|n| format!("{n} rust\n{n} C\n{n} child\n"))
        .collect();
    let err: String = (1..=5)
        .map(|n| format!("{n} err\n{n} rust err\n"))
        .collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), out);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), err);
}

#[test]
fn parts_of_lines_join_as_in_a_serial_run() {
    assert_eq!(
        String::from_utf8(run(&["parts"]).stdout).unwrap(),
        "ab\nc\nd"
    );
}

#[test]
fn nothing_is_lost_when_the_worker_dies_right_after() {
    let output = run(&["last-words"]);
    let expected = "one\none from C\ntwo\ntwo from C\n\
                    Died(Signal(6)): one is my last word\nDied(Signal(6)): two is my last word\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn thirty_calls_of_three_megabytes_do_not_mix() {
    let output = run(&["much"]);
    for stream in [output.stdout, output.stderr] {
        let text = String::from_utf8(stream).unwrap();
        assert!(text.len() > 30 * 2_900_000, "{}", text.len());
        let mut lines = text.lines();
        for number in 0..30 {
            for line in 0..30_000 {
                let expected = format!("{number} {line} ");
                assert!(lines.next().unwrap().starts_with(&expected), "{expected}");
            }
        }
    }
}

#[test]
fn what_nobody_waits_for_is_printed_all_the_same() {
    assert_eq!(
        String::from_utf8(run(&["detached"]).stdout).unwrap(),
        "nobody waits\n"
    );
}

#[test]
fn a_pool_that_is_dropped_lets_the_program_end() {
    assert_eq!(
        String::from_utf8(run(&["drop"]).stdout).unwrap(),
        "leaving\n"
    );
}

#[test]
fn a_killed_coordinator_leaves_no_worker_and_no_grandchild() {
    let directory = TempDir::new().unwrap();
    let temporary = TempDir::new().unwrap();
    let files: Vec<_> = (0..2)
        .map(|n| directory.path().join(n.to_string()))
        .collect();
    let mut coordinator = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .arg("hold-out")
        .args(&files)
        .env("TMPDIR", temporary.path())
        .spawn()
        .unwrap();
    eventually("both workers hold out", || {
        files.iter().all(|file| file.exists())
    });
    let pids: Vec<u32> = files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            text.split(' ')
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // One of the workers is frozen, which must not save it.
    let frozen = rustix::process::Pid::from_raw(i32::try_from(pids[0]).unwrap()).unwrap();
    rustix::process::kill_process(frozen, rustix::process::Signal::STOP).unwrap();
    coordinator.kill().unwrap();
    coordinator.wait().unwrap();
    eventually("all are gone", || pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}
