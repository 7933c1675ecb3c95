//! What people see on a terminal: this test is the terminal.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use tempfile::TempDir;
use tests::eventually;
use tests::terminal::Terminal;

/// Runs a line to its end. What was shown when all these parts were, before the file `go` was made; what was shown in
/// the end; and all that was written.
fn run(columns: u16, line: &str, until: &[&str]) -> (Vec<String>, Vec<String>, String) {
    let directory = TempDir::new().unwrap();
    let terminal = Terminal::new(columns);
    let mut child = terminal.run(line, &directory);
    eventually(line, || {
        let shown = terminal.lines().join("\n");
        until.iter().all(|part| shown.contains(part))
    });
    let during = terminal.lines();
    std::fs::write(directory.path().join("go"), "").unwrap();
    child.wait().unwrap();
    eventually("all is read", || terminal.raw().contains("the end"));
    (during, terminal.lines(), terminal.raw())
}

/// Two calls are done, one fails, and the fourth waits.
const CALLS: &str = r#"exec -j1 -c 'echo out $1; [ $1 != 3 ] || exit 1; [ $1 != 4 ] || until [ -e "$TMPDIR/go" ]; do sleep 0.01; done' ::: 1 2 3 4"#;

#[test]
fn a_bar_stands_below_the_results_and_is_gone_in_the_end() {
    let (during, after, _) = run(
        100,
        &format!("\"$C\" {CALLS}; echo the end"),
        &["out 4", "1 failed · 1 running"],
    );
    assert_eq!(
        during[..4],
        ["out 1", "out 2", "out 3", "out 4"],
        "{during:?}"
    );
    assert!(
        during[4].contains("3/4 · 1 failed · 1 running"),
        "{during:?}"
    );
    assert_eq!(during.len(), 5, "{during:?}");
    assert!(!after.iter().any(|line| line.contains("3/4")), "{after:?}");
}

/// Each time it is drawn, bar and text are of the same moment; and it is drawn when there is news, not at each look.
#[test]
fn a_bar_is_drawn_as_a_whole_and_seldom() {
    let line = "\"$C\" exec -j1 -- sleep ::: 0.5 0.5 0.5 0.5; echo the end";
    let (.., raw) = run(100, line, &["the end"]);
    let frames: Vec<&str> = raw
        .split('\r')
        .filter(|frame| frame.contains("00:00:"))
        .collect();
    assert!((3..60).contains(&frames.len()), "{} frames", frames.len());
    for frame in frames {
        let done = frame
            .split("/4 · ")
            .next()
            .and_then(|before| before.chars().last());
        let done = done.and_then(|digit| digit.to_digit(10));
        assert!(done.is_some(), "{frame:?}");
        // The bar has only light fields until a call is done.
        assert_eq!(frame.contains('█'), done > Some(0), "{frame:?}");
        assert!(done == Some(0) || !frame.contains(" 0.0/s"), "{frame:?}");
    }
}

#[test]
fn on_a_narrow_terminal_the_bar_is_one_line() {
    let (during, ..) = run(
        30,
        &format!("\"$C\" {CALLS}; echo the end"),
        &["out 4", "1 failed · 1 running"],
    );
    assert!(during[4].starts_with("3/4 · 1 failed"), "{during:?}");
    assert_eq!(during.len(), 5, "{during:?}");
}

#[test]
fn there_is_no_bar_where_it_would_be_in_the_way() {
    // Who reads the results may show them on the same terminal.
    let piped = format!("\"$C\" {CALLS} | cat; echo the end");
    // Somebody types at the shell. In the foreground, the bar would be drawn by now.
    let behind = format!("set -m; \"$C\" {CALLS} & wait; echo the end");
    let simple = format!("TERM=dumb \"$C\" {CALLS}; echo the end");
    for line in [piped, behind, simple] {
        let (during, after, raw) = run(100, &line, &["out 3"]);
        assert!(
            !raw.contains("/4 ·") && !raw.contains("running"),
            "{line}: {raw}"
        );
        assert_eq!(
            during[..3],
            ["out 1", "out 2", "out 3"],
            "{line}: {during:?}"
        );
        assert_eq!(
            raw.contains("\u{1b}[31m"),
            !line.starts_with("TERM"),
            "{line}: {raw}"
        );
        assert!(
            after.iter().any(|line| line.contains("input \"3\"")),
            "{line}: {after:?}"
        );
    }
}

#[test]
fn what_others_wrote_does_nothing_to_a_terminal() {
    let escape = "$'\\e[2J\\e]0;title\\a\\u202e'";
    let lines = [
        // An input that fails, and is named.
        format!("\"$C\" exec --tag -c 'echo x; exit 1' ::: {escape}1; echo the end"),
        // A command of this name.
        format!("\"$C\" exec -- {escape}; echo the end"),
        // A task's error, and a file's name.
        format!("\"$C\" map {escape} ::: 1; echo the end"),
        format!("\"$C\" report {escape}; echo the end"),
        format!("\"$C\" exec -a {escape} -- true; echo the end"),
        format!("\"$C\" exec --dry-run -- echo ::: {escape}; echo the end"),
        format!("\"$C\" exec {escape}; echo the end"),
        format!("\"$C\" --{escape}; echo the end"),
    ];
    for line in lines {
        let (_, _, raw) = run(100, &line, &["the end"]);
        for bad in ["\u{1b}[2J", "\u{1b}]0", "\u{202e}"] {
            assert!(!raw.contains(bad), "{line}: {raw:?}");
        }
    }
}

#[test]
fn a_report_that_nobody_named_replaces_a_report_and_nothing_else() {
    let line = r#"cd "$TMPDIR"; "$C" exec --log log -- true ::: 1; echo mine > other; echo mine > log.html
        "$C" report log || echo first $?
        rm log.html; ln -s other log.html; "$C" report log || echo second $?
        cat other; rm log.html; "$C" report log && "$C" report log && grep -c '<html' log.html
        "$C" report --trace log && "$C" report --trace log; echo the end"#;
    let (_, lines, raw) = run(100, line, &["the end"]);
    assert!(raw.contains("no report: choose a name with -o"), "{raw}");
    for part in ["first 3", "second 3", "mine", "1", "the end"] {
        assert!(lines.iter().any(|line| line == part), "{part}: {lines:?}");
    }
    assert_eq!(raw.matches("wrote log.html").count(), 2, "{raw}");
    assert_eq!(raw.matches("wrote log.trace.json").count(), 2, "{raw}");
}
