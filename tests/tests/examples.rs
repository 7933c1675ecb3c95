//! The examples do what they say.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::Command;

fn run(example: &str) -> String {
    let output = Command::new(tests::example(example)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn process() {
    assert_eq!(
        run("process"),
        "Child process is running.\nChild process has completed.\n"
    );
}

#[test]
fn pool_map() {
    assert_eq!(run("pool_map"), "[1, 4, 9, 16, 25, 36, 49, 64]\n");
}

#[test]
fn print_numbers() {
    let expected: String = (1..=4)
        .map(|n| format!("Process {n}: My number is {n}\n"))
        .collect();
    for _ in 0..5 {
        assert_eq!(run("print_numbers"), expected);
    }
}

#[test]
fn threads_vs_processes() {
    let text = run("threads_vs_processes");
    for line in [
        "  by threads:   the counter here is 8",
        "  by processes: the counter here is 0",
        "  in a process: 2 -> 4",
        "  in a process: 3 -> its worker was killed by signal 6 (SIGABRT)",
        "  in a process: 4 -> 16",
    ] {
        assert!(
            text.lines().any(|printed| printed == line),
            "{line:?} is not in\n{text}"
        );
    }
    for way in ["serial", "threads", "processes"] {
        assert!(text.contains(&format!("  {way:10} ")), "{text}");
    }
}
