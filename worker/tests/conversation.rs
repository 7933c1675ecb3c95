//! The worker's side of a conversation, with the `worker` binary and no coordinator.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and prints"
)]

mod support;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use protocol::LinkError;
use protocol::frame::Caps;
use protocol::handshake::{self, HandshakeError, Token};
use protocol::message::{Batch, Encoding, Reply, ToWorker, Verdict, Welcome};

use support::{Place, SLOT, Worker, admit, complaint, ended, worker};

fn square_of(x: i64) -> Vec<u8> {
    postcard::to_stdvec(&x).unwrap()
}

/// A batch of calls with inputs of these lengths.
fn batch(task: &str, encoding: Encoding, lens: &[u32]) -> Batch {
    Batch {
        serial: 0,
        task: task.to_owned(),
        types: None,
        encoding,
        first: 0,
        attempt: 1,
        lens: lens.iter().copied().collect(),
    }
}

fn value(output: &[u8]) -> i64 {
    postcard::from_bytes(output).unwrap()
}

#[test]
fn it_says_who_it_is_and_what_it_can_run() {
    let worker = Worker::start(worker());
    assert_eq!(worker.hello.pid, worker.child.id());
    let mut names: Vec<_> = worker.hello.tasks.iter().map(|task| &task.name).collect();
    let square = worker.hello.tasks.iter().find(|task| task.name == "square");
    let square = square.unwrap();
    assert_eq!(square.signature, "fn square(x: i64) -> Result<i64, String>");
    assert_eq!(square.doc, "Squares a number.");
    let listed = names.clone();
    names.sort();
    names.dedup();
    assert_eq!(listed, names, "sorted, and each once");
}

#[test]
fn calls_are_answered_in_order_batch_after_batch() {
    let mut worker = Worker::start(worker());
    for (first, count) in [(0, 1), (1, 100), (1 << 40, 7), (5, 0), (u64::MAX - 9, 8)] {
        let inputs: Vec<_> = (0..count).map(square_of).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        worker.send("square", Encoding::Postcard, first, &inputs);
        let answers = worker.answers();
        for (x, call) in (0..count).zip(answers.calls) {
            assert_eq!(call.verdict, Verdict::Value);
            assert_eq!(value(&call.output), x * x);
        }
    }
}

#[test]
fn a_call_that_fails_or_cannot_be_read_costs_itself() {
    let mut worker = Worker::start(worker());
    let too_long = [square_of(2), vec![0]].concat();
    let inputs = [
        square_of(2),
        square_of(i64::MAX),
        Vec::new(),
        too_long,
        square_of(3),
    ];
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    worker.send("square", Encoding::Postcard, 0, &inputs);
    let mut calls = worker.answers().calls;
    let last = calls.pop().unwrap();
    assert_eq!((last.verdict, value(&last.output)), (Verdict::Value, 9));
    let said: Vec<_> = calls[1..]
        .iter()
        .map(|call| match &call.verdict {
            Verdict::Failed(why) => format!("failed: {why}"),
            Verdict::Undecodable(why) => format!("undecodable: {why}"),
            other => panic!("{other:?}"),
        })
        .collect();
    let no_input = "undecodable: this is no input for `fn square(x: i64) -> Result<i64, String>`: ";
    assert_eq!(
        said[0],
        "failed: the square of 9223372036854775807 does not fit into 64 bits"
    );
    assert!(said[1].starts_with(no_input), "{}", said[1]);
    assert_eq!(said[2], format!("{no_input}1 bytes too many"));
}

#[test]
fn an_unknown_task_is_answered_call_by_call() {
    let mut worker = Worker::start(worker());
    worker.send("cube", Encoding::Postcard, 4, &[&[1], &[2]]);
    let answers = worker.answers();
    assert_eq!(answers.calls.len(), 2);
    for call in answers.calls {
        let Verdict::Undecodable(why) = call.verdict else {
            panic!("{:?}", call.verdict);
        };
        assert!(
            why.starts_with("this worker has no task named `cube`; it has "),
            "{why}"
        );
        assert!(
            why.contains("count_primes") && why.contains("square"),
            "{why}"
        );
    }
    assert_eq!(worker.call("square", "3"), (Verdict::Value, "9".to_owned()));
}

#[test]
fn types_that_do_not_match_are_found_before_anything_is_misread() {
    let mut worker = Worker::start(worker());
    let mut verdict = |types: &str| {
        let input = square_of(7);
        let batch = batch("square", Encoding::Postcard, &[input.len() as u32]);
        let types = Some(types.to_owned());
        worker.send_batch(Batch { types, ..batch }, &[&input]);
        worker.answer().verdict
    };
    assert_eq!(verdict("(i64) -> Result<i64, String>"), Verdict::Value);
    let Verdict::Undecodable(why) = verdict("(u64) -> u64") else {
        panic!("it ran");
    };
    assert_eq!(
        why,
        "the coordinator knows `square` as (u64) -> u64, this worker as (i64) -> Result<i64, \
         String>: build both from the same source"
    );
}

#[test]
fn text_is_json_or_else_a_string() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "two words").unwrap();
    let path = file.path().to_str().unwrap();
    let mut worker = Worker::start(worker());
    let value = |output: &str| (Verdict::Value, output.to_owned());
    assert_eq!(worker.call("square", "-7"), value("49"));
    assert_eq!(worker.call("square", " 7\n"), value("49"));
    assert_eq!(worker.call("word_count", path), value("2"));
    assert_eq!(worker.call("word_count", &format!("{path:?}")), value("2"));
    assert_eq!(worker.call("sleep", "0"), value(""));
    assert_eq!(worker.call("child", ""), value(""));
    assert_eq!(worker.call("child", "null"), value(""));
    for (task, input) in [
        ("square", "seven"),
        ("square", "[7]"),
        ("square", ""),
        ("child", "7"),
    ] {
        let (verdict, output) = worker.call(task, input);
        assert!(matches!(verdict, Verdict::Undecodable(_)), "{verdict:?}");
        assert_eq!(output, "");
    }
}

#[test]
fn replies_say_how_much_has_been_printed() {
    let mut file = tempfile::tempfile().unwrap();
    let stdout = file.try_clone().unwrap();
    let mut worker = Worker::start_with(worker(), |command| command.stdout(stdout));
    worker.send("print_number", Encoding::Text, 0, &[b"1", b"x", b"23"]);
    let lengths = worker.answers().printed();
    let (first, second) = (
        "Process 1: My number is 1\n",
        "Process 23: My number is 23\n",
    );
    let one = first.len() as u64;
    let both = one + second.len() as u64;
    // Stderr is a pipe here, whose length says nothing.
    assert_eq!(lengths, [(0, (one, 0)), (1, (one, 0)), (2, (both, 0))]);
    worker.hang_up();
    let mut printed = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, format!("{first}{second}"));
}

#[test]
fn what_is_only_checked_is_not_run() {
    let mut file = tempfile::tempfile().unwrap();
    let stdout = file.try_clone().unwrap();
    let mut worker = Worker::start_with(worker(), |command| command.stdout(stdout));
    worker.send("print_number", Encoding::Check, 0, &[b"1", b"x", b"23"]);
    let answers = worker.answers();
    // The one that is no input is told by itself.
    assert_eq!(answers.printed(), [(1, (0, 0))]);
    assert_eq!(answers.outputs(), [b"", b"", b""]);
    worker.hang_up();
    let mut printed = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "");
}

#[test]
fn it_leaves_with_the_exit_code_it_is_told() {
    for code in [0, 7, 255] {
        let mut worker = Worker::start(worker());
        worker.link.send(&ToWorker::Exit(code), &[]).unwrap();
        let output = ended(worker.child);
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn it_leaves_quietly_when_the_coordinator_is_gone() {
    let idle = Worker::start(worker()).hang_up();
    assert_eq!(idle.status.code(), Some(0));
    assert!(idle.stderr.is_empty());

    // Gone while it runs: there is no one to reply to.
    let mut busy = Worker::start(worker());
    busy.send("square", Encoding::Text, 0, &[b"1".as_slice(); 1000]);
    let busy = busy.hang_up();
    assert_eq!(busy.status.code(), Some(0));
    assert!(busy.stderr.is_empty());
}

#[test]
fn one_that_is_not_let_in_says_why() {
    type Presented = fn(&mut std::process::Command) -> &mut std::process::Command;
    let wrong_token: Presented = |command| command.env("COORDINATOR_TOKEN", "07");
    let right_token: Presented = |command| command;
    let version = HandshakeError::Version { theirs: 99 };
    let cases = [
        (
            wrong_token,
            None,
            "the coordinator refused this worker: wrong token: copy the whole line",
        ),
        (
            right_token,
            Some(version),
            "build both from the same source",
        ),
    ];
    for (present, verdict, wanted) in cases {
        let place = Place::new();
        let name = place.name();
        let token = place.token.clone();
        let child = present(&mut place.command(worker())).spawn().unwrap();
        let (mut link, _directory) = place.accept();
        let received = handshake::receive(&mut link, &token);
        let why = verdict.unwrap_or_else(|| received.unwrap_err());
        handshake::refuse(&mut link, &why);
        let said = complaint(&ended(child));
        assert!(said.contains(wanted), "{said}");
        assert!(
            said.starts_with(&format!("cannot work for {}: ", name.display())),
            "{said}"
        );
    }
}

#[test]
fn a_coordinator_that_sends_rubbish_ends_it() {
    let said = |message: ToWorker, payload: &[u8]| {
        let mut worker = Worker::start(worker());
        worker.link.send(&message, &[payload]).unwrap();
        complaint(&ended(worker.child))
    };
    let again = said(
        ToWorker::Welcome(Welcome {
            slot: SLOT,
            board: false,
        }),
        &[],
    );
    assert!(again.contains("out of turn"), "{again}");
    let place = Place::new();
    let child = place.command(worker()).spawn().unwrap();
    let (mut link, _directory) = place.accept();
    link.send(&"HTTP/1.1 400 Bad Request", &[]).unwrap();
    let said = complaint(&ended(child));
    assert!(said.contains("sent rubbish"), "{said}");
}

#[test]
fn a_batch_that_does_not_add_up_is_refused_before_its_first_call() {
    for (lengths, says) in [
        ([1, 10].as_slice(), "2 calls whose inputs are 11 bytes"),
        (&[1], "1 calls whose inputs are 1 bytes"),
        (&[], "0 calls whose inputs are 0 bytes"),
        // In 32 bits these add up.
        (
            &[1, u32::MAX, 2],
            "3 calls whose inputs are 4294967298 bytes",
        ),
    ] {
        let mut worker = Worker::start(worker());
        worker.send_batch(batch("square", Encoding::Text, lengths), &[b"77"]);
        let heard = worker.link.receive::<Reply>(Caps::FULL);
        assert!(heard.is_err(), "a call ran: {heard:?}");
        assert_eq!(worker.black_box.progress().started, 0);
        let said = complaint(&ended(worker.child));
        let says = format!("a batch of {says}, in a payload of 2");
        assert!(said.ends_with(&says), "{said}");
    }
}

#[test]
fn without_its_black_box_a_worker_runs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let short = directory.path().join("short");
    std::fs::write(&short, "short").unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for (path, says) in [
        (
            None,
            "did not come: this process has no room for further files",
        ),
        (Some(directory.path()), "can't be mapped: "),
        (Some(&short), "can't be mapped: the black box is too short"),
        (Some(&empty), "can't be mapped: "),
    ] {
        let place = Place::new();
        let name = place.name();
        let child = place.command(worker()).spawn().unwrap();
        let token = place.token.clone();
        let (mut link, _directory) = place.accept();
        handshake::receive(&mut link, &token).unwrap();
        // It never says that it is ready.
        let open = |path: &Path| {
            let mut options = File::options();
            options.read(true).write(path.is_file()).open(path).unwrap()
        };
        let file = path.map(open);
        admit(&link, file.as_ref());
        let heard = handshake::await_ready(&mut link);
        assert!(matches!(heard, Err(LinkError::Closed)), "{heard:?}");
        let said = complaint(&ended(child));
        let begins = format!("cannot work for {}: the black box ", name.display());
        assert!(said.starts_with(&begins), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn where_no_coordinator_is_it_says_so() {
    let place = Place::new();
    let command = |change: fn(&mut std::process::Command, &Place)| {
        let mut command = place.command(worker());
        change(&mut command, &place);
        complaint(&ended(command.spawn().unwrap()))
    };
    let no_token = command(|command, _| {
        command.env_remove("COORDINATOR_TOKEN");
    });
    assert!(
        no_token.contains("COORDINATOR_TOKEN is not set: copy the whole line"),
        "{no_token}"
    );

    let mut nowhere = support::command(worker());
    nowhere
        .arg("--connect")
        .arg(place.name().with_file_name("nowhere"))
        .env("COORDINATOR_TOKEN", place.token.reveal());
    let nowhere = complaint(&ended(nowhere.spawn().unwrap()));
    assert!(
        nowhere.contains("no coordinator waits under this name"),
        "{nowhere}"
    );
}

#[test]
fn what_a_dead_coordinator_left_is_removed() {
    let place = Place::new();
    let name = place.name();
    // A second name for the socket, which the listener does not remove when it goes.
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("pool");
    std::fs::create_dir(&inner).unwrap();
    std::fs::hard_link(&name, inner.join("link")).unwrap();
    let mut command = support::command(worker());
    command
        .arg("--connect")
        .arg(inner.join("link"))
        .env("COORDINATOR_TOKEN", Token::from_random([1; 16]).reveal());
    let child = command.spawn().unwrap();
    let (link, _directory) = place.accept();
    drop(link);
    let said = complaint(&ended(child));
    assert!(said.contains("link"), "{said}");
    assert!(!inner.exists());
}
