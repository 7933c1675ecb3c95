//! Only ours get in, and a worker that sends rubbish costs itself, never the coordinator.
//!
//! `stranger` is a worker that is rude once, in the way that its file's name says.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use coordinator::{Builder, ByHand, CallError, Death, Output, Pool, PoolError, Why};
use protocol::Link;
use protocol::handshake::{self, TOKEN_VARIABLE, VERSION};
use protocol::message::Hello;
use tempfile::TempDir;
use tests::large::{self, Picture, Slow};
use tests::{eventually, tasks};

/// A worker's executable that is rude.
struct Stranger {
    program: PathBuf,
    _directory: TempDir,
}

impl Stranger {
    /// One that is rude in this way, at this start.
    fn new(way: &str) -> Self {
        // Beside the program itself, where it can have a second name.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = directory.path().join(way);
        std::fs::hard_link(env!("CARGO_BIN_EXE_stranger"), &program).unwrap();
        Stranger {
            program,
            _directory: directory,
        }
    }

    /// A pool of one worker.
    fn builder(&self) -> Builder {
        Pool::builder()
            .workers(1)
            .worker(&self.program)
            .grace(Duration::from_millis(100))
    }

    fn pool(&self) -> Pool {
        self.builder().build().unwrap()
    }

    fn was_started(&self, times: u32) -> bool {
        self.program.with_extension(times.to_string()).exists()
    }
}

type Outcome = Result<Vec<u8>, CallError>;

fn inputs(count: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|x| vec![x; 3])
}

/// A call has its own value, or its worker died.
fn right_or_lost((input, outcome): (Vec<u8>, &Outcome)) {
    match outcome {
        Ok(value) => assert_eq!(*value, input),
        Err(error) => assert!(matches!(error.why(), Why::Died(_)), "{error}"),
    }
}

#[test]
fn a_worker_that_answers_wrongly_costs_the_call_it_was_running() {
    let killed = Death::Signal(9);
    for (way, death, says) in [
        (
            "other-1",
            killed,
            "a reply to 1 calls from 1 on instead of from 0",
        ),
        ("empty-1", killed, "sent rubbish: a reply to no calls"),
        ("huge-1", killed, "4294967295 bytes, where 67108864 is"),
        ("noise-1", killed, "sent rubbish"),
        ("rubbish-1", killed, "sent rubbish"),
        ("trailing-1", killed, "no message: 1 bytes too many"),
        ("request-1", killed, "sent rubbish"),
        ("hangs-up-1", killed, "it closed its link"),
        ("half-1", Death::Exit(0), ""),
    ] {
        let stranger = Stranger::new(way);
        let pool = stranger.pool();
        let outcomes = pool.map_each(tasks::echo, inputs(5));
        let lost = outcomes[0].as_ref().unwrap_err();
        assert_eq!(*lost.why(), Why::Died(death), "{way}: {lost}");
        assert!(lost.to_string().contains(says), "{way}: {lost}");
        for (input, outcome) in inputs(5).zip(&outcomes).skip(1) {
            assert_eq!(outcome.as_ref().unwrap(), &input, "{way}");
        }
        assert_eq!(pool.stats().workers_died, 1, "{way}");
    }
}

#[test]
fn what_nobody_asked_for_is_no_answer() {
    for way in ["early-1", "twice-1"] {
        let stranger = Stranger::new(way);
        let pool = match stranger.builder().build() {
            Ok(pool) => pool,
            // It was heard before it was let in, and a pool whose first worker is that rude has none.
            Err(PoolError::CannotStart { .. }) if way == "early-1" => continue,
            Err(error) => panic!("{way}: {error}"),
        };
        let outcomes = pool.map_each(tasks::echo, inputs(5));
        inputs(5).zip(&outcomes).for_each(right_or_lost);
        // Its first answer was right. Of the next batch it has begun as many calls as it says.
        assert!(way == "early-1" || outcomes[0].is_ok(), "{way}");
        assert_eq!(pool.stats().workers_died, 1, "{way}");
    }
}

#[test]
fn rubbish_from_an_idle_worker_costs_no_more_than_the_next_call() {
    let stranger = Stranger::new("idle-1");
    let pool = stranger.pool();
    assert_eq!(pool.call(tasks::echo, vec![1]).unwrap(), [1]);
    eventually("it has said something while idle", || {
        stranger.program.with_extension("idle").exists()
    });
    let outcomes = pool.map_each(tasks::echo, inputs(5));
    inputs(5).zip(&outcomes).for_each(right_or_lost);
    assert!(outcomes[1..].iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(pool.stats().workers_died, 1);
}

#[test]
fn a_value_that_is_none_costs_its_call_and_not_the_worker() {
    for (way, says) in [("value-1", "end"), ("longer-1", "1 bytes too many")] {
        let stranger = Stranger::new(way);
        let pool = stranger.pool();
        let outcomes = pool.map_each(tasks::echo, inputs(3));
        let error = outcomes[0].as_ref().unwrap_err();
        let Why::Undecodable(why) = error.why() else {
            panic!("{way}: {error}");
        };
        let start = "the output of `echo` could not be decoded: ";
        assert!(why.starts_with(start) && why.contains(says), "{why}");
        for (input, outcome) in inputs(3).zip(&outcomes).skip(1) {
            assert_eq!(outcome.as_ref().unwrap(), &input, "{way}");
        }
        assert_eq!(pool.stats().workers_died, 0, "{way}");
    }
}

#[test]
fn a_worker_that_boasts_of_its_time_and_its_output_harms_nobody() {
    for output in [Output::Capture, Output::Forward, Output::Null] {
        let stranger = Stranger::new("boasts-1");
        let pool = stranger.builder().output(output).build().unwrap();
        let expected: Vec<_> = inputs(5).collect();
        assert_eq!(pool.map(tasks::echo, inputs(5)).unwrap(), expected);
        assert_eq!(pool.stats().workers_died, 0);
    }
}

#[test]
fn one_that_stalls_or_hears_nothing_is_ended_by_the_deadline() {
    for way in ["stalls-1", "deaf-1"] {
        let stranger = Stranger::new(way);
        let pool = stranger.pool();
        let limit = Duration::from_millis(300);
        // More than a socket takes while nobody reads it.
        let much = vec![7; 8 << 20];
        let error = pool.with().timeout(limit).call(tasks::echo, much.clone());
        let error = error.unwrap_err();
        assert_eq!(*error.why(), Why::TimedOut(limit), "{way}: {error}");
        assert_eq!(pool.stats().workers_died, 1, "{way}: it was tried again");
        assert_eq!(pool.call(tasks::echo, much.clone()).unwrap(), much, "{way}");
    }
}

#[test]
fn a_worker_that_greets_wrongly_costs_one_start() {
    for way in [
        "greets-with-noise-2",
        "greets-hugely-2",
        "greets-by-half-2",
        "greets-shortly-2",
        "greets-wrongly-2",
        "version-2",
        "token-2",
    ] {
        let stranger = Stranger::new(way);
        let pool = stranger.pool();
        pool.call(tasks::exit_with, 7).unwrap_err();
        assert_eq!(pool.call(tasks::square, 3).unwrap(), 9, "{way}");
        assert!(stranger.was_started(3), "{way}");
        assert_eq!(pool.stats().workers_started, 2, "{way}");
    }
}

#[test]
fn a_pool_whose_first_worker_greets_wrongly_says_so() {
    for (way, says) in [
        ("version-1", "build both from the same source"),
        ("token-1", "wrong token"),
        ("greets-with-noise-1", "it exited with code 2 before"),
    ] {
        let stranger = Stranger::new(way);
        let error = stranger.builder().build().unwrap_err();
        assert!(matches!(error, PoolError::CannotStart { .. }), "{error}");
        assert!(error.to_string().contains(says), "{way}: {error}");
    }
}

#[test]
fn another_process_is_not_let_in_for_a_worker_even_with_its_token() {
    let stranger = Stranger::new("deputy-1");
    let pool = stranger.pool();
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    // It went on honestly only because its deputy was turned away.
    assert!(!stranger.was_started(2));
}

#[test]
fn in_a_pool_of_nothing_but_rude_workers_no_call_has_a_wrong_value() {
    let stranger = Stranger::new("all-0");
    let builder = stranger.builder().workers(3);
    let pool = builder
        .restart_limit(1000, Duration::from_secs(1))
        .build()
        .unwrap();
    let mut right = 0;
    for (input, outcome) in inputs(100).zip(pool.map_each(tasks::echo, inputs(100))) {
        match outcome {
            Ok(value) => {
                assert_eq!(value, input);
                right += 1;
            }
            Err(error) => assert!(
                matches!(error.why(), Why::Died(_) | Why::Undecodable(_)),
                "{error}"
            ),
        }
    }
    assert!(right > 0);
    pool.close();
    pool.join().unwrap();
}

/// What the command line says of a map, line by line, with the coordinator's warnings.
fn warned(way: &str, inputs: &[&str]) -> (String, Vec<String>) {
    let stranger = Stranger::new(way);
    // From a file they are not looked at beforehand: the first batch is that of the run.
    let file = stranger.program.with_extension("inputs");
    std::fs::write(&file, inputs.join("\n")).unwrap();
    let output = Command::new(tests::coordinator())
        .args(["map", "square_but_die", "-j1", "--worker"])
        .arg(&stranger.program)
        .arg("-a")
        .arg(&file)
        .env("RUST_LOG", "warn")
        .env_remove("COORDINATOR_WORKER")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let warnings = stderr.lines().filter(|line| line.contains("WARN"));
    let warnings = warnings.map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), warnings)
}

#[test]
fn each_costs_one_line_in_the_log() {
    for (way, says) in [
        ("greets-with-noise-2", "turned away: the other side sent"),
        ("greets-by-half-2", "turned away: the link broke: "),
        ("greets-shortly-2", "it does not speak this protocol"),
        ("version-2", "the worker speaks protocol version 99"),
        ("token-2", "turned away: wrong token"),
        ("silent-2", "kept the link waiting for too long"),
    ] {
        // The first worker dies of the second call.
        let (stdout, warnings) = warned(way, &["[2,0]", "[3,3]", "[4,0]"]);
        assert_eq!(stdout, "4\n16\n", "{way}: {warnings:?}");
        assert_eq!(warnings.len(), 1, "{way}: {warnings:?}");
        assert!(warnings[0].contains(says), "{way}: {warnings:?}");
    }
    for (way, says) in [
        ("other-1", "sent rubbish: a reply to 1 calls from 1 on"),
        (
            "huge-1",
            "sent rubbish: a part of 4294967295 bytes, where 67108864",
        ),
    ] {
        let (stdout, warnings) = warned(way, &["[2,0]", "[4,0]"]);
        assert_eq!(stdout, "16\n", "{way}: {warnings:?}");
        assert_eq!(warnings.len(), 1, "{way}: {warnings:?}");
        assert!(warnings[0].contains(says), "{way}: {warnings:?}");
    }
}

/// A pool of one worker that is started by hand, and how.
fn by_hand() -> (Pool, ByHand, Receiver<ByHand>) {
    let (tell, told) = mpsc::channel();
    let pool = Pool::builder()
        .workers(1)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .by_hand(move |how| {
            // After the test nobody listens.
            let _ = tell.send(how.clone());
        })
        .build()
        .unwrap();
    let how = told.recv().unwrap();
    (pool, how, told)
}

/// Starts a worker as a person would.
fn start(how: &ByHand) -> Child {
    Command::new(&how.program)
        .arg("--connect")
        .arg(&how.connect)
        .env(TOKEN_VARIABLE, &how.token)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// The pool works, and its worker leaves with it.
fn works_and_ends(pool: &Pool, mut worker: Child) {
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    let pid = pool.call(tasks::pid, ()).unwrap();
    assert_eq!(pid, worker.id(), "not the rightful one");
    pool.close();
    pool.join().unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

/// What a stranger hears until the coordinator hangs up.
fn heard(mut stream: UnixStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        // It hung up before it had read everything.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn strangers_are_turned_away_and_told_why() {
    let (pool, how, _told) = by_hand();
    let connect = || UnixStream::connect(&how.connect).unwrap();
    let header = |len: u8| [len, 0, 0, 0, 0, 0, 0, 0];
    let another = [b"COOR".as_slice(), &(VERSION + 1).to_le_bytes()].concat();
    for (says, hears) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "where 1048576 is the"),
        (vec![0xff; 8], "a part of 4294967295 bytes"),
        ([&header(3)[..], b"COO"].concat(), "does not speak this"),
        ([&header(6)[..], b"RUBISH"].concat(), "does not speak this"),
        ([&header(6)[..], &another].concat(), "the worker speaks"),
        (header(0).to_vec(), "does not speak this"),
    ] {
        let mut stream = connect();
        stream.write_all(&says).unwrap();
        let heard = heard(stream);
        assert!(heard.contains(hears), "{says:?}: {heard:?}");
    }
    // Gone before anything was said, or in the middle of it.
    drop(connect());
    connect().write_all(&header(100)).unwrap();

    for token in ["", "0", &how.token[1..], &how.token.replace('0', "1")[..31]] {
        let hello = Hello {
            token: token.to_owned(),
            pid: 1,
            tasks: Vec::new(),
            build: String::new(),
            shares: true,
        };
        let error = handshake::introduce(&mut Link::new(connect()), &hello).unwrap_err();
        assert!(error.to_string().contains("wrong token"), "{error}");
    }
    works_and_ends(&pool, start(&how));
}

#[test]
fn strangers_that_say_nothing_do_not_keep_the_worker_out() {
    let (pool, how, _told) = by_hand();
    let silent = || UnixStream::connect(&how.connect).unwrap();
    let silent: Vec<UnixStream> = (0..100).map(|_| silent()).collect();
    let began = Instant::now();
    works_and_ends(&pool, start(&how));
    // Each has five seconds to say who it is. None of them is waited for.
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn once_the_worker_is_in_there_is_no_door() {
    let (pool, how, _told) = by_hand();
    let worker = start(&how);
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    let error = UnixStream::connect(&how.connect).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!how.connect.parent().unwrap().exists());
    works_and_ends(&pool, worker);
}

#[test]
fn what_a_worker_by_hand_reads_stays_though_nobody_knows_whether_it_lives() {
    let (pool, how, told) = by_hand();
    let mut reader = start(&how);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let slow = pool.submit(large::take_slowly, Slow::new(directory.path(), 1 << 20));
    eventually("it is being read", || file("reads").exists());
    slow.cancel();
    assert_eq!(*slow.wait().unwrap_err().why(), Why::Cancelled);
    let other = start(&told.recv().unwrap());
    for number in 0..20 {
        let picture = Picture::new(number, 1 << 20);
        assert!(pool.call(large::give_back, (picture.clone(), 0)).unwrap() == picture);
    }
    fs::write(file("go"), "").unwrap();
    eventually("it has been read", || file("now").exists());
    assert_eq!(fs::read_to_string(file("now")).unwrap(), "same");
    reader.wait().unwrap();
    works_and_ends(&pool, other);
}
