//! Workers gather what becomes of short calls, however these end: nobody is to see that.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coordinator::{Death, Output, Report, Why, With};
use rustix::process::Signal;
use support::builder;
use tempfile::TempDir;
use tests::brief::{self, Way};
use tests::processes::signal;
use tests::{eventually, tasks};

/// All ways by turns, so that each has each other beside it.
fn way(number: u64) -> Way {
    match number * number % 23 {
        0 | 1 => Way::Print,
        2 | 3 => Way::Fail,
        4 | 6 => Way::PrintAndFail,
        8 => Way::Panic,
        _ => Way::Value,
    }
}

/// Has calls 0 to `count` end in these ways, and hands out their reports.
fn run(with: With<'_>, count: u64, way: impl Fn(u64) -> Way + Send) -> Vec<Report<u64>> {
    let (inputs, reports) = with.open(brief::end_by);
    let inputs = inputs.unwrap();
    std::thread::scope(|scope| {
        // As many as these are not taken before their results are.
        scope.spawn(move || {
            (0..count).for_each(|number| inputs.send((number, way(number))).unwrap());
        });
        reports.collect()
    })
}

/// Checks a report on a call that has run so often and ended in this way.
fn check(report: &Report<u64>, number: u64, way: &Way) {
    let prints = matches!(way, Way::Print | Way::PrintAndFail | Way::Abort);
    let [stdout, stderr] = ["out", "err"].map(|stream| match prints {
        true => format!("{number} {stream}\n"),
        false => String::new(),
    });
    assert_eq!(report.index, number);
    assert_eq!(report.stdout.read().unwrap(), stdout.as_bytes(), "{number}");
    let printed = report.stderr.read().unwrap();
    assert!(printed.starts_with(stderr.as_bytes()), "{number}");
    assert!(!stderr.is_empty() || printed.is_empty(), "{number}");
    let why = report.result.as_ref().map_err(|error| error.why());
    match way {
        Way::Value | Way::Print | Way::Wait(_) => assert_eq!(why, Ok(&number)),
        Way::Fail | Way::PrintAndFail => {
            let text = Why::Failed(format!("{number} fails"));
            assert_eq!(why, Err(&text));
        }
        Way::Panic => {
            let said = format!("{number} panics");
            assert!(matches!(why, Err(Why::Panicked { message, .. }) if *message == said));
        }
        Way::Abort => assert_eq!(why, Err(&Why::Died(Death::Signal(libc::SIGABRT)))),
    }
}

#[test]
fn each_call_has_its_own_end_and_its_own_output() {
    let pool = builder(2).output(Output::Capture).build().unwrap();
    let reports = run(pool.with(), 20_000, way);
    assert_eq!(reports.len(), 20_000);
    for (number, report) in (0..).zip(&reports) {
        check(report, number, &way(number));
        assert_eq!(report.attempts, 1);
    }
    let stats = pool.stats();
    let failed = reports
        .iter()
        .filter(|report| report.result.is_err())
        .count();
    assert_eq!(stats.failed, failed as u64);
    assert_eq!(stats.succeeded + stats.failed, 20_000);
}

/// What was gathered and not sent stands in the black box.
#[test]
fn a_death_costs_none_of_those_before_it() {
    let pool = builder(2).output(Output::Capture).build().unwrap();
    let way = |number| match number % 1000 {
        777 => Way::Abort,
        _ => way(number),
    };
    for (number, report) in (0..).zip(run(pool.with(), 10_000, way)) {
        check(&report, number, &way(number));
        assert_eq!(report.attempts, 1, "{number}");
    }
    assert_eq!(pool.stats().workers_died, 10);
}

/// From outside, at any moment.
#[test]
fn kills_cost_only_what_runs_and_mix_nothing_up() {
    let pool = builder(2)
        .output(Output::Capture)
        .restart_limit(100, Duration::from_secs(1))
        .build()
        .unwrap();
    let done = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while kills < 12 && !done.load(Ordering::Relaxed) {
                let ended = pool.stats().succeeded;
                eventually("some more have ended", || {
                    pool.stats().succeeded > ended + 300 || done.load(Ordering::Relaxed)
                });
                if let Some(worker) = pool.workers().first() {
                    signal(worker.pid, Signal::KILL);
                    kills += 1;
                }
            }
            kills
        });
        let mut died = 0;
        for (number, report) in (0..).zip(run(pool.with(), 15_000, way)) {
            let why = report.result.as_ref().map_err(|error| error.why());
            match why {
                Err(Why::Died(_)) => died += 1,
                _ => check(&report, number, &way(number)),
            }
        }
        done.store(true, Ordering::Relaxed);
        let kills = killer.join().unwrap();
        assert!(died <= kills, "{died} calls died of {kills} kills");
        kills
    });
    assert!(kills > 3, "{kills} kills");
}

/// A call that fails and is tried again while its batch goes on is not confused with its first attempt.
#[test]
fn what_failed_is_tried_again_by_itself() {
    let pool = builder(2).output(Output::Capture).build().unwrap();
    for (number, report) in (0..).zip(run(pool.with().retries(2), 5_000, way)) {
        check(&report, number, &way(number));
        let attempts = if report.result.is_err() { 3 } else { 1 };
        assert_eq!(report.attempts, attempts, "{number}");
    }
}

/// Its worker can't say so before the long call is over.
#[test]
fn ends_do_not_wait_for_the_call_behind_them() {
    let directory = TempDir::new().unwrap();
    let pool = builder(1).output(Output::Capture).build().unwrap();
    // Which calls come in one batch differs from time to time.
    for last in (20..=800).step_by(20) {
        let file = directory.path().join(last.to_string());
        let way = |number| match number == last {
            true => Way::Wait(file.clone()),
            false => way(number),
        };
        let (inputs, mut reports) = pool.with().open(brief::end_by);
        let inputs = inputs.unwrap();
        for number in 0..=last {
            inputs.send((number, way(number))).unwrap();
        }
        drop(inputs);
        for number in 0..last {
            let report = reports.next_timeout(Duration::from_secs(60)).unwrap();
            check(&report.unwrap(), number, &way(number));
        }
        File::create(&file).unwrap();
        check(&reports.next().unwrap(), last, &way(last));
        assert!(reports.next().is_none());
    }
}

/// A message has room for four seconds where many calls share it.
#[test]
fn the_time_of_a_long_call_is_its_own() {
    let pool = builder(1).build().unwrap();
    let (inputs, mut reports) = pool.with().open(tasks::sleep_ms);
    let began = Instant::now();
    inputs.unwrap().send(4500).unwrap();
    let report = reports.next().unwrap();
    report.result.unwrap();
    let least = Duration::from_millis(4500);
    assert!(
        (least..began.elapsed()).contains(&report.elapsed),
        "{:?}",
        report.elapsed
    );
}
