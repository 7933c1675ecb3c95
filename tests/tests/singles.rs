//! Calls that are made one by one, by the thousand. They travel together; nobody who has one of them is to see that.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use coordinator::{Pending, Pool, Why};
use support::{builder, pool};
use tempfile::TempDir;
use tests::{brief, eventually, tasks};

/// So many calls that wait behind one that waits for a file, which is then made. All are known to be short.
fn behind_one_that_waits(
    pool: &Pool,
    file: &Path,
    calls: u64,
) -> (Pending<u64>, Vec<Pending<u64>>) {
    let warm: Vec<_> = (0..1000)
        .map(|n| pool.submit(brief::wait_if, (n, None)))
        .collect();
    warm.into_iter().for_each(|call| _ = call.wait().unwrap());
    let waiting = pool.submit(brief::wait_if, (calls, Some(file.to_owned())));
    let behind = (0..calls).map(|n| pool.submit(brief::wait_if, (n, None)));
    (waiting, behind.collect())
}

#[test]
fn calls_of_two_tasks_start_in_the_order_in_which_they_were_submitted() {
    let directory = TempDir::new().unwrap();
    let (ledger, file) = (directory.path().join("ledger"), directory.path().join("go"));
    let pool = builder(1)
        .initializer(brief::open_ledger, ledger.clone())
        .build()
        .unwrap();
    // Both are known to be short, so that they would go in large batches.
    for _ in 0..500 {
        pool.call(brief::log, u64::MAX).unwrap();
        pool.call(brief::log_or_fail, (u64::MAX, false)).unwrap();
    }
    let waiting = pool.submit(brief::wait_if, (0, Some(file.clone())));
    let calls: Vec<_> = (0..3000)
        .map(|n| match n % 7 < 4 && n % 1000 < 900 {
            true => pool.submit(brief::log, n),
            false => pool.submit(brief::log_or_fail, (n, false)),
        })
        .collect();
    File::create(file).unwrap();
    waiting.wait().unwrap();
    calls.into_iter().for_each(|call| _ = call.wait().unwrap());
    let bytes = std::fs::read(ledger).unwrap();
    let numbers = bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes);
    assert!(numbers.filter(|number| *number != u64::MAX).eq(0..3000));
}

/// Says in the end, however that comes, that it has come.
struct Tells<'t>(&'t AtomicBool);

impl Drop for Tells<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn single_calls_and_an_open_map_do_not_starve_each_other() {
    let pool = pool(1);
    let is_over = AtomicBool::new(false);
    let [singles, results] = [(); 2].map(|()| AtomicU32::new(0));
    thread::scope(|scope| {
        let _over = Tells(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(pool.submit(tasks::square, 3).wait(), Ok(9));
                singles.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            for result in pool.stream(tasks::sleep_ms, std::iter::repeat(1)) {
                assert_eq!(result, Ok(1));
                results.fetch_add(1, Ordering::Relaxed);
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for counter in [&singles, &results, &singles, &results] {
            let before = counter.load(Ordering::Relaxed);
            eventually("a hundred more have ended", || {
                counter.load(Ordering::Relaxed) > before + 100
            });
        }
    });
}

#[test]
fn of_thousands_that_wait_the_one_that_is_cancelled_ends_and_no_other() {
    let directory = TempDir::new().unwrap();
    let pool = pool(1);
    for at in [0, 1, 2500, 4999] {
        let file = directory.path().join(at.to_string());
        let (waiting, behind) = behind_one_that_waits(&pool, &file, 5000);
        behind[at].cancel();
        assert!(behind[at].is_done(), "it waits no longer");
        File::create(file).unwrap();
        waiting.wait().unwrap();
        only_is_cancelled(behind, at);
    }
    assert_eq!(pool.stats().workers_died, 0);
}

/// Of these calls only one has been cancelled, and all others have their values.
fn only_is_cancelled(calls: Vec<Pending<u64>>, cancelled: usize) {
    for (at, call) in calls.into_iter().enumerate() {
        match (call.wait(), at == cancelled) {
            (Ok(number), false) => assert_eq!(number, at as u64),
            (Err(error), true) => assert_eq!(*error.why(), Why::Cancelled),
            (end, _) => panic!("{at}: {end:?}"),
        }
    }
}

/// It was sent to a worker, which has not begun it: the worker goes on.
#[test]
fn one_that_is_cancelled_in_the_middle_of_a_batch_does_not_run() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let pool = pool(1);
    let (waiting, mut calls) = behind_one_that_waits(&pool, &path("go"), 300);
    // A batch is at most half of what waits, so the first one reaches well beyond this call.
    let held = (300, Some(path("held")));
    calls.push(pool.submit(brief::wait_if, held));
    calls.extend((301..1000).map(|n| pool.submit(brief::wait_if, (n, None))));
    File::create(path("go")).unwrap();
    waiting.wait().unwrap();
    eventually("the ones before it have ended", || calls[299].is_done());
    calls[301].cancel();
    assert!(calls[301].is_done(), "it waits no longer");
    assert!(!calls[300].is_done());
    File::create(path("held")).unwrap();
    only_is_cancelled(calls, 301);
    assert_eq!(pool.stats().workers_died, 0);
}

/// Its worker is killed, which costs none of the calls that were sent with it.
#[test]
fn one_that_is_cancelled_while_it_runs_ends_alone() {
    let directory = TempDir::new().unwrap();
    let (go, begun) = (directory.path().join("go"), directory.path().join("begun"));
    let pool = pool(1);
    let brief = |_| pool.submit(tasks::begin_and_fail_or_sleep, (None, 0));
    let warm: Vec<_> = (0..1000).map(brief).collect();
    warm.into_iter().for_each(|call| call.wait().unwrap());
    let waiting = pool.submit(brief::wait_if, (0, Some(go.clone())));
    let before: Vec<_> = (0..300).map(brief).collect();
    let long = (Some(begun.clone()), 600_000);
    let long = pool.submit(tasks::begin_and_fail_or_sleep, long);
    let behind: Vec<_> = (0..700).map(brief).collect();
    File::create(go).unwrap();
    waiting.wait().unwrap();
    eventually("it runs", || begun.exists());
    long.cancel();
    assert_eq!(*long.wait().unwrap_err().why(), Why::Cancelled);
    for call in before.into_iter().chain(behind) {
        assert_eq!(call.wait(), Ok(()));
    }
    assert_eq!(pool.stats().workers_died, 1);
}

/// A call shares with others of its batch what they came back with, and nothing more.
#[test]
fn one_that_is_kept_does_not_keep_what_others_returned() {
    let output = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .arg("kept")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let kib = String::from_utf8(output.stdout).unwrap();
    let kib: u64 = kib.trim().parse().unwrap();
    // Of 50 MB. On a busy machine more calls are in flight at once, and the allocator keeps what they took.
    assert!(kib < 20 << 10, "{kib} KiB");
}
