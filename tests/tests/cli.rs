//! The command line, as a person or a shell script uses it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tests::run::{complains, coordinator, prints, stderr, stdout};

#[test]
fn without_a_command_it_demonstrates() {
    let output = coordinator(&[]).output();
    prints(&output, 0, "[1, 4, 9, 16, 25, 36, 49, 64]\n");
    assert_eq!(stderr(&output), "");
}

#[test]
fn alone_in_a_directory_it_is_its_own_worker() {
    let directory = TempDir::new().unwrap();
    let alone = directory.path().join("coordinator");
    std::fs::copy(tests::coordinator(), &alone).unwrap();
    let mut command = Command::new(&alone);
    let mut ran = None;
    // Another test's child may have inherited the copy's descriptor, until it executes its program.
    tests::eventually("the copy can be run", || {
        ran = command.env("RUST_LOG", "debug").output().ok();
        ran.is_some()
    });
    let output = ran.unwrap();
    prints(&output, 0, "[1, 4, 9, 16, 25, 36, 49, 64]\n");
    let said = format!("started {}", alone.display());
    // How many of the four get to start before the work is done depends on the machine.
    assert!(stderr(&output).contains("4 workers"), "{}", stderr(&output));
    assert!(stderr(&output).contains(&said), "{}", stderr(&output));
}

#[test]
fn map_prints_results_in_input_order() {
    prints(
        &coordinator(&["map", "square", ":::", "3", "-1", "2"]).output(),
        0,
        "9\n1\n4\n",
    );
}

#[test]
fn inputs_come_from_stdin_a_file_or_with_nul() {
    let run = || coordinator(&["map", "square", "-j2"]);
    prints(&run().with_input(b"1\n2\n3"), 0, "1\n4\n9\n");
    prints(&run().with_input(b""), 0, "");
    prints(
        &coordinator(&["map", "square", "-0"]).with_input(b"4\x005\0"),
        0,
        "16\n25\n",
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "6\n7\n").unwrap();
    let path = file.path().to_str().unwrap();
    prints(
        &coordinator(&["map", "square", "-a", path]).output(),
        0,
        "36\n49\n",
    );
    let options_first = ["map", "-j1", "square", "--input", path];
    prints(&coordinator(&options_first).output(), 0, "36\n49\n");
}

#[test]
fn an_input_with_every_odd_character_arrives_intact() {
    let directory = TempDir::new().unwrap();
    let odd = "My brother's 12\" *** record  (costs $$$).jpg";
    let path = directory.path().join(odd);
    std::fs::write(&path, "one two").unwrap();
    let output = coordinator(&["map", "word_count", ":::", path.to_str().unwrap()]).output();
    prints(&output, 0, "2\n");
    // An empty line in the middle is an input, and it is no file.
    let input = format!("{0}\n\n{0}\n", path.display());
    let output = coordinator(&["map", "word_count"]).with_input(input.as_bytes());
    prints(&output, 1, "2\n2\n");
    assert!(
        stderr(&output).contains("input \"\": call 2 of `word_count`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn four_processes_print_their_numbers_in_order() {
    let expected: String = (1..=4)
        .map(|n| format!("Process {n}: My number is {n}\n"))
        .collect();
    for _ in 0..5 {
        let run = coordinator(&["map", "print_number", "-j4", ":::", "1", "2", "3", "4"]);
        prints(&run.output(), 0, &expected);
    }
}

#[test]
fn hashes_are_those_of_sha256sum() {
    let directory = TempDir::new().unwrap();
    let names: Vec<_> = (0..20)
        .map(|n| directory.path().join(format!("file {n}")))
        .collect();
    for (n, name) in names.iter().enumerate() {
        std::fs::write(name, "x".repeat(n * 1000)).unwrap();
    }
    let lines: String = names
        .iter()
        .map(|name| format!("{}\n", name.display()))
        .collect();
    let ours = coordinator(&["map", "sha256"]).with_input(lines.as_bytes());
    let theirs = Command::new("sha256sum").args(&names).output().unwrap();
    let hashes: String = stdout(&theirs)
        .lines()
        .map(|line| format!("{}\n", &line[..64]))
        .collect();
    prints(&ours, 0, &hashes);
}

#[test]
fn results_come_before_the_inputs_end() {
    let mut run = coordinator(&["map", "square", "-j2"]);
    let mut child = run.command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 1..5 {
        writeln!(stdin, "{n}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), (n * n).to_string());
    }
    drop(stdin);
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_failing_call_is_named_and_the_others_go_on() {
    let output = coordinator(&["map", "square"]).with_input(b"1\n99999999999\nx\n4\n");
    prints(&output, 1, "1\n16\n");
    let lines: Vec<_> = stderr(&output).lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        lines[0].contains("input \"99999999999\": call 2 of `square`: failed: "),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("input \"x\": call 3 of `square`: this is no input"),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("coordinator: 2 of 4 calls did not succeed; it took "),
        "{lines:?}"
    );
    assert!(
        lines[3].ends_with("map square ::: 99999999999 x"),
        "{lines:?}"
    );
}

#[test]
fn a_closed_stdout_ends_the_run_quietly() {
    let mut run = coordinator(&["map", "square", "-j2"]);
    let mut child = run.command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let endless = std::thread::spawn(move || while writeln!(stdin, "2").is_ok() {});
    assert_eq!(lines.next().unwrap().unwrap(), "4");
    drop(lines); // head -1 leaves
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(141), ""));
    endless.join().unwrap();
    run.nothing_left();
}

#[test]
fn workers_can_be_started_by_hand() {
    let arguments = ["map", "square", ":::", "1", "2", "3", "--manual", "-j2"];
    let mut run = coordinator(&arguments);
    let mut child = run.command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut commands = Vec::new();
    while commands.len() < 2 {
        let line = lines.next().unwrap().unwrap();
        if line.starts_with("COORDINATOR_TOKEN=") {
            commands.push(line);
        }
    }
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    };
    let wrong = shell(&commands[0].replace("COORDINATOR_TOKEN=", "COORDINATOR_TOKEN=0")).output();
    let wrong = wrong.unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("wrong token"), "{}", stderr(&wrong));
    assert_eq!(stderr(&wrong).lines().count(), 1);
    let nowhere = shell(&format!("{}x", commands[0])).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(
        stderr(&nowhere).contains("no coordinator waits"),
        "{}",
        stderr(&nowhere)
    );

    let workers: Vec<_> = commands
        .iter()
        .map(|line| shell(line).spawn().unwrap())
        .collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "1\n4\n9\n");
    assert!(output.status.success());
    let codes: Vec<_> = workers
        .into_iter()
        .map(|worker| worker.wait_with_output().unwrap().status.code())
        .collect();
    // The run may be over before the second one is let in; then it says so, and leaves.
    assert!(codes.contains(&Some(0)), "{codes:?}");
    run.nothing_left();
}

#[test]
fn tasks_are_listed_with_their_documentation() {
    let output = coordinator(&["tasks"]).output();
    assert!(stdout(&output).contains("fn square(x: i64) -> Result<i64, String>"));
    assert!(stdout(&output).contains("Squares a number."));
    for task in [
        "print_number",
        "child",
        "sleep",
        "count_primes",
        "sha256",
        "word_count",
    ] {
        assert!(stdout(&output).contains(&format!("fn {task}(")), "{task}");
    }
}

#[test]
fn mistakes_get_one_clear_line() {
    let line = |arguments: &[&str]| coordinator(arguments).output();
    complains(
        &line(&["map", "nope", ":::", "1"]),
        2,
        "there is no task `nope`",
    );
    complains(&line(&["bogus"]), 2, "bogus");
    complains(&line(&["map"]), 2, "<TASK>");
    complains(&line(&["map", "square", "-j0", ":::", "1"]), 2, "--jobs");
    complains(&line(&["map", "square", "-a", "/nowhere"]), 2, "/nowhere");
    complains(&line(&["map", "square", "-a", "/"]), 2, "directory");
    complains(
        &line(&["map", "square", "-a", "x", ":::", "1"]),
        2,
        "not from both",
    );
    complains(&line(&["tasks", ":::", "1"]), 2, ":::");
    // `1` would be printed.
    complains(
        &line(&["map", "square", ":::", "1", "x", "y"]),
        2,
        "input \"x\": this is no input for `fn square(x: i64) -> Result<i64, String>`: invalid type: string \
         \"x\", expected i64; nothing was run",
    );
    complains(
        &line(&["map", "square", "--worker", "/nowhere", ":::", "1"]),
        3,
        "/nowhere",
    );
    complains(
        &line(&["map", "square", "--worker", "/bin/true", ":::", "1"]),
        3,
        "exited with code 0",
    );
    complains(
        &line(&["map", "nope", "--dry-run", ":::", "1"]),
        2,
        "there is no task `nope`",
    );
    complains(
        &line(&["map", "square", "--dry-run", ":::", "1", "x"]),
        2,
        "input \"x\"",
    );
    complains(&line(&["--connect", "x"]), 2, "COORDINATOR_TOKEN");
}

#[test]
fn help_fits_on_one_screen_and_its_short_form_on_half_of_one() {
    for command in ["map", "exec", "pipe"] {
        let output = coordinator(&[command, "-h"]).output();
        assert!(stdout(&output).lines().count() <= 12, "{}", stdout(&output));
        assert!(stdout(&output).contains(&format!("coordinator {command} --help")));
    }
    for arguments in [
        &["--help"][..],
        &["map", "--help"],
        &["exec", "-h"],
        &["pipe", "--help"],
        &["tasks", "--help"],
    ] {
        let output = coordinator(arguments).output();
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).lines().count() <= 24, "{}", stdout(&output));
        assert!(
            stdout(&output)
                .lines()
                .all(|line| line.chars().count() <= 100)
        );
    }
    let output = coordinator(&["--version"]).output();
    assert!(stdout(&output).starts_with("coordinator "));
}
