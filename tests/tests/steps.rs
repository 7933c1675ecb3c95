//! A pipe's process that writes a line too many answers inputs with what was meant for others: that is said, and does
//! not count as done.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::Value;
use tests::run::{coordinator, prints, stderr, stdout};

/// Answers, and writes another line some time after its answer to 2. By then it has been given 3.
const LATE: &str = "while read l; do echo a $l; [ $l = 2 ] && { sleep .05; echo extra; }; done";

#[test]
fn answers_that_may_be_others_do_not_count() {
    let output =
        coordinator(&["pipe", "-j1", "--", "sh", "-c", LATE]).with_input(b"1\n2\n3\n4\n5\n6\n");
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let suspect = said
        .lines()
        .find(|line| line.contains("may belong to other inputs"));
    assert!(
        suspect.is_some_and(|line| line.contains("inputs 1 to ")),
        "{said}"
    );
    assert!(said.contains(" suspect; it took "), "{said}");
}

#[test]
fn a_line_too_many_is_seen_at_the_end_of_a_run() {
    // The first answer takes as long as the last line, so that one waits for it.
    let late = "while read l; do [ $l = 1 ] && sleep .05; echo a $l; [ $l = 3 ] && { sleep .01; echo extra; }; done";
    let output =
        coordinator(&["pipe", "-j1", "--json", "--", "sh", "-c", late]).with_input(b"1\n2\n3\n");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let objects: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let suspects = objects.iter().find_map(|object| object.get("suspects"));
    assert_eq!(suspects, Some(&serde_json::json!([[1, 3]])), "{objects:?}");
    let summary = objects.last().unwrap();
    assert_eq!(
        (&summary["ok"], &summary["suspect"]),
        (&0.into(), &3.into())
    );
}

#[test]
fn a_resumed_run_asks_again_for_what_was_suspect() {
    let directory = tempfile::tempdir().unwrap();
    let (log, fixed) = (directory.path().join("log"), directory.path().join("fixed"));
    let (log, fixed) = (log.to_str().unwrap(), fixed.to_str().unwrap());
    let script = format!(
        "while read l; do echo a $l; [ $l = 2 ] && [ ! -e {fixed} ] && {{ sleep .05; echo extra; }}; done"
    );
    let words = ["--", "sh", "-c", &script];
    let inputs = b"1\n2\n3\n4\n5\n6\n";
    let first =
        coordinator(&[&["pipe", "-j1", "--log", log], &words[..]].concat()).with_input(inputs);
    assert_eq!(first.status.code(), Some(1), "{}", stderr(&first));
    std::fs::write(fixed, "").unwrap();
    let resumed = [&["pipe", "-j1", "--log", log, "--resume"], &words[..]].concat();
    let second = coordinator(&resumed).with_input(inputs);
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));
    assert!(
        stdout(&second).starts_with("a 1\na 2\na 3\n"),
        "{}",
        stdout(&second)
    );
    prints(&coordinator(&resumed).with_input(inputs), 0, "");
}

#[test]
fn with_numbers_no_answer_is_taken_for_anothers() {
    let right = coordinator(&["pipe", "-j2", "--numbered", "--", "sed", "-u", "s/$/!/"]);
    prints(&right.with_input(b"a b\n\n1\tx\n"), 0, "a b!\n!\n1\tx!\n");
    let late = "while read l; do echo \"$l a\"; [ \"${l#2}\" != \"$l\" ] && { sleep .05; echo extra; }; done";
    let output = coordinator(&["pipe", "-j1", "--numbered", "--", "bash", "-c", late])
        .with_input(b"1\n2\n3\n4\n");
    assert_eq!(output.status.code(), Some(1));
    // The one in whose place the line came has no answer; all others have their own.
    let out = stdout(&output);
    let answers: Vec<&str> = out.lines().collect();
    assert_eq!(answers, ["1 a", "2 a", "4 a"], "{}", stderr(&output));
    assert!(!stderr(&output).contains("suspect"), "{}", stderr(&output));
}
