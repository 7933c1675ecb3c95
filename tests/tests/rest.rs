//! The command that a run names for its rest, pasted into a shell.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use tempfile::TempDir;
use tests::run::{Run, coordinator, prints, stderr};

fn named(said: &str) -> Option<&str> {
    said.lines()
        .find_map(|line| line.strip_prefix("coordinator: to run the rest: "))
}

/// Runs what a run says is to be run for the rest, as a person would.
fn pasted(run: Run) -> Vec<u8> {
    let output = run.output();
    let said = String::from_utf8(output.stderr).unwrap();
    let line = named(&said).unwrap_or_else(|| panic!("{said}"));
    assert!(!line.chars().any(char::is_control), "{line}");
    let shell = Command::new("bash").arg("-c").arg(line).output().unwrap();
    shell.stdout
}

#[test]
fn failures_are_summed_up_with_the_command_for_the_rest() {
    let output = coordinator(&["exec", "-c", "exit $1", ":::", "0", "3", "0", "4"]).output();
    prints(&output, 1, "");
    let said = stderr(&output);
    assert!(said.contains("input \"3\": exited with code 3"), "{said}");
    assert!(said.contains("2 of 4 calls did not succeed"), "{said}");
    assert!(said.trim_end().ends_with("::: 3 4"), "{said}");
}

#[test]
fn it_runs_the_inputs_that_failed_and_no_others() {
    let inputs: [&[u8]; 8] = [
        b"a b",
        b"it's",
        b"",
        b"tab\tnew\nline\r",
        b"\xff7",
        b"\x1b[31m",
        b"-j2",
        b"ok",
    ];
    let script = "[ \"$1\" = ok ] && exit; printf '<%s>' \"$1\"; exit 1";
    let mut run = coordinator(&["exec", "-c", script, ":::"]);
    run.command.args(inputs.map(OsStr::from_bytes));
    let mut expected = Vec::new();
    for input in &inputs[..7] {
        expected.extend([b"<", *input, b">"].concat());
    }
    assert_eq!(pasted(run), expected);
}

#[test]
fn it_names_inputs_from_a_file_and_those_of_commands_with_several() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("inputs");
    let all: String = (1..=30).map(|n| format!("{n}\n")).collect();
    std::fs::write(&file, all).unwrap();
    let file = file.to_str().unwrap();
    let script = "echo \"$@\"; [ $1 -gt 4 ]";
    let of_file = coordinator(&["exec", "-a", file, "-c", "echo $1; exit 1"]);
    let expected: String = (1..=30).map(|n| format!("{n}\n")).collect();
    assert_eq!(pasted(of_file), expected.as_bytes());
    let joined = format!("--input={file}");
    let several = coordinator(&["exec", "-n2", &joined, "-c", script]);
    assert_eq!(pasted(several), b"1 2\n3 4\n");
}

#[test]
fn a_line_that_would_not_do_it_is_not_named() {
    for input in ["--\nb\n", ":::\nb\n"] {
        let run = coordinator(&["exec", "-c", "exit 1"]);
        let output = run.with_input(input.as_bytes());
        assert_eq!(named(stderr(&output)), None);
        assert!(
            stderr(&output).contains("--log FILE"),
            "{}",
            stderr(&output)
        );
    }
    let many: String = (0..2000).map(|n| format!("{n}\n")).collect();
    let output = coordinator(&["exec", "-j2", "-c", "exit 1"]).with_input(many.as_bytes());
    assert_eq!(named(stderr(&output)), None);
}

#[test]
fn a_command_that_differs_in_a_byte_is_another() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let run = |options: &[&str], byte: u8| {
        let mut run = coordinator(&["exec", "--log", log.to_str().unwrap()]);
        run.command.args(options).args(["--", "true"]);
        run.command.arg(OsStr::from_bytes(&[byte]));
        run.command.args([":::", "x"]);
        run.output()
    };
    prints(&run(&[], 0xff), 0, "");
    assert_eq!(run(&["--resume"], 0xfe).status.code(), Some(2));
    prints(&run(&["--resume"], 0xff), 0, "");
}
