//! Values that are written once and read by each worker once.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::HashMap;

use coordinator::{Pool, Why};
use tests::{sharing, tasks};

fn pool(workers: usize) -> Pool {
    let builder = Pool::builder().workers(workers);
    builder
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .build()
        .unwrap()
}

fn table(len: u64) -> Vec<u64> {
    (0..len).map(|n| n * 3).collect()
}

#[test]
fn each_worker_reads_a_shared_value_once() {
    let pool = pool(2);
    let shared = pool.share(table(100_000));
    assert_eq!(shared[5], 15);
    let found = pool
        .map(sharing::nth, (0..1000).map(|n| (shared.clone(), n * 100)))
        .unwrap();
    assert!(
        found
            .iter()
            .zip((0..).step_by(300))
            .all(|(found, n)| *found == Some(n))
    );
    let mut places: HashMap<u32, usize> = HashMap::new();
    for (place, pid) in pool.map(sharing::place, vec![shared.clone(); 100]).unwrap() {
        assert_eq!(*places.entry(pid).or_insert(place), place);
    }
    // A worker that takes another's place reads it again.
    pool.call(tasks::exit_with, 1).unwrap_err();
    let again = pool
        .map(sharing::nth, vec![(shared.clone(), 7); 50])
        .unwrap();
    assert_eq!(again, [Some(21); 50]);
}

#[test]
fn what_was_dropped_is_freed_on_both_sides() {
    let pool = pool(1);
    let before = pool.call(sharing::memory, ()).unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let open = descriptors();
    for _ in 0..5 {
        let shared = pool.share(table(2_000_000));
        assert_eq!(
            pool.call(sharing::nth, (shared.clone(), 1)).unwrap(),
            Some(3)
        );
    }
    let after = pool.call(sharing::memory, ()).unwrap();
    assert!(after < before + (4 << 20), "{before} to {after}");
    // Other tests open and close theirs meanwhile: it must not be one for each value.
    assert!(descriptors() < open + 100);
}

#[test]
fn a_value_lives_as_long_as_calls_that_need_it() {
    let pool = pool(1);
    let shared = pool.share(table(10));
    let slow = pool.submit(tasks::sleep_ms, 100);
    let late = pool.submit(sharing::nth, (shared, 1));
    slow.wait().unwrap();
    assert_eq!(late.wait().unwrap(), Some(3));
}

#[test]
fn a_value_that_can_not_be_written_costs_its_calls_and_says_so() {
    let pool = pool(1);
    let error = pool
        .call(sharing::weigh, pool.share(sharing::Unwritable))
        .unwrap_err();
    let why = error.to_string();
    assert!(matches!(error.why(), Why::Undecodable(_)), "{why}");
    assert!(why.contains("a shared value could not be written"), "{why}");
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_value_has_one_type() {
    let pool = pool(1);
    let shared = pool.share(vec![u64::MAX; 10]);
    assert_eq!(
        pool.call(sharing::nth, (shared, 3)).unwrap(),
        Some(u64::MAX)
    );
    let text = pool.share("four".to_owned());
    assert_eq!(pool.call(sharing::misread, text).unwrap(), 4);
}

#[test]
fn what_an_initializer_refers_to_lives_as_long_as_the_pool() {
    let builder = Pool::builder()
        .workers(1)
        .worker(env!("CARGO_BIN_EXE_misbehave"));
    let pool = builder
        .initializer(sharing::nth, (worker::Shared::new(table(100)), 7))
        .build()
        .unwrap();
    let other = pool.share(table(10));
    for _ in 0..3 {
        assert_eq!(
            pool.call(sharing::nth, (other.clone(), 1)).unwrap(),
            Some(3)
        );
        // The next worker is initialized, too.
        pool.call(tasks::exit_with, 1).unwrap_err();
    }
    drop(other);
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}
