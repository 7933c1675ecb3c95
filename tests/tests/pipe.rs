//! `coordinator pipe`: a warm process of any language.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::Value;
use tests::run::{coordinator, prints, stderr, stdout};

#[test]
fn a_warm_process_answers_line_by_line() {
    prints(
        &coordinator(&["pipe", "-j2", "--", "cat", ":::", "a b", "", "c"]).output(),
        0,
        "a b\n\nc\n",
    );
    // A number, and what looks like JSON, is the line that it is.
    prints(
        &coordinator(&["pipe", "--", "cat"]).with_input(b"1\n\"x\"\n[]"),
        0,
        "1\n\"x\"\n[]\n",
    );
    let counts = "while read line; do n=$((n + 1)); echo $line-$n; done";
    let run = coordinator(&["pipe", "-j1", "--recycle", "2", "--", "sh", "-c", counts]);
    prints(&run.with_input(b"a\nb\nc\n"), 0, "a-1\nb-2\nc-1\n");
}

#[test]
fn a_pipe_that_breaks_costs_one_input() {
    let breaks = "while read line; do [ $line = b ] && exit 7; echo $line; done";
    let output = coordinator(&[
        "pipe", "-j1", "--", "sh", "-c", breaks, ":::", "a", "b", "c",
    ])
    .output();
    prints(&output, 1, "a\nc\n");
    assert!(stderr(&output).contains("code 7"), "{}", stderr(&output));
    let silent = coordinator(&["pipe", "-j1", "--", "true", ":::", "x"]).output();
    prints(&silent, 1, "");
    assert!(stderr(&silent).contains("\"x\""), "{}", stderr(&silent));
    let twice = "s/.*/&\\n&/";
    let chatty = coordinator(&["pipe", "-j1", "--", "sed", "-u", twice, ":::", "x"]).output();
    prints(&chatty, 1, "");
    assert!(
        stderr(&chatty).contains("more than one line"),
        "{}",
        stderr(&chatty)
    );
    // If the second line comes late, it is noticed with one of the next inputs.
    let many: String = (0..200).map(|n| format!("{n}\n")).collect();
    let late = coordinator(&["pipe", "-j1", "--", "sed", "-u", "p"]).with_input(many.as_bytes());
    assert_eq!(late.status.code(), Some(1));
    assert!(
        stderr(&late).contains("each line with one line"),
        "{}",
        stderr(&late)
    );
}

#[test]
fn a_process_that_ends_after_its_answer_costs_nothing() {
    let many: String = (0..40).map(|n| format!("{n}\n")).collect();
    // The next line stands in the pipe already when some of them end, and nobody has read it.
    for ends in [
        "read line; echo $line; exit 3",
        "read line; echo $line; kill -9 $$",
        "read line; echo $line; sleep 0.01; exit 3",
    ] {
        let run = coordinator(&["pipe", "-j2", "--", "sh", "-c", ends]);
        prints(&run.with_input(many.as_bytes()), 0, &many);
    }
    // One that never reads is not started for ever.
    let never = coordinator(&["pipe", "-j1", "--", "sh", "-c", "exit 3", ":::", "x"]).output();
    prints(&never, 1, "");
    assert!(stderr(&never).contains("code 3"), "{}", stderr(&never));
}

#[test]
fn how_a_process_died_is_told_as_of_a_command() {
    for (dies, status, exit, signal) in [
        ("read line; exit 7", "failed", Some(7), None),
        ("read line; kill -SEGV $$", "died", None, Some(11)),
    ] {
        let run = coordinator(&["pipe", "--json", "--", "sh", "-c", dies, ":::", "x"]);
        let output = run.output();
        let line = stdout(&output).lines().next().unwrap();
        let told: Value = serde_json::from_str(line).unwrap();
        assert_eq!(told["status"], status, "{line}");
        assert_eq!(told["exit"].as_i64(), exit, "{line}");
        assert_eq!(told["signal"].as_i64(), signal, "{line}");
    }
}

#[test]
fn a_process_that_never_answers_is_spoken_of() {
    let silent = coordinator(&["pipe", "-j1", "-t", "6s", "--", "wc", "-l", ":::", "x"]).output();
    let said = stderr(&silent);
    for part in ["no answer yet", "\"x\"", "stdbuf -oL", "python3 -u"] {
        assert!(said.contains(part), "{said}");
    }
    // One that has answered once can.
    let slow = "read a; echo $a; read b; sleep 6; echo $b";
    let slow = coordinator(&["pipe", "-j1", "--", "sh", "-c", slow, ":::", "1", "2"]).output();
    prints(&slow, 0, "1\n2\n");
    assert!(!stderr(&slow).contains("no answer"), "{}", stderr(&slow));
}
