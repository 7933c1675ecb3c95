//! Calls that are cut off have begun: they have an object, a line in the log, and what they printed.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tests::eventually;
use tests::processes::signal;
use tests::run::{coordinator, stderr, stdout};

/// Says that it has begun, and goes on for ever.
const HALF: &str = "echo begun $1; touch half.$1; sleep 1000";

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_call_that_another_ones_failure_cuts_off_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "[ $1 = 1 ] && {{ until [ -e half.2 ] && [ -e half.3 ]; do sleep .01; done; exit 3; }}; {HALF}"
    );
    let words = [
        "exec",
        "-j3",
        "--json",
        "--log",
        "log",
        "--max-fail",
        "1:now",
        "-c",
        &script,
    ];
    let mut run = coordinator(&[&words[..], &[":::", "1", "2", "3", "4", "5"]].concat());
    run.command.current_dir(directory.path());
    let output = run.output();
    assert_eq!(output.status.code(), Some(1));
    let printed = objects(stdout(&output));
    let log = objects(&std::fs::read_to_string(directory.path().join("log")).unwrap());
    for input in ["2", "3"] {
        let of = |objects: &[Value]| {
            objects
                .iter()
                .find(|object| object["input"] == input)
                .cloned()
                .unwrap()
        };
        let (object, line) = (of(&printed), of(&log));
        assert_eq!(
            (&object["status"], &line["status"]),
            (&"cancelled".into(), &"cancelled".into())
        );
        assert_eq!(object["stdout"], format!("begun {input}\n"));
        assert!(object["ms"].as_f64().unwrap() > 0.0 && line["ms"].as_f64().unwrap() > 0.0);
        assert!(
            stderr(&output).contains(&format!("input \"{input}\": cancelled")),
            "{}",
            stderr(&output)
        );
    }
    let summary = printed.last().unwrap();
    assert_eq!(
        (&summary["failed"], &summary["not_run"]),
        (&3.into(), &2.into())
    );
}

#[test]
fn a_call_that_a_signal_cuts_off_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = coordinator(&["exec", "-j2", "-c", HALF, ":::", "1", "2", "3"]);
    run.command
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = run.command.spawn().unwrap();
    eventually("both have begun", || {
        ["half.1", "half.2"]
            .iter()
            .all(|half| directory.path().join(half).exists())
    });
    signal(child.id(), Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(stdout(&output), "begun 1\nbegun 2\n");
    let said = stderr(&output);
    assert!(
        said.contains("input \"1\": cancelled") && said.contains("input \"2\": cancelled"),
        "{said}"
    );
}

/// Not even by a newline.
#[test]
fn unordered_output_is_left_as_it_is() {
    for how in ["-u", "--live"] {
        let output =
            coordinator(&["exec", how, "--", "printf", "%s", ":::", "a", "b", "c"]).output();
        let mut bytes = output.stdout;
        bytes.sort_unstable();
        assert_eq!(bytes, b"abc", "{how}");
    }
    let tagged = coordinator(&["exec", "-u", "--tag", "--", "printf", "%s", ":::", "a"]).output();
    assert_eq!(stdout(&tagged), "a\ta\n");
}

#[test]
fn a_log_knows_inputs_and_not_groups() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let log = log.to_str().unwrap();
    let numbers = |from: u32, to: u32| (from..=to).map(|n| format!("{n}\n")).collect::<String>();
    let first = coordinator(&["exec", "-n", "3", "--log", log, "--", "echo"]);
    assert!(first.with_input(numbers(1, 10).as_bytes()).status.success());
    let again = || coordinator(&["exec", "-n", "3", "--log", log, "--resume", "--", "echo"]);
    let one_more = again().with_input(numbers(1, 11).as_bytes());
    assert_eq!(stdout(&one_more), "11\n");
    let in_front = again().with_input(numbers(0, 11).as_bytes());
    assert_eq!(stdout(&in_front), "0\n");
}
