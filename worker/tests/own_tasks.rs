//! A program that is its own worker, with tasks that panic, print and return what can't be encoded.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and prints"
)]

mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;

use protocol::message::{Encoding, Panic, Verdict};
use serde::ser::{Serialize, Serializer};
use worker::task;

use support::{SLOT, Worker, command, ended, this_program};

const PANICS_AT: u32 = line!() + 3;
#[task]
fn explode(how: String) -> u32 {
    panic!("it said {how}")
}

#[task]
fn panic_with_a_number() {
    std::panic::panic_any(42)
}

#[task]
fn rethrow() {
    std::panic::resume_unwind(Box::new("from elsewhere"))
}

/// A panic that the task itself survives is no verdict.
#[task]
fn catch() -> u32 {
    let caught = std::panic::catch_unwind(|| panic!("on the way"));
    u32::from(caught.is_err())
}

/// Its first panic is over when it unwinds with something else.
#[task]
fn catch_and_rethrow() {
    let _ = std::panic::catch_unwind(|| panic!("on the way"));
    std::panic::resume_unwind(Box::new("from elsewhere"))
}

/// A panic of another thread is that thread's affair: it is printed as ever.
#[task]
fn other_thread() -> bool {
    std::thread::spawn(|| panic!("in another thread"))
        .join()
        .is_err()
}

/// Prints part of a line, from Rust, from C and to stderr.
#[task]
#[expect(unsafe_code, reason = "C's printf")]
fn print_parts(with_c: bool) {
    print!("part");
    eprint!("err");
    if with_c {
        // SAFETY: a string with a zero at its end, and no conversions in it.
        unsafe {
            libc::printf(c" and part".as_ptr());
        }
    }
}

#[task]
fn who_am_i() -> Option<(u32, u64, u32)> {
    worker::current().map(|current| (current.worker, current.index, current.attempt))
}

#[task]
fn keyed() -> BTreeMap<(u8, u8), u8> {
    BTreeMap::from([((1, 2), 3)])
}

/// Panics when half of it has been written.
#[derive(serde::Deserialize)]
struct Half;

impl Serialize for Half {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple as _;
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&1)?;
        panic!("half way");
    }
}

#[task]
fn half() -> Half {
    Half
}

#[task]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

#[task(name = "greeting.polite")]
fn greet(name: String) -> String {
    format!("Good day, {name}")
}

#[task]
fn nothing_at_all(_: ()) -> Option<u8> {
    None
}

fn main() -> ExitCode {
    support::main(&[
        ("a_panic_travels_whole", a_panic_travels_whole),
        (
            "panics_of_every_kind_are_verdicts",
            panics_of_every_kind_are_verdicts,
        ),
        ("a_panic_elsewhere_is_printed", a_panic_elsewhere_is_printed),
        ("unfinished_lines_are_counted", unfinished_lines_are_counted),
        ("a_call_knows_itself", a_call_knows_itself),
        (
            "what_cannot_be_encoded_costs_its_call",
            what_cannot_be_encoded_costs_its_call,
        ),
        (
            "payloads_of_every_size_come_back",
            payloads_of_every_size_come_back,
        ),
        (
            "a_panic_by_hand_is_told_and_exits_1",
            a_panic_by_hand_is_told_and_exits_1,
        ),
        ("results_by_hand_are_shown", results_by_hand_are_shown),
    ])
}

fn panic_of(verdict: Verdict) -> Panic {
    match verdict {
        Verdict::Panicked(panic) => panic,
        other => panic!("{other:?}"),
    }
}

fn a_panic_travels_whole() {
    let mut worker =
        Worker::start_with(this_program(), |command| command.env("RUST_BACKTRACE", "1"));
    let panic = panic_of(worker.call("explode", "boo").0);
    assert_eq!(panic.message, "it said boo");
    let place = format!("tests/own_tasks.rs:{PANICS_AT}:");
    assert!(panic.location.contains(&place), "{}", panic.location);
    assert!(panic.backtrace.contains("explode"), "{}", panic.backtrace);
    assert_eq!(
        worker.call("echo", "[1]"),
        (Verdict::Value, "[1]".to_owned())
    );
    // The coordinator tells of it; here it is not printed.
    assert!(worker.hang_up().stderr.is_empty());

    for value in [None, Some("0")] {
        let mut worker = Worker::start_with(this_program(), |command| match value {
            Some(value) => command.env("RUST_BACKTRACE", value),
            None => command,
        });
        assert_eq!(panic_of(worker.call("explode", "boo").0).backtrace, "");
    }
}

fn panics_of_every_kind_are_verdicts() {
    let mut worker = Worker::start(this_program());
    let number = panic_of(worker.call("panic_with_a_number", "").0);
    assert_eq!(number.message, "a panic with something other than a string");
    assert!(number.location.contains("own_tasks.rs:"));
    let rethrown = panic_of(worker.call("rethrow", "").0);
    assert_eq!(
        (&*rethrown.message, &*rethrown.location),
        ("from elsewhere", "")
    );
    // A panic that was caught leaves nothing behind, for this call or the next.
    assert_eq!(worker.call("catch", ""), (Verdict::Value, "1".to_owned()));
    for task in ["rethrow", "catch_and_rethrow"] {
        assert_eq!(panic_of(worker.call(task, "").0), rethrown);
    }
}

fn a_panic_elsewhere_is_printed() {
    let mut worker = Worker::start(this_program());
    assert_eq!(
        worker.call("other_thread", ""),
        (Verdict::Value, "true".to_owned())
    );
    let stderr = String::from_utf8(worker.hang_up().stderr).unwrap();
    assert!(stderr.contains("in another thread"), "{stderr}");
}

/// Also what stands in a buffer, of Rust's or of C's, belongs to the call that printed it.
fn unfinished_lines_are_counted() {
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let (out, err) = (stdout.try_clone().unwrap(), stderr.try_clone().unwrap());
    let mut worker = Worker::start_with(this_program(), |command| command.stdout(out).stderr(err));
    worker.send(
        "print_parts",
        Encoding::Text,
        0,
        &[b"false", b"true", b"false"],
    );
    let lengths = worker.answers().printed();
    assert_eq!(lengths, [(0, (4, 3)), (1, (17, 6)), (2, (21, 9))]);
}

fn a_call_knows_itself() {
    let mut worker = Worker::start(this_program());
    worker.send("who_am_i", Encoding::Text, 5, &[b"", b"null"]);
    let outputs: Vec<_> = [5, 6].map(|index| format!("[{SLOT},{index},1]")).into();
    assert_eq!(
        worker.answers().outputs(),
        [outputs[0].as_bytes(), outputs[1].as_bytes()]
    );
    assert_eq!(worker::current(), None, "this is no worker");
}

fn what_cannot_be_encoded_costs_its_call() {
    let mut worker = Worker::start(this_program());
    let (verdict, output) = worker.call("keyed", "");
    let Verdict::Undecodable(why) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(
        why,
        "the output of `keyed` could not be encoded: key must be a string"
    );
    assert_eq!(output, "");
    for encoding in [Encoding::Text, Encoding::Postcard] {
        worker.send("half", encoding, 0, &[b""]);
        assert_eq!(panic_of(worker.answer().verdict).message, "half way");
    }
    worker.send("keyed", Encoding::Postcard, 0, &[b""]);
    let answer = worker.answer();
    assert_eq!(
        (answer.verdict, answer.output),
        (Verdict::Value, vec![1, 1, 2, 3])
    );
}

fn payloads_of_every_size_come_back() {
    let mut worker = Worker::start(this_program());
    // Around what the reader takes in one read, what it trusts a length with, and what it keeps.
    for size in [
        0,
        1,
        (16 << 10) - 20,
        16 << 10,
        1 << 20,
        (1 << 20) + 1,
        20 << 20,
        3,
    ] {
        let bytes: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let input = postcard::to_stdvec(&bytes).unwrap();
        worker.send("echo", Encoding::Postcard, 0, &[&input]);
        let answer = worker.answer();
        assert_eq!(answer.verdict, Verdict::Value);
        assert!(answer.output == input, "{size} bytes came back as others");
    }
}

fn a_panic_by_hand_is_told_and_exits_1() {
    let child = command(this_program())
        .args(["call", "explode", "boo"])
        .spawn();
    let output = ended(child.unwrap());
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let first = stderr.lines().next().unwrap();
    assert!(
        first.starts_with("worker: explode: panicked at "),
        "{first}"
    );
    assert!(
        first.contains(&format!("own_tasks.rs:{PANICS_AT}:")),
        "{first}"
    );
    assert!(first.ends_with(": it said boo"), "{first}");
}

fn results_by_hand_are_shown() {
    let shown = |task: &str, input: &str| {
        let child = command(this_program()).args(["call", task, input]).spawn();
        let output = ended(child.unwrap());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(shown("greeting.polite", "Ada"), "Good day, Ada\n");
    assert_eq!(
        shown("greeting.polite", "\"Ada \\\"L\\\"\""),
        "Good day, Ada \"L\"\n"
    );
    assert_eq!(shown("nothing_at_all", ""), "null\n");
    assert_eq!(shown("echo", "[1, 2]"), "[1,2]\n");
    let child = command(this_program()).arg("tasks").spawn();
    let listed = String::from_utf8(ended(child.unwrap()).stdout).unwrap();
    assert!(
        listed.contains("greeting.polite: fn greet(name: String) -> String\n"),
        "{listed}"
    );
    assert!(
        listed.contains("fn nothing_at_all(_: ()) -> Option<u8>\n"),
        "{listed}"
    );
}
