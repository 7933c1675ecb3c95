//! What calls may cost: memory, and time that is stopped; and the steps of an interruption.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::time::{Duration, Instant};

use coordinator::{Death, PoolError, Why};
use rustix::process::{Pid, Signal, kill_process};
use support::builder;
use tests::{eventually, hogs, tasks};

const MIB: usize = 1 << 20;
const LIMIT: u64 = 64 << 20;

fn out_of_memory(why: &Why) -> bool {
    *why == Why::OutOfMemory { limit: LIMIT }
}

#[test]
fn a_call_that_takes_too_much_memory_ends_so_and_costs_no_other() {
    let pool = builder(2).memory_limit(LIMIT).build().unwrap();
    let results = pool.map_each(hogs::take_memory, [MIB, 4096 * MIB, 2 * MIB, 10 * MIB]);
    let error = results[1].as_ref().unwrap_err();
    assert!(out_of_memory(error.why()), "{error}");
    assert_eq!((error.index(), error.attempts()), (1, 1));
    assert!(error.to_string().contains("64 MiB"), "{error}");
    for index in [0, 2, 3] {
        assert!(results[index].is_ok());
    }
}

#[test]
fn a_single_allocation_beyond_all_measure_fails_at_once() {
    let pool = builder(1).build().unwrap();
    let limited = pool.with().memory_limit(LIMIT);
    let error = limited
        .call(hogs::take_memory_at_once, 8192 * MIB)
        .unwrap_err();
    assert!(out_of_memory(error.why()), "{error}");
    // The limit is that map's, not the worker's.
    assert_eq!(
        pool.call(hogs::take_memory_at_once, 200 * MIB).unwrap(),
        200 * MIB
    );
    let error = limited
        .call(hogs::take_memory_at_once, 8192 * MIB)
        .unwrap_err();
    assert!(out_of_memory(error.why()), "{error}");
}

#[test]
fn what_its_children_take_counts() {
    let pool = builder(1).memory_limit(LIMIT).build().unwrap();
    let error = pool.call(hogs::child_takes_memory, 4096 * MIB).unwrap_err();
    assert!(out_of_memory(error.why()), "{error}");
}

#[test]
fn an_abort_that_has_nothing_to_do_with_memory_is_an_abort() {
    let pool = builder(1).memory_limit(LIMIT).build().unwrap();
    let error = pool
        .call(tasks::print_and_abort, "it is not that\n".to_owned())
        .unwrap_err();
    assert_eq!(*error.why(), Why::Died(Death::Signal(6)));
}

#[test]
fn workers_that_grew_are_replaced_between_calls() {
    let pool = builder(1).recycle_above(64 << 20).build().unwrap();
    let pids = pool.map(hogs::leak, [30 * MIB; 9]).unwrap();
    let mut workers = pids.clone();
    workers.dedup();
    // Three calls of 30 MiB are beyond it.
    assert_eq!(workers.len(), 3, "{pids:?}");
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn replacing_workers_that_grew_loses_nothing_also_while_closing() {
    let pool = builder(2).recycle_above(64 << 20).build().unwrap();
    let queued: Vec<_> = (0..12).map(|_| pool.submit(hogs::leak, 40 * MIB)).collect();
    pool.close();
    pool.join().unwrap();
    let mut workers: Vec<u32> = queued
        .into_iter()
        .map(|call| call.wait().unwrap())
        .collect();
    workers.sort_unstable();
    workers.dedup();
    // Each can take two of them; the last ones may have had only one.
    assert!((6..=7).contains(&workers.len()), "{workers:?}");
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    for refused in [builder(1).memory_limit(0), builder(1).recycle_above(0)] {
        assert!(matches!(refused.build(), Err(PoolError::Setting(_))));
    }
}

#[test]
fn settings_of_the_pool_hold_for_its_calls_and_those_of_a_map_go_first() {
    let pool = builder(1)
        .timeout(Duration::from_millis(100))
        .retries(2)
        .build()
        .unwrap();
    let error = pool.call(tasks::sleep_ms, 60_000).unwrap_err();
    assert_eq!(*error.why(), Why::TimedOut(Duration::from_millis(100)));
    assert_eq!(error.attempts(), 3);
    let longer = pool.with().timeout(Duration::from_secs(60));
    assert!(longer.call(tasks::sleep_ms, 300).is_ok());
}

#[test]
fn a_pause_does_not_count_for_deadlines() {
    let pool = builder(1)
        .timeout(Duration::from_millis(600))
        .build()
        .unwrap();
    let pid = pool.workers()[0].pid;
    let pending = pool.submit(hogs::spin_ms, 300);
    eventually("it runs", || pool.workers()[0].running.is_some());
    pool.pause();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    eventually("it is stopped", || state() == 'T');
    let mut waiting = pool.submit(tasks::square, 3);
    assert!(waiting.wait_timeout(Duration::from_secs(1)).is_none());
    pool.resume();
    pending.wait().unwrap();
    assert_eq!(waiting.wait().unwrap(), 9);
}

#[test]
fn a_paused_pool_can_be_terminated() {
    let pool = builder(2).build().unwrap();
    let _pending = [1, 2].map(|_| pool.submit(tasks::sleep_ms, 60_000));
    eventually("both run", || pool.stats().running == 2);
    pool.pause();
    let began = Instant::now();
    pool.terminate();
    assert!(began.elapsed() < Duration::from_millis(900));
}

#[test]
fn stopping_finishes_what_runs_and_starts_nothing() {
    let pool = builder(1).retries(1_000_000).build().unwrap();
    let running = pool.submit(tasks::sleep_ms, 200);
    eventually("it runs", || pool.stats().running == 1);
    let queued = pool.submit(tasks::fail, "no".to_owned());
    pool.stop();
    assert!(running.wait().is_ok());
    let error = queued.wait().unwrap_err();
    assert_eq!((error.why(), error.attempts()), (&Why::Cancelled, 0));
    assert!(error.to_string().contains("stopped"), "{error}");
    pool.join().unwrap();
    let refused = pool.call(tasks::square, 1).unwrap_err();
    assert_eq!(*refused.why(), Why::Cancelled);
}

/// A coordinator that was stopped as a whole, and its worker not, finds the worker's answer before it
/// thinks of the deadline.
#[test]
fn time_for_which_the_coordinator_is_stopped_does_not_count() {
    let mut coordinator = std::process::Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .args(["limited", "2000", "4000"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&coordinator);
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(coordinator.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "running");
    kill_process(pid, Signal::STOP).unwrap();
    // The call goes on meanwhile, and its deadline passes.
    std::thread::sleep(Duration::from_millis(3000));
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "Ok(4000)");
    assert!(coordinator.wait().unwrap().success());
}

#[test]
fn a_call_that_is_being_stopped_can_find_out() {
    let directory = tempfile::TempDir::new().unwrap();
    let note = directory.path().join("note");
    let pool = builder(1).grace(Duration::from_secs(5)).build().unwrap();
    let limited = pool.with().timeout(Duration::from_millis(50));
    let pending = limited.submit(hogs::leave_when_told, note.clone());
    eventually("it was told", || note.exists());
    // That it has tidied up does not make it a success.
    pool.terminate();
    assert_eq!(
        *pending.wait().unwrap_err().why(),
        Why::TimedOut(Duration::from_millis(50))
    );
}
