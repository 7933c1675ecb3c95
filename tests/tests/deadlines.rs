//! Calls that end early or late: timeouts, retries, backoff, cancelling.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use coordinator::{Death, Why};
use rustix::process::Signal;
use support::{builder, pool};
use tempfile::TempDir;
use tests::ends::{self, End};
use tests::processes::{pids_in, signal};
use tests::{eventually, is_alive, tasks};

/// Much shorter than any call that is to be stopped, much longer than anything that should be prompt.
const PROMPT: Duration = Duration::from_secs(5);

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Waits until both processes of [`tasks::hold_out`] are there.
fn held_out(file: &Path) -> Vec<u32> {
    eventually("it holds out", || file.exists());
    let pids = pids_in(file);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    pids
}

#[test]
fn a_call_that_spins_or_sleeps_is_stopped_at_its_limit() {
    let pool = pool(2);
    let limit = millis(150);
    let with = pool.with().timeout(limit);
    let began = Instant::now();
    let spinning = with.submit(ends::spin, ());
    let sleeping = with.submit(tasks::sleep_ms, 100_000);
    for error in [
        spinning.wait().unwrap_err(),
        sleeping.wait().map(drop).unwrap_err(),
    ] {
        assert_eq!(*error.why(), Why::TimedOut(limit));
        assert!(error.elapsed() >= limit, "{error}");
        assert_eq!(error.attempts(), 1);
        assert!(
            error.to_string().contains("timed out after 150ms"),
            "{error}"
        );
    }
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn at_its_limit_a_call_that_ignores_sigterm_is_killed_with_its_children() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("pids");
    let grace = millis(100);
    let pool = builder(1).grace(grace).build().unwrap();
    let limit = millis(1000);
    let error = pool
        .with()
        .timeout(limit)
        .call(tasks::hold_out, file.clone());
    let error = error.unwrap_err();
    assert_eq!(*error.why(), Why::TimedOut(limit));
    assert!(error.elapsed() >= limit + grace, "{error}");
    let pids = pids_in(&file);
    assert!(!is_alive(pids[0]));
    eventually("its child is gone", || !is_alive(pids[1]));
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_frozen_worker_is_stopped_at_the_limit_of_its_call() {
    let pool = pool(2);
    let limit = millis(1000);
    let trap = |x| (x == 4).then_some(End::Signal(libc::SIGSTOP));
    let directory = TempDir::new().unwrap();
    let ledger = directory.path().join("ledger");
    let inputs = (0..10).map(|x| (x, trap(x), ledger.clone()));
    let results = pool
        .with()
        .timeout(limit)
        .map_each(ends::square_or_end, inputs);
    for (x, result) in (0..).zip(results) {
        match x {
            4 => assert_eq!(*result.unwrap_err().why(), Why::TimedOut(limit)),
            _ => assert_eq!(result.unwrap(), x * x),
        }
    }
    assert_eq!(pool.stats().workers_died, 1);
}

/// The call has begun for whoever waits for it, whatever its worker makes of it.
#[test]
fn a_worker_that_was_frozen_before_its_call_does_not_save_it() {
    let pool = pool(1);
    signal(pool.workers()[0].pid, Signal::STOP);
    let limit = millis(100);
    let error = pool.with().timeout(limit).call(tasks::square, 2);
    assert_eq!(*error.unwrap_err().why(), Why::TimedOut(limit));
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_timeout_of_the_tasks_own_is_a_failure() {
    let text = "timed out after 1s".to_owned();
    let with = pool(1);
    let with = with.with().timeout(Duration::from_secs(100));
    let error = with.call(tasks::fail, text.clone()).unwrap_err();
    assert_eq!(*error.why(), Why::Failed(text));
}

#[test]
fn limits_at_the_ends_of_their_range_are_taken_at_their_word() {
    let pool = pool(1);
    let error = pool
        .with()
        .timeout(Duration::ZERO)
        .call(tasks::sleep_ms, 100_000);
    assert_eq!(*error.unwrap_err().why(), Why::TimedOut(Duration::ZERO));
    let forever = pool.with().timeout(Duration::MAX);
    assert_eq!(forever.call(tasks::square, 3).unwrap(), 9);
    let impatient = pool.with().retries(u32::MAX).backoff(Duration::MAX);
    assert_eq!(impatient.call(tasks::square, 4).unwrap(), 16);
    // What will not be tried again before the end of time can still be cancelled.
    let before = pool.stats().failed;
    let pending = impatient.submit(tasks::fail, String::new());
    eventually("it has failed once", || pool.stats().failed > before);
    pending.cancel();
    assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
}

#[test]
fn a_call_that_is_tried_again_ends_as_its_last_attempt_did() {
    let pool = pool(2);
    let end = End::Exit(7);
    let with = pool.with().retries(2);
    let (inputs, reports) = with.open(ends::survive_at);
    let inputs = inputs.unwrap();
    for attempt in [1, 4, 2, 3, 1] {
        inputs.send((attempt, end)).unwrap();
    }
    drop(inputs);
    let ended: Vec<_> = reports
        .map(|report| {
            let result = report.result.map_err(|error| {
                assert_eq!(error.attempts(), report.attempts);
                error.why().clone()
            });
            (result, report.attempts)
        })
        .collect();
    let died = Err(Why::Died(Death::Exit(7)));
    assert_eq!(
        ended,
        [(Ok(1), 1), (died, 3), (Ok(2), 2), (Ok(3), 3), (Ok(1), 1)]
    );
    assert_eq!(pool.stats().workers_died, 3 + 1 + 2);
}

/// More deaths than a pool accepts of workers that fail to start: these did start.
#[test]
fn a_call_that_kills_every_worker_ends_and_the_others_are_fine() {
    let pool = pool(2);
    let with = pool.with().retries(9);
    let deadly = with.submit(tasks::raise, libc::SIGKILL);
    assert_eq!(pool.map(tasks::square, 0..50).unwrap().len(), 50);
    let error = deadly.wait().unwrap_err();
    assert_eq!(*error.why(), Why::Died(Death::Signal(9)));
    assert_eq!(error.attempts(), 10);
    assert!(error.to_string().contains("attempt 10"), "{error}");
    assert_eq!(pool.stats().workers_died, 10);
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_call_that_timed_out_is_tried_again_too() {
    let limit = millis(100);
    let pool = pool(1);
    let with = pool.with().timeout(limit).retries(1);
    let error = with.call(tasks::sleep_ms, 100_000).unwrap_err();
    assert_eq!(*error.why(), Why::TimedOut(limit));
    assert_eq!(error.attempts(), 2);
    assert!(error.elapsed() < PROMPT, "the last attempt's: {error}");
}

#[test]
fn each_wait_for_another_attempt_is_twice_the_last() {
    let directory = TempDir::new().unwrap();
    let ledger = directory.path().join("times");
    let pool = pool(2);
    let with = pool.with().retries(3).backoff(millis(40));
    let began = Instant::now();
    let error = with.call(ends::note_time_and_fail, ledger.clone());
    let error = error.unwrap_err();
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert_eq!(error.attempts(), 4);
    let text = std::fs::read_to_string(ledger).unwrap();
    let times: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(*error.why(), Why::Failed(format!("at {}", times[3])));
    for (pair, wait) in times.windows(2).zip([40, 80, 160]) {
        // A millisecond may be lost in rounding.
        assert!(pair[1] - pair[0] >= wait - 1, "{times:?}");
    }
}

#[test]
fn while_a_call_waits_to_be_tried_again_others_run() {
    let pool = pool(1);
    let with = pool.with().retries(1).backoff(Duration::from_secs(100));
    let pending = with.submit(tasks::fail, "no".to_owned());
    eventually("it has failed once", || pool.stats().failed == 1);
    assert_eq!(pool.map(tasks::square, 0..20).unwrap().len(), 20);
    assert!(!pending.is_done());
    // And it can be cancelled, at once and for good.
    let began = Instant::now();
    pending.cancel();
    let error = pending.wait().unwrap_err();
    assert_eq!((error.why(), error.attempts()), (&Why::Cancelled, 1));
    // The end of the pool does not wait for it either.
    let pending = with.submit(tasks::fail, "no".to_owned());
    eventually("it has failed once", || pool.stats().failed == 2);
    pool.terminate();
    assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[test]
fn close_and_join_wait_for_the_attempts_that_are_left() {
    let pool = pool(2);
    let with = pool.with().retries(2).backoff(millis(50));
    let pending = with.submit(ends::survive_at, (3, End::Abort));
    pool.close();
    pool.join().unwrap();
    assert!(pending.is_done());
    assert_eq!(pending.wait().unwrap(), 3);
}

#[test]
fn a_running_call_that_is_cancelled_ends_with_all_that_it_started() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("pids");
    let pool = builder(2).grace(millis(50)).build().unwrap();
    let pending = pool.with().retries(5).submit(tasks::hold_out, file.clone());
    let pids = held_out(&file);
    let bystander = pool.submit(tasks::sleep_ms, 300);
    let began = Instant::now();
    pending.cancel();
    // Twice is no more than once.
    pending.cancel();
    let error = pending.wait().unwrap_err();
    assert_eq!(*error.why(), Why::Cancelled);
    // It is not tried again.
    assert_eq!((error.attempts(), error.worker()), (1, Some(pids[0])));
    assert!(!is_alive(pids[0]));
    eventually("its child is gone", || !is_alive(pids[1]));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert_eq!(bystander.wait().unwrap(), 300);
    assert_eq!(pool.stats().workers_died, 1);
}

#[test]
fn cancelling_what_has_ended_changes_nothing() {
    let pool = pool(1);
    let pending = pool.submit(tasks::square, 3);
    eventually("it has ended", || pending.is_done());
    pending.cancel();
    assert_eq!(pending.wait().unwrap(), 9);
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn a_map_that_fails_does_not_wait_for_what_runs_behind() {
    let pool = pool(3);
    let began = Instant::now();
    let error = pool.map(tasks::fail_or_sleep, [-1, 100_000, 100_000]);
    let error = error.unwrap_err();
    assert_eq!(
        (error.index(), error.why()),
        (0, &Why::Failed("-1".to_owned()))
    );
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[test]
fn an_unordered_stream_that_is_dropped_ends_what_it_runs() {
    let directory = TempDir::new().unwrap();
    let files: Vec<_> = (0..2)
        .map(|n| directory.path().join(n.to_string()))
        .collect();
    let pool = builder(2).grace(millis(50)).build().unwrap();
    let (inputs, reports) = pool.with().open(tasks::hold_out);
    let inputs = inputs.unwrap();
    files
        .iter()
        .for_each(|file| inputs.send(file.clone()).unwrap());
    let pids: Vec<u32> = files.iter().flat_map(|file| held_out(file)).collect();
    drop(reports);
    eventually("all are gone", || pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(pool.map(tasks::square, 0..9).unwrap().len(), 9);
}

/// Whoever waits for a call is told, in whatever thread.
#[test]
fn terminate_ends_what_other_threads_wait_for() {
    let pool = pool(2);
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| pool.map(tasks::sleep_ms, vec![100_000; 10]).unwrap_err()),
            scope.spawn(|| pool.call(tasks::sleep_ms, 100_000).unwrap_err()),
            scope.spawn(|| {
                let mut stream = pool.stream(tasks::sleep_ms, std::iter::repeat(100_000));
                stream.next().unwrap().unwrap_err()
            }),
        ];
        eventually("all are under way", || {
            let stats = pool.stats();
            stats.running == 2 && stats.waiting > 10
        });
        let began = Instant::now();
        pool.terminate();
        for thread in waiting {
            let error = thread.join().unwrap();
            assert_eq!(*error.why(), Why::Cancelled);
        }
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    });
}

#[test]
fn what_is_stopped_before_it_began_does_not_end_the_pool() {
    let pool = pool(1);
    let at_once = pool.with().timeout(Duration::ZERO);
    for result in at_once.map_each(tasks::sleep_ms, vec![100_000; 20]) {
        assert_eq!(*result.unwrap_err().why(), Why::TimedOut(Duration::ZERO));
    }
    // Each attempt has been counted as one that did not succeed.
    assert_eq!(pool.stats().failed, 20);
    for _ in 0..100 {
        let (first, second) = (
            pool.submit(tasks::sleep_ms, 100_000),
            pool.submit(tasks::square, 1),
        );
        eventually("it is running", || pool.stats().running == 1);
        first.cancel();
        second.cancel();
        assert_eq!(*first.wait().unwrap_err().why(), Why::Cancelled);
    }
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_running_call_that_is_cancelled_says_why() {
    let pool = pool(2);
    let pending = pool.submit(tasks::sleep_ms, 100_000);
    eventually("it is running", || pool.stats().running == 1);
    pending.cancel();
    assert_eq!(
        pending.wait().unwrap_err().note(),
        Some("the caller cancelled it")
    );
    let pending = pool.submit(tasks::sleep_ms, 100_000);
    eventually("it is running", || pool.stats().running == 1);
    pool.terminate();
    assert_eq!(
        pending.wait().unwrap_err().note(),
        Some("the pool was terminated")
    );
}
