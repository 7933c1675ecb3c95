//! A pool goes on as long as it can have workers.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use coordinator::{Output, Pool};
use rustix::process::Signal;
use tests::processes::signal;
use tests::{eventually, tasks};

fn pool(workers: usize) -> Pool {
    Pool::builder()
        .workers(workers)
        .output(Output::Null)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .build()
        .unwrap()
}

#[test]
fn a_pool_whose_workers_are_all_killed_gets_others() {
    let pool = pool(8);
    for _ in 0..5 {
        eventually("all workers are ready", || pool.workers().len() == 8);
        for worker in pool.workers() {
            signal(worker.pid, Signal::KILL);
        }
        // A call may have been given to one before it died.
        let squares = pool.with().retries(3).map(tasks::square, 0..100);
        assert_eq!(squares.unwrap()[99], 99 * 99);
    }
}

/// There is nothing to start another with for a while, but there are others.
#[test]
fn a_worker_that_can_not_be_replaced_for_a_while_ends_nothing() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = directory.path().join("worker");
    std::fs::hard_link(env!("CARGO_BIN_EXE_misbehave"), &program).unwrap();
    // A link to it: a copy could still be open for writing when it is to be started.
    let pool = Pool::builder().workers(3).worker(&program).build().unwrap();
    eventually("all workers are ready", || pool.workers().len() == 3);
    let hidden = directory.path().join("hidden");
    std::fs::rename(&program, &hidden).unwrap();
    signal(pool.workers()[0].pid, Signal::KILL);
    let began = std::time::Instant::now();
    eventually("it was tried again and again", || {
        assert_eq!(pool.map(tasks::square, 0..10).unwrap()[9], 81);
        began.elapsed().as_millis() > 1500
    });
    std::fs::rename(&hidden, &program).unwrap();
    eventually("there is another worker", || pool.workers().len() == 3);
}
