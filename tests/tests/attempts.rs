//! What is reported of calls while their map is under way: attempts, failures, what runs now.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use coordinator::{Death, NotYet, Output, Why, Worker};
use rustix::process::Pid;
use support::{builder, pool};
use tempfile::TempDir;
use tests::ends::{self, End};
use tests::processes::pids_in;
use tests::{eventually, is_alive, is_stopped, tasks};

/// Much longer than anything that should be prompt.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_report_is_waited_for_as_long_as_one_likes() {
    let pool = pool(1);
    let (inputs, mut reports) = pool.with().open(tasks::square);
    let inputs = inputs.unwrap();
    // There may be further inputs.
    assert_eq!(reports.next_timeout(Duration::ZERO).unwrap_err(), NotYet);
    assert!(reports.next_timeout(Duration::from_millis(5)).is_err());
    inputs.send(3).unwrap();
    let report = reports.next_timeout(LONG).unwrap().unwrap();
    assert_eq!(report.result.unwrap(), 9);
    assert!(reports.next_timeout(Duration::ZERO).is_err());
    drop(inputs);
    assert!(reports.next_timeout(LONG).unwrap().is_none());
}

#[test]
fn every_attempt_is_reported_and_each_outcome_once() {
    let pool = builder(2).output(Output::Capture).build().unwrap();
    let with = pool.with().retries(2).every_attempt();
    let (inputs, reports) = with.open(tasks::succeed_at);
    let inputs = inputs.unwrap();
    // The last of them does not succeed at all.
    for succeeds in [1, 2, 3, 4] {
        inputs.send(succeeds).unwrap();
    }
    drop(inputs);
    let mut seen: HashMap<u64, Vec<bool>> = HashMap::new();
    for report in reports {
        let attempts = seen.entry(report.index).or_default();
        attempts.push(report.again);
        let attempt = u32::try_from(attempts.len()).unwrap();
        assert_eq!(report.attempts, attempt);
        assert_eq!(
            report.stdout.read().unwrap(),
            format!("out {attempt}\n").as_bytes()
        );
        assert_eq!(
            report.stderr.read().unwrap(),
            format!("err {attempt}\n").as_bytes()
        );
        assert!((1..=2).contains(&report.slot.unwrap()));
        let pid = report.worker.unwrap();
        assert!(pool.workers().iter().any(|worker| worker.pid == pid));
        match report.result {
            Ok(value) => assert_eq!((u64::from(value), report.again), (report.index + 1, false)),
            Err(error) => {
                assert_eq!(error.why(), &Why::Failed(format!("attempt {attempt}")));
                assert_eq!(error.attempts(), attempt);
            }
        }
    }
    let outcomes = [vec![false], vec![true, false], vec![true, true, false]];
    for (index, again) in [0, 1, 2, 3].into_iter().zip([0, 1, 2, 2]) {
        assert_eq!(seen[&index], outcomes[again], "call {index}");
    }
}

#[test]
fn an_attempt_that_killed_its_worker_is_reported_before_its_backoff_has_passed() {
    let pool = pool(1);
    let with = pool.with().retries(1).backoff(LONG).every_attempt();
    let (inputs, mut reports) = with.open(ends::survive_at);
    inputs.unwrap().send((2, End::Abort)).unwrap();
    let first = reports.next_timeout(LONG / 2).unwrap().unwrap();
    assert!(first.again);
    assert_eq!(first.attempts, 1);
    assert_eq!(first.slot, Some(1));
    assert_eq!(
        first.result.unwrap_err().why(),
        &Why::Died(Death::Signal(6))
    );
    assert_eq!(reports.next_timeout(Duration::ZERO).unwrap_err(), NotYet);
    pool.stop();
    let last = reports.next_timeout(LONG).unwrap().unwrap();
    assert_eq!((last.again, last.attempts, last.slot), (false, 1, None));
    assert_eq!(last.result.unwrap_err().why(), &Why::Cancelled);
    assert!(reports.next().is_none());
}

#[test]
fn nothing_starts_after_the_last_failure_that_is_allowed() {
    let pool = pool(1);
    let (inputs, reports) = pool
        .with()
        .max_failures(1, false)
        .open(tasks::fail_or_sleep);
    let inputs = inputs.unwrap();
    for ms in [0, -1, 0, 0] {
        // The failure may be known already.
        let _ = inputs.send(ms);
    }
    drop(inputs);
    let reports: Vec<_> = reports.collect();
    assert!(reports.len() >= 2);
    for report in reports {
        match report.index {
            0 => assert!(report.result.is_ok()),
            1 => assert_eq!(
                report.result.unwrap_err().why(),
                &Why::Failed("-1".to_owned())
            ),
            _ => {
                let error = report.result.unwrap_err();
                assert_eq!((error.why(), error.attempts()), (&Why::Cancelled, 0));
                let note = "1 call of the same map had not succeeded";
                assert_eq!(error.note(), Some(note));
            }
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.succeeded, stats.failed), (1, 1));
    assert_eq!(pool.call(tasks::square, 5).unwrap(), 25);
}

#[test]
fn what_runs_at_the_last_failure_is_finished_or_killed() {
    for now in [false, true] {
        let pool = pool(2);
        let with = pool.with().max_failures(2, now);
        let (inputs, reports) = with.open(tasks::begin_and_fail_or_sleep);
        let inputs = inputs.unwrap();
        let directory = TempDir::new().unwrap();
        let begun = directory.path().join("begun");
        // Long enough to be running still when the others have failed.
        let ms = if now { 100_000 } else { 1000 };
        inputs.send((Some(begun.clone()), ms)).unwrap();
        // Not only handed out: what a worker has not begun is taken back.
        eventually("the first runs", || begun.exists());
        inputs.send((None, -1)).unwrap();
        inputs.send((None, -2)).unwrap();
        eventually("no input is wanted", || inputs.send((None, 0)).is_err());
        drop(inputs);
        for report in reports {
            assert_eq!(report.attempts, u32::from(report.index < 3));
            let result = report.result.map_err(|error| error.why().clone());
            let expected = match report.index {
                0 if !now => Ok(()),
                index @ (1 | 2) => Err(Why::Failed(format!("-{index}"))),
                _ => Err(Why::Cancelled),
            };
            assert_eq!(result, expected, "call {}", report.index);
        }
    }
}

/// Makes a file that appears with what stands in it.
fn put(path: &Path, extension: &str, text: &str) {
    let whole = path.with_extension("part");
    std::fs::write(&whole, text).unwrap();
    std::fs::rename(whole, path.with_extension(extension)).unwrap();
}

#[test]
fn one_sees_what_runs_and_what_it_has_printed_so_far() {
    let directory = TempDir::new().unwrap();
    let pool = builder(2).output(Output::Capture).build().unwrap();
    assert!(pool.running().is_empty());
    let paths = [directory.path().join("a"), directory.path().join("b")];
    let (inputs, mut reports) = pool.with().retries(1).open(tasks::print_and_wait);
    let inputs = inputs.unwrap();
    inputs.send(("a".to_owned(), paths[0].clone())).unwrap();
    inputs.send(("b".to_owned(), paths[1].clone())).unwrap();
    let has_printed = |expected: &[(u64, u32)]| {
        let running = pool.running();
        let mut found = Vec::new();
        for call in &running {
            let text = ["a", "b"][usize::try_from(call.index).unwrap()];
            let out = format!("{text} {}\n", call.attempt);
            let err = format!("{text} {} err\n", call.attempt);
            let (stdout, stderr) = (call.stdout.read().unwrap(), call.stderr.read().unwrap());
            assert!(out.as_bytes().starts_with(&stdout), "{call:?}");
            assert!(err.as_bytes().starts_with(&stderr), "{call:?}");
            assert!(call.task.ends_with("print_and_wait") && call.elapsed < LONG);
            let workers = pool.workers();
            let is_there = |worker: &Worker| (worker.slot, worker.pid) == (call.slot, call.worker);
            assert!(workers.iter().any(is_there));
            if (stdout.len(), stderr.len()) == (out.len(), err.len()) {
                found.push((call.index, call.attempt));
            }
        }
        found.sort_unstable();
        found == expected
    };
    eventually("both have printed", || has_printed(&[(0, 1), (1, 1)]));
    let held = pool.running();
    put(&paths[1], "1", "no");
    eventually("one is tried again", || has_printed(&[(0, 1), (1, 2)]));
    put(&paths[0], "1", "");
    let report = reports.next_timeout(LONG).unwrap().unwrap();
    assert!(report.result.is_ok());
    assert_eq!(report.stdout.read().unwrap(), b"a 1\n");
    // From its report on it does not run any more.
    assert_eq!(pool.stats().running, 1);
    assert!(has_printed(&[(1, 2)]));
    let first = held.iter().find(|call| call.index == 0).unwrap();
    assert_eq!(first.stdout.read().unwrap(), b"a 1\n");
    put(&paths[1], "2", "");
    let report = reports.next_timeout(LONG).unwrap().unwrap();
    assert_eq!(report.stdout.read().unwrap(), b"b 2\n");
    assert!(pool.running().is_empty());
    let stats = pool.stats();
    assert_eq!((stats.running, stats.waiting), (0, 0));
}

#[test]
fn what_is_seen_of_a_running_call_is_never_anothers() {
    let pool = builder(2).output(Output::Capture).build().unwrap();
    const CALLS: u64 = 4000;
    std::thread::scope(|scope| {
        let pool = &pool;
        let taker = scope.spawn(|| {
            let (inputs, reports) = pool.with().open(tasks::print_much);
            let inputs = inputs.unwrap();
            for number in 0..CALLS {
                // Most of them print nothing, so that they travel together.
                let lines = [0, 0, 0, 7][(number % 4) as usize];
                inputs.send((number, lines)).unwrap();
            }
            drop(inputs);
            for report in reports {
                report.result.unwrap();
                let text = String::from_utf8(report.stdout.read().unwrap()).unwrap();
                assert_eq!(text.lines().count() as u64, (report.index % 4 / 3) * 7);
                assert!(text.lines().all(|line| is_of(line, report.index)));
            }
        });
        let mut looks = 0;
        while !taker.is_finished() {
            looks += 1;
            for call in pool.running() {
                for stream in [call.stdout, call.stderr] {
                    let text = String::from_utf8(stream.read().unwrap()).unwrap();
                    // The last line may be under way.
                    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
                    assert!(
                        whole.lines().all(|line| is_of(line, call.index)),
                        "call {}: {text}",
                        call.index
                    );
                }
            }
        }
        assert!(looks > 0);
    });
}

fn is_of(line: &str, index: u64) -> bool {
    line.split(' ').next() == Some(&index.to_string())
}

/// Waits until all three processes of [`tasks::hold_out_apart`] are there.
fn held_out_apart(file: &Path) -> Vec<u32> {
    eventually("it holds out", || file.exists());
    let pids = pids_in(file);
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // So that the last is in a session of its own for certain.
    let own = |pid: &u32| rustix::process::getpgid(Pid::from_raw(*pid as i32)).unwrap();
    eventually("each has its own group", || {
        let groups: HashSet<_> = pids.iter().map(own).collect();
        groups.len() == 3
    });
    pids
}

#[test]
fn a_pause_reaches_what_is_in_other_process_groups() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("pids");
    let pool = pool(1);
    let pending = pool.submit(tasks::hold_out_apart, file.clone());
    let pids = held_out_apart(&file);
    for _ in 0..2 {
        pool.pause();
        eventually("all are stopped", || {
            pids.iter().all(|pid| is_stopped(*pid))
        });
        pool.resume();
        eventually("all go on", || !pids.iter().any(|pid| is_stopped(*pid)));
    }
    pool.pause();
    eventually("all are stopped again", || {
        pids.iter().all(|pid| is_stopped(*pid))
    });
    pool.terminate();
    assert_eq!(pending.wait().unwrap_err().why(), &Why::Cancelled);
    eventually("none is left", || !pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn cancelling_ends_what_is_in_other_process_groups() {
    for grace in [Duration::ZERO, Duration::from_millis(50)] {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("pids");
        let pool = pool(1);
        let with = pool.with().grace(grace);
        let pending = with.submit(tasks::hold_out_apart, file.clone());
        let pids = held_out_apart(&file);
        pending.cancel();
        assert_eq!(pending.wait().unwrap_err().why(), &Why::Cancelled);
        eventually("none is left", || !pids.iter().any(|pid| is_alive(*pid)));
        assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    }
}

#[test]
fn whoever_feeds_a_map_can_keep_to_a_number_of_calls_at_a_time() {
    let pool = pool(4);
    for at_once in 1..=3 {
        let with = pool.with().retries(1).every_attempt();
        let (inputs, mut reports) = with.open(tasks::fail_or_sleep);
        let inputs = inputs.unwrap();
        let mut left: Vec<i64> = vec![1, 0, -1, 2, 0, 0, -1, 3];
        let (calls, mut outcomes) = (left.len(), 0);
        while outcomes < calls {
            loop {
                let stats = pool.stats();
                let under_way = stats.running + stats.waiting;
                assert!(under_way <= at_once);
                let next = (under_way < at_once).then(|| left.pop()).flatten();
                let Some(ms) = next else { break };
                inputs.send(ms).unwrap();
            }
            // If a call that was reported still counted, nothing would ever come.
            let report = reports.next_timeout(LONG).unwrap().unwrap();
            outcomes += usize::from(!report.again);
        }
        let stats = pool.stats();
        assert_eq!((left.len(), stats.running, stats.waiting), (0, 0, 0));
    }
}

#[test]
fn asking_what_runs_takes_little_time() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("go");
    let pool = pool(16);
    let (inputs, reports) = pool.with().open(tasks::print_and_wait);
    let inputs = inputs.unwrap();
    for number in 0..16 {
        inputs.send((number.to_string(), file.clone())).unwrap();
    }
    drop(inputs);
    eventually("all run", || {
        let running = pool.running();
        running.len() == 16 && running.iter().all(|call| !call.stderr.is_empty())
    });
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(pool.running().len(), 16);
    }
    // It is some hundredths of that.
    assert!(began.elapsed() < Duration::from_secs(5));
    put(&file, "1", "");
    assert!(
        reports
            .map(|report| report.result)
            .all(|result| result.is_ok())
    );
}
