//! The worker's command line, as a person uses it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and prints"
)]

mod support;

use std::process::{Output, Stdio};

use support::{command, complaint, ended, worker};

fn run(arguments: &[&str]) -> Output {
    ended(command(worker()).args(arguments).spawn().unwrap())
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// What it prints when all is well.
fn prints(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
    stdout(&output).to_owned()
}

#[test]
fn a_call_prints_its_result() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "abc").unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(prints(&["call", "square", "7"]), "49\n");
    assert_eq!(prints(&["call", "square", "-7"]), "49\n");
    assert_eq!(
        prints(&["call", "sha256", path]),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
    );
    assert_eq!(prints(&["call", "word_count", path]), "1\n");
    assert_eq!(
        prints(&["call", "print_number", "2"]),
        "Process 2: My number is 2\n"
    );
    assert_eq!(prints(&["call", "child"]), "Child process is running.\n");
    assert_eq!(prints(&["call", "sleep", "0"]), "");
}

#[test]
fn a_call_that_does_not_succeed_says_why_in_one_line() {
    for (arguments, wanted) in [
        (
            ["square", "4611686018427387904"],
            "worker: square: failed: the square of",
        ),
        (
            ["square", "x"],
            "worker: square: this is no input for `fn square(x: i64)",
        ),
        (
            ["word_count", "/nowhere"],
            "worker: word_count: failed: /nowhere: No such file",
        ),
        (["sleep", "-1"], "worker: sleep: failed: "),
    ] {
        let output = run(&["call", arguments[0], arguments[1]]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).starts_with(wanted), "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().count(), 1);
    }
}

#[test]
fn tasks_are_listed_one_a_line_in_columns() {
    let listed = prints(&["tasks"]);
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 10);
    assert!(lines.is_sorted());
    for line in &lines {
        assert!(line.starts_with("fn "), "{line}");
        assert_eq!(line.trim_end(), *line);
    }
    let square = lines.iter().find(|line| line.starts_with("fn square("));
    let (signature, doc) = square.unwrap().split_once("  ").unwrap();
    assert_eq!(signature, "fn square(x: i64) -> Result<i64, String>");
    assert_eq!(doc.trim_start(), "Squares a number.");
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["-h", "--help"] {
        let help = prints(&[flag]);
        for command in ["worker tasks", "worker call TASK", "worker --connect NAME"] {
            assert!(help.contains(command), "{help}");
        }
        assert!(help.lines().count() <= 24 && help.lines().all(|line| line.len() <= 80));
    }
    assert_eq!(
        prints(&["-V"]),
        concat!("worker ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_eq!(prints(&["--version"]), prints(&["-V"]));
}

#[test]
fn a_mistake_gets_one_line_and_what_to_do_instead() {
    for (arguments, wanted) in [
        (&[][..], "nothing to do; try: worker --help"),
        (&["squares"], "unexpected `squares`; try: worker --help"),
        (&["--nope"], "unexpected `--nope`; try: worker --help"),
        (
            &["tasks", "all"],
            "tasks takes no arguments; try: worker --help",
        ),
        (
            &["call"],
            "call needs a TASK; see: worker tasks; try: worker --help",
        ),
        (
            &["call", "power", "2", "10"],
            "call takes one INPUT; several parameters are an array: '[2, 10]'; try: worker --help",
        ),
        (
            &["--connect"],
            "--connect takes one NAME; try: worker --help",
        ),
        (
            &["--connect", "a", "b"],
            "--connect takes one NAME; try: worker --help",
        ),
        (
            &["call", "cube", "3"],
            "this worker has no task named `cube`; it has child, count_primes, exec, pipe, \
             pipe_open, print_number, sha256, sleep, square, word_count",
        ),
    ] {
        assert_eq!(complaint(&run(arguments)), wanted);
    }
}

#[test]
fn arguments_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let output = ended(command(worker()).arg(odd).spawn().unwrap());
    assert_eq!(
        complaint(&output),
        "unexpected `caf\u{fffd}`; try: worker --help"
    );
    let output = ended(command(worker()).arg("call").arg(odd).spawn().unwrap());
    assert!(complaint(&output).starts_with("this worker has no task named `caf\u{fffd}`"));

    // An input that is no text is no input, as it would be in a worker.
    let output = ended(
        command(worker())
            .args(["call", "word_count"])
            .arg(odd)
            .spawn()
            .unwrap(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("it is not UTF-8"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_stdout_that_takes_nothing_is_told_apart() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // As with `worker tasks | head -1`.
    let closed = ended(
        command(worker())
            .arg("tasks")
            .stdout(writer)
            .spawn()
            .unwrap(),
    );
    assert!(closed.status.success());
    assert_eq!(stderr(&closed), "");

    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let full = ended(
        command(worker())
            .arg("tasks")
            .stdout(Stdio::from(full))
            .spawn()
            .unwrap(),
    );
    assert_eq!(full.status.code(), Some(1));
    assert!(
        stderr(&full).starts_with("worker: cannot write to stdout: "),
        "{}",
        stderr(&full)
    );
    assert_eq!(stderr(&full).lines().count(), 1);
}
