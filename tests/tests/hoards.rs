//! What a command prints, and how much it claims to have printed, costs the coordinator no memory.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::run::{coordinator, stderr, stdout};

/// More than there is room for, in bytes.
const MUCH: u64 = 220_000_000;

/// Runs the coordinator where it may have 200,000 KiB of addresses. What it prints is counted.
fn limited(arguments: &[&str]) -> Output {
    let directory = TempDir::new().unwrap();
    Command::new("bash")
        .args([
            "-c",
            "ulimit -v 200000; \"$C\" \"$@\" 2> >(wc -c >&2) | wc -c; exit ${PIPESTATUS[0]}",
            "bash",
        ])
        .args(arguments)
        .env("C", tests::coordinator())
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn what_is_printed_is_copied_in_pieces() {
    let much = format!("head -c {MUCH} /dev/zero | tr '\\0' x");
    let on_stderr = format!("{{ {much}; }} >&2");
    for (option, script, is_stderr) in [
        ("--unordered", on_stderr, true),
        ("--live", much.clone(), false),
        ("--tag", much, false),
    ] {
        let output = limited(&["exec", option, "-c", &script, ":::", "1"]);
        assert!(output.status.success(), "{option}: {output:?}");
        let counted = if is_stderr {
            stderr(&output)
        } else {
            stdout(&output)
        };
        let counted: u64 = counted.trim().parse().unwrap();
        assert!(
            (MUCH..MUCH + 100).contains(&counted),
            "{option}: {output:?}"
        );
    }
}

#[test]
fn an_object_has_the_first_of_it_and_says_what_it_leaves_out() {
    let script = "head -c 50000000 /dev/zero | tr '\\0' x";
    let output = coordinator(&["exec", "--json", "-c", script, ":::", "1"]).output();
    let object: Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    let shown = object["stdout"].as_str().unwrap().len();
    assert_eq!(shown, 16 << 20);
    assert_eq!(object["stdout_cut"], 50_000_000 - shown);
    assert_eq!(object.get("stderr_cut"), None);
}
