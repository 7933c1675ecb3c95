//! A program that is copied by `fork` while it has a pool.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    unsafe_code,
    reason = "for the tests"
)]

use std::time::Duration;

use coordinator::{CallError, Output, Pool, PoolError, Process, Why};
use tests::tasks;

fn main() {
    worker::init();
    match std::env::args().nth(1).as_deref() {
        Some("both") => both(),
        Some("dies") => dies(),
        other => panic!("{other:?}"),
    }
}

/// Says no at once, because it is a copy.
fn is_refused<O: std::fmt::Debug>(result: Result<O, CallError>) {
    let error = result.unwrap_err();
    assert_eq!(*error.why(), Why::Cancelled, "{error}");
    assert!(
        error.to_string().contains("this process is a copy"),
        "{error}"
    );
}

/// Both use what there is, at the same time.
fn both() {
    let builder = || Pool::builder().workers(2).output(Output::Capture);
    let pool = builder().build().unwrap();
    let shared = pool.share(vec![7_u64; 100]);
    let running = pool.submit(tasks::sleep_ms, 300);
    let mut child = Process::new(tasks::sleep_ms, 300).start().unwrap();
    let mut stream = pool.stream(tasks::square, 0..1_000_000);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    // SAFETY: C makes its own locks usable in the copy, and what else the copy touches has to be so as well: that is what
    // is to be tested.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        is_refused(running.wait());
        for _ in 0..200 {
            is_refused(pool.call(tasks::square, 2));
            is_refused(pool.map(tasks::square, 0..10));
            is_refused(pool.submit(tasks::square, 2).wait());
        }
        is_refused(pool.stream(tasks::square, 0..3).next().unwrap());
        let rest: Vec<_> = stream.by_ref().filter_map(Result::err).collect();
        assert_eq!(rest.len(), 1);
        assert_eq!(pool.join(), Err(PoolError::Copied));
        assert!(pool.tasks().is_err() && pool.workers().is_empty() && pool.running().is_empty());
        pool.stop();
        pool.terminate();
        assert!(!child.is_alive());
        child.kill();
        is_refused(child.join());
        drop((pool, stream, child));
        // One of its own is as good as any, and what was shared before still is.
        let own = builder().build().unwrap();
        assert_eq!(own.map(tasks::square, 0..3).unwrap(), [0, 1, 4]);
        assert_eq!(
            own.call(tests::sharing::nth, (shared.clone(), 3)).unwrap(),
            Some(7)
        );
        drop((own, shared));
        // SAFETY: what is to be done at the program's end is for the other to do.
        unsafe { libc::_exit(0) };
    }
    for round in 0..200 {
        assert_eq!(pool.call(tasks::square, round).unwrap(), round * round);
        assert_eq!(
            pool.call(tests::sharing::nth, (shared.clone(), 3)).unwrap(),
            Some(7)
        );
    }
    assert_eq!(running.wait().unwrap(), 300);
    assert_eq!(child.join().unwrap(), 300);
    let mut status = 0;
    // SAFETY: this program's own child, and room for what is written.
    unsafe { libc::waitpid(copy, &raw mut status, 0) };
    assert_eq!(status, 0);
    // The copy's last one was not the last one.
    assert_eq!(
        pool.call(tests::sharing::nth, (shared, 3)).unwrap(),
        Some(7)
    );
    assert_eq!(pool.stats().workers_died, 0);
    println!("all is well");
}

/// Dies, while a copy lives.
fn dies() {
    let pool = Pool::builder().workers(2).build().unwrap();
    // Both have to be there.
    while pool.workers().len() < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let workers = pool.workers();
    // SAFETY: the copy only waits.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        // SAFETY: as above. The alarm is for the case that the test does not come to end it.
        unsafe { libc::alarm(60) };
        loop {
            // SAFETY: as above.
            unsafe { libc::pause() };
        }
    }
    println!("{copy} {} {}", workers[0].pid, workers[1].pid);
    // SAFETY: that is what is to be tested.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}
