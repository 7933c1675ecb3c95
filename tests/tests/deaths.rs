//! P3 and P4: a worker that dies costs the call it was running and nothing else, whatever it dies
//! of and at whatever stage of the call.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use coordinator::{Death, Output, Pool, PoolError, Report, Why};
use rustix::process::Signal;
use support::{builder, pool};
use tempfile::TempDir;
use tests::ends::{self, End, Stage, Trap, Wrong};
use tests::processes::{pids_in, processes_with, signal};
use tests::{eventually, is_alive, script, tasks};

/// Squares 0 to 29 in two workers, two of which calls meet this end, and checks all that there is to
/// know of each call. The errors' notes are returned.
fn two_of_thirty_end(end: End, death: Death) -> Vec<Option<String>> {
    let directory = TempDir::new().unwrap();
    let ledger = directory.path().join("ledger");
    let pool = builder(2).output(Output::Capture).build().unwrap();
    let (inputs, reports) = pool.with().open(ends::square_or_end);
    let inputs = inputs.unwrap();
    for x in 0..30 {
        let end = [11, 17].contains(&x).then_some(end);
        inputs.send((x, end, ledger.clone())).unwrap();
    }
    drop(inputs);
    let reports: Vec<Report<i64>> = reports.collect();

    // Each call ran once, in the worker that its report names.
    let ledger = std::fs::read_to_string(ledger).unwrap();
    let ran: HashMap<i64, u32> = ledger
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(x, pid)| (x.parse().unwrap(), pid.parse().unwrap()))
        .collect();
    assert_eq!((ledger.lines().count(), ran.len()), (30, 30), "{ledger}");
    assert_eq!(reports.len(), 30);
    let mut notes = Vec::new();
    for (x, report) in (0..).zip(reports) {
        assert_eq!((report.index, report.attempts), (x as u64, 1));
        assert_eq!(report.worker, Some(ran[&x]));
        if ![11, 17].contains(&x) {
            assert_eq!(report.result.unwrap(), x * x);
            continue;
        }
        let error = report.result.unwrap_err();
        assert_eq!(*error.why(), Why::Died(death), "{error}");
        assert_eq!((error.task(), error.index()), ("square_or_end", x as u64));
        assert_eq!((error.attempts(), error.worker()), (1, Some(ran[&x])));
        assert!(error.elapsed() >= Duration::from_millis(5), "{error}");
        let last_words = format!("{x} says goodbye\n");
        assert!(error.stderr().starts_with(&last_words), "{error}");
        let text = error.to_string();
        assert!(text.contains(&death.to_string()), "{text}");
        assert!(text.contains(&format!("worker {}", ran[&x])), "{text}");
        assert!(!is_alive(ran[&x]));
        notes.push(error.note().map(str::to_owned));
    }

    // Both are replaced, whether there is work or not, and the pool goes on.
    eventually("there are two workers", || pool.workers().len() == 2);
    assert_eq!(pool.stats().workers_died, 2);
    assert_eq!(pool.map(tasks::square, [2, 3]).unwrap(), [4, 9]);
    notes
}

#[test]
fn sigkill_costs_one_call() {
    two_of_thirty_end(End::Signal(libc::SIGKILL), Death::Signal(9));
}

#[test]
fn a_segfault_costs_one_call() {
    two_of_thirty_end(End::Segfault, Death::Signal(11));
}

#[test]
fn an_abort_costs_one_call() {
    two_of_thirty_end(End::Abort, Death::Signal(6));
}

#[test]
fn a_stack_overflow_costs_one_call() {
    two_of_thirty_end(End::StackOverflow, Death::Signal(6));
}

#[test]
fn an_exit_costs_one_call() {
    two_of_thirty_end(End::Exit(0), Death::Exit(0));
    two_of_thirty_end(End::Exit(3), Death::Exit(3));
    two_of_thirty_end(End::CExit(4), Death::Exit(4));
}

#[test]
fn a_worker_that_closes_its_link_costs_one_call() {
    for note in two_of_thirty_end(End::CloseLink, Death::Signal(9)) {
        assert_eq!(note.unwrap(), "it was killed because it closed its link");
    }
}

#[test]
fn a_worker_that_sends_rubbish_costs_one_call() {
    for note in two_of_thirty_end(End::Rubbish, Death::Signal(9)) {
        let note = note.unwrap();
        let expected = "it was killed because it sent rubbish: ";
        assert!(note.starts_with(expected), "{note}");
    }
}

/// The 16 cases of decoding the input, running, encoding the output and decoding it, and four more:
/// panics. What happens while the coordinator decodes stands in the test below.
#[test]
fn whatever_goes_wrong_at_any_stage_costs_one_call() {
    let pool = pool(2);
    for stage in [Stage::DecodeInput, Stage::Run, Stage::EncodeOutput] {
        for wrong in [
            Wrong::Error,
            Wrong::Panic,
            Wrong::End(End::Exit(5)),
            Wrong::End(End::CExit(6)),
            Wrong::End(End::Segfault),
        ] {
            let trap = |x| Trap((x == 2).then_some((stage, wrong)));
            let results = pool.map_each(ends::walk, (0..6).map(trap));
            for (x, result) in results.into_iter().enumerate() {
                let Err(error) = result else {
                    assert_ne!(x, 2, "{stage:?} {wrong:?}");
                    continue;
                };
                assert_eq!((error.index(), x, error.attempts()), (2, 2, 1), "{error}");
                match (wrong, stage, error.why()) {
                    (Wrong::Error, Stage::Run, Why::Failed(text)) => {
                        assert_eq!(text, "went wrong in Run");
                    }
                    (Wrong::Error, Stage::DecodeInput, Why::Undecodable(text)) => {
                        assert!(text.starts_with("this is no input for `fn walk("), "{text}");
                    }
                    (Wrong::Error, Stage::EncodeOutput, Why::Undecodable(text)) => {
                        let expected = "the output of `walk` could not be encoded";
                        assert!(text.starts_with(expected), "{text}");
                    }
                    (Wrong::Panic, _, Why::Panicked { message, .. }) => {
                        assert_eq!(*message, format!("panicked in {stage:?}"));
                    }
                    (Wrong::End(End::Exit(5)), _, Why::Died(Death::Exit(5)))
                    | (Wrong::End(End::CExit(6)), _, Why::Died(Death::Exit(6)))
                    | (Wrong::End(End::Segfault), _, Why::Died(Death::Signal(11))) => {}
                    (_, _, why) => panic!("{stage:?} {wrong:?}: {why:?}"),
                }
            }
        }
    }
    // Three ends at each of three stages; errors and panics cost no worker.
    assert_eq!(pool.stats().workers_died, 9);
}

#[test]
fn an_output_that_cannot_be_decoded_costs_one_call() {
    let pool = pool(1);
    let before = pool.call(tasks::pid, ()).unwrap();
    let fails = Trap(Some((Stage::DecodeOutput, Wrong::Error)));
    let results = pool.map_each(ends::walk, [Trap(None), fails, Trap(None)]);
    let [Ok(_), Err(error), Ok(_)] = &*results else {
        panic!("{results:?}")
    };
    let Why::Undecodable(text) = error.why() else {
        panic!("{error}")
    };
    let expected = "the output of `walk` could not be decoded";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!((error.index(), error.attempts()), (1, 1));
    // A panic there is the caller's own, and does the pool no harm.
    let panics = Trap(Some((Stage::DecodeOutput, Wrong::Panic)));
    let caught = catch_unwind(AssertUnwindSafe(|| pool.call(ends::walk, panics)));
    let message = caught.unwrap_err();
    assert_eq!(
        *message.downcast_ref::<String>().unwrap(),
        "panicked in DecodeOutput"
    );
    assert_eq!(pool.call(tasks::pid, ()).unwrap(), before);
}

/// What ends the coordinator while it decodes an output leaves nothing behind.
#[test]
fn a_coordinator_that_ends_while_decoding_leaves_nothing() {
    for (end, code, number) in [
        ("exit", Some(5), None),
        ("c-exit", Some(6), None),
        ("segfault", None, Some(11)),
    ] {
        let temporary = TempDir::new().unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_misbehave"))
            .args(["end-while-decoding", end])
            .env("TMPDIR", temporary.path())
            .status()
            .unwrap();
        assert_eq!((status.code(), status.signal()), (code, number), "{end}");
        eventually("its workers are gone", || {
            processes_with(temporary.path()).is_empty()
        });
        assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
    }
}

#[test]
fn a_death_with_half_of_a_large_output_sent_costs_one_call() {
    let pool = pool(2);
    let large = pool.submit(ends::die_while_sending, 100 << 20);
    let others = pool.map(tasks::square, 0..100).unwrap();
    assert_eq!(others, (0..100).map(|x| x * x).collect::<Vec<_>>());
    let error = large.wait().unwrap_err();
    assert_eq!(*error.why(), Why::Died(Death::Signal(9)), "{error}");
    assert_eq!(error.attempts(), 1);
    assert_eq!(pool.call(tasks::square, 5).unwrap(), 25);
}

/// A worker that dies before it has read its call has not begun it: nobody is charged.
#[test]
fn a_death_with_half_of_a_large_input_read_costs_nothing() {
    let pool = pool(1);
    assert_eq!(pool.call(tasks::square, 2).unwrap(), 4);
    let frozen = pool.workers()[0].pid;
    signal(frozen, Signal::STOP);
    let large = "x".repeat(100 << 20);
    let (inputs, mut reports) = pool.with().open(ends::length);
    inputs.unwrap().send(large).unwrap();
    // The rest of the input does not fit into the socket: it can't have been read.
    eventually("the call is on its way", || pool.stats().running == 1);
    signal(frozen, Signal::KILL);
    let report = reports.next().unwrap();
    assert_eq!(report.result.unwrap(), 100 << 20);
    assert_eq!(report.attempts, 1);
    assert_ne!(report.worker, Some(frozen));
}

#[test]
fn each_call_that_fails_has_an_error_of_its_own() {
    let pool = pool(3);
    let texts: Vec<String> = (0..50)
        .map(|n| format!("number {n} ").repeat(1000))
        .collect();
    let results = pool.map_each(tasks::fail, texts.clone());
    for ((index, text), result) in texts.into_iter().enumerate().zip(results) {
        let error = result.unwrap_err();
        assert_eq!(error.index(), index as u64);
        assert_eq!(*error.why(), Why::Failed(text));
    }
}

#[test]
fn queued_calls_finish_after_each_worker_has_died() {
    let pool = pool(2);
    let deadly: Vec<_> = (0..20)
        .map(|code| pool.submit(tasks::exit_with, code))
        .collect();
    let queued: Vec<_> = (0..20).map(|x| pool.submit(tasks::square, x)).collect();
    for (x, pending) in (0..).zip(queued) {
        assert_eq!(pending.wait().unwrap(), x * x);
    }
    for (code, pending) in (0..).zip(deadly) {
        let error = pending.wait().unwrap_err();
        assert_eq!(*error.why(), Why::Died(Death::Exit(code)));
    }
}

#[test]
fn the_children_of_a_worker_die_with_it() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("pids");
    let pool = pool(1);
    let pending = pool.submit(tasks::hold_out, file.clone());
    eventually("it and its child are there", || file.exists());
    let pids = pids_in(&file);
    // Only itself: its child has to be found.
    signal(pids[0], Signal::KILL);
    assert_eq!(
        *pending.wait().unwrap_err().why(),
        Why::Died(Death::Signal(9))
    );
    eventually("its child is gone", || !is_alive(pids[1]));
}

/// A grandchild that has the link open, where no signal to the group reaches it, must not keep
/// anyone waiting.
#[test]
fn a_grandchild_that_keeps_the_link_open_delays_nothing() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("pid");
    let pool = pool(1);
    let began = Instant::now();
    let result = pool.call(ends::fork_and_exit, (file.clone(), 3));
    let grandchild = pids_in(&file)[0];
    let alive = is_alive(grandchild);
    let after = pool.call(tasks::square, 3);
    pool.terminate();
    signal(grandchild, Signal::KILL);
    assert_eq!(*result.unwrap_err().why(), Why::Died(Death::Exit(3)));
    assert!(alive, "the grandchild was to live on");
    assert_eq!(after.unwrap(), 9);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_worker_that_dies_in_the_handshake_is_an_error_that_says_how() {
    for (text, cause) in [
        ("exit 7", "exited with code 7"),
        ("kill -SEGV $$", "was killed by signal 11 (SIGSEGV)"),
        (
            "echo no licence >&2; exit 1",
            "before it was ready: no licence",
        ),
        // Someone who is not the process that was started does not get in.
        (
            "worker=$0.real; \"$worker\" \"$@\" & wait; exit 8",
            "exited with code 8",
        ),
    ] {
        let directory = TempDir::new().unwrap();
        let real = directory.path().join("worker.real");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_misbehave"), real).unwrap();
        let program = script(directory.path(), text);
        let error = Pool::builder().workers(2).worker(&program).build();
        let error = error.unwrap_err();
        assert!(matches!(error, PoolError::CannotStart { .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(cause), "{said}");
        assert!(said.contains(program.to_str().unwrap()), "{said}");
    }
}

#[test]
fn calls_that_wait_for_workers_that_cannot_live_end_with_the_cause() {
    let directory = TempDir::new().unwrap();
    // It lives as long as there is a file; it is replaced by nothing that could.
    let alive = directory.path().join("alive");
    std::fs::write(&alive, "").unwrap();
    let program = script(
        directory.path(),
        &format!(
            "test -e '{}' || {{ echo out of luck >&2; exit 9; }}; exec '{}' \"$@\"",
            alive.display(),
            env!("CARGO_BIN_EXE_misbehave")
        ),
    );
    let builder = Pool::builder().workers(2).worker(program);
    let limit = Duration::from_secs(1000);
    let pool = builder.restart_limit(4, limit).build().unwrap();
    eventually("both are there", || pool.workers().len() == 2);
    let running = pool.submit(tasks::sleep_ms, 100);
    eventually("one of them is busy", || pool.stats().running == 1);
    std::fs::remove_file(alive).unwrap();
    let began = Instant::now();
    let deadly = pool.submit(tasks::exit_with, 1);
    assert!(deadly.wait().is_err());
    // Whether this one still meets the other worker is a matter of time.
    let deadly = pool.submit(tasks::exit_with, 1);
    let queued: Vec<_> = (0..100).map(|x| pool.submit(tasks::square, x)).collect();
    // What was running is not lost by it.
    assert_eq!(running.wait().unwrap(), 100);
    assert!(deadly.wait().is_err());
    for pending in queued {
        let error = pending.wait().unwrap_err();
        assert_eq!(*error.why(), Why::Cancelled);
        let note = error.note().unwrap();
        let cause = "exited with code 9 before it was ready: out of luck";
        assert!(note.contains(cause), "{note}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // It says so for good.
    let error = pool.call(tasks::square, 1).unwrap_err();
    assert!(error.note().unwrap().contains("out of luck"), "{error}");
    pool.close();
    assert!(matches!(pool.join(), Err(PoolError::CannotStart { .. })));
}

#[test]
fn a_worker_frozen_before_its_call_is_no_obstacle_either() {
    let pool = pool(1);
    assert_eq!(pool.call(tasks::square, 2).unwrap(), 4);
    let frozen = pool.workers()[0].pid;
    signal(frozen, Signal::STOP);
    let pending = pool.submit(tasks::square, 3);
    eventually("the call is on its way", || pool.stats().running == 1);
    // It is given back, because it has not begun; so there is nobody to be killed for it.
    pending.cancel();
    assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
    pool.close();
    pool.join().unwrap();
    assert!(!is_alive(frozen));
    assert_eq!(pool.stats().failed, 0);
}

#[test]
fn a_frozen_worker_is_no_obstacle_to_the_end() {
    let pool = builder(2)
        .grace(Duration::from_millis(100))
        .build()
        .unwrap();
    eventually("both are there", || pool.workers().len() == 2);
    // One is frozen in its call, the other while it is idle.
    let pending = pool.submit(tasks::sleep_ms, 100_000);
    eventually("one is busy", || pool.stats().running == 1);
    let workers: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    workers.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let began = Instant::now();
    pending.cancel();
    assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
    pool.close();
    pool.join().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(workers.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_copy_of_a_worker_says_nothing() {
    let pool = pool(1);
    for size in [1, 1 << 20] {
        for answer in pool.map(ends::fork_and_return, vec![size; 30]).unwrap() {
            assert_eq!(answer.len(), size);
            assert!(answer.bytes().all(|byte| byte == b'w'));
        }
    }
    assert_eq!(pool.stats().workers_died, 0);
}
