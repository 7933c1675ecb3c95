//! Pools with many more workers than the machine has processors.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::thread;
use std::time::Duration;

use coordinator::Pool;
use tempfile::TempDir;
use tests::{eventually, script, tasks};

const MANY: usize = 100;

fn pool() -> Pool {
    let builder = Pool::builder().workers(MANY);
    let builder = builder.worker(env!("CARGO_BIN_EXE_misbehave"));
    builder.build().unwrap()
}

#[test]
fn a_pool_that_ends_starts_no_more_workers() {
    let directory = TempDir::new().unwrap();
    let starts = directory.path().join("starts");
    let text = format!(
        "echo started >> {}; exec {} \"$@\"",
        starts.display(),
        env!("CARGO_BIN_EXE_misbehave")
    );
    let builder = Pool::builder().workers(MANY);
    let builder = builder.worker(script(directory.path(), &text));
    let pool = builder.build().unwrap();
    // While calls are short and others wait for the next, there is no use for most of the workers.
    pool.map(tasks::square, 0..20_000).unwrap();
    pool.close();
    pool.join().unwrap();
    let started = fs::read_to_string(&starts).unwrap().lines().count();
    assert!(started <= MANY / 2, "{started}");
}

#[test]
fn a_call_of_another_map_gets_a_worker_while_all_that_live_are_busy() {
    let directory = TempDir::new().unwrap();
    let go_on = directory.path().join("go on");
    let pool = pool();
    // As many as start in any case, and some.
    let held: Vec<_> = (0..MANY / 2)
        .map(|_| pool.submit(tasks::wait_for_file, Some(go_on.clone())))
        .collect();
    eventually("all wait", || pool.stats().running == held.len());
    let squared = pool
        .submit(tasks::square, 7)
        .wait_timeout(Duration::from_secs(10));
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(squared.unwrap().unwrap(), 49);
    held.into_iter().for_each(|held| held.wait().unwrap());
}

#[test]
fn calls_that_wait_use_all_workers_soon() {
    let directory = TempDir::new().unwrap();
    let go_on = directory.path().join("go on");
    let pool = pool();
    thread::scope(|scope| {
        let inputs = vec![Some(go_on.clone()); MANY];
        let map = scope.spawn(|| pool.map(tasks::wait_for_file, inputs));
        eventually("all wait", || pool.stats().running == MANY);
        std::fs::write(&go_on, "").unwrap();
        map.join().unwrap().unwrap();
    });
}
