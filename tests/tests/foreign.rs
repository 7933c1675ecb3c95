//! Code of the host that runs within the pool: wakers, and destructors of values.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use coordinator::{Output, Pending, Pool};
use tests::foreign::{Token, on_drop, read_token};
use tests::{eventually, tasks};

/// Much longer than a call of the tests that is to end.
const LONG: u64 = 100_000;

fn pool(workers: usize) -> Pool {
    Pool::builder()
        .workers(workers)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .output(Output::Forward)
        .build()
        .unwrap()
}

/// Runs something that must not hang on a thread of its own.
fn promptly<R: Send + 'static>(what: &str, run: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(run()));
    let result = receiver.recv_timeout(Duration::from_secs(30));
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// A waker that runs something once.
struct Once(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Once {
    fn waker(run: impl FnOnce() + Send + 'static) -> Waker {
        Arc::new(Once(Mutex::new(Some(Box::new(run))))).into()
    }
}

impl Wake for Once {
    fn wake(self: Arc<Self>) {
        let run = self.0.lock().unwrap().take();
        if let Some(run) = run {
            run();
        }
    }
}

/// Polls a call that has not ended.
fn poll<O>(pending: &mut Pending<O>, waker: &Waker) {
    let polled = Pin::new(pending).poll(&mut Context::from_waker(waker));
    assert!(polled.is_pending());
}

#[test]
fn a_waker_that_is_replaced_may_drop_another_call() {
    promptly("polling with another waker hangs", || {
        let pool = pool(2);
        let mut call = pool.submit(tasks::sleep_ms, LONG);
        let other = pool.submit(tasks::sleep_ms, LONG);
        let first = Once::waker(move || drop(other));
        poll(&mut call, &first);
        drop(first);
        poll(&mut call, Waker::noop());
        assert!(!call.is_done());
    });
}

#[test]
fn the_destructor_of_a_shared_value_may_use_the_pool() {
    promptly("a destructor that uses the pool hangs", || {
        let pool = Arc::new(pool(1));
        let (theirs, (sender, dropped)) = (Arc::clone(&pool), mpsc::channel());
        on_drop(move || {
            let stats = theirs.stats();
            drop(theirs);
            sender.send(stats).unwrap();
        });
        let token = pool.share(Token(7));
        assert_eq!(pool.submit(read_token, token).wait().unwrap(), 7);
        assert_eq!(dropped.recv().unwrap().workers_started, 1);
    });
}

#[test]
fn a_waker_that_goes_with_its_call_may_drop_another_call() {
    promptly("dropping a call with its waker hangs", || {
        let pool = pool(2);
        let mut call = pool.submit(tasks::sleep_ms, LONG);
        let other = pool.submit(tasks::sleep_ms, LONG);
        let waker = Once::waker(move || drop(other));
        poll(&mut call, &waker);
        drop(waker);
        call.cancel();
        assert!(call.wait().is_err());
    });
}

#[test]
fn wakers_that_panic_cost_no_worker() {
    promptly("a map after wakers that panicked hangs", || {
        let pool = pool(2);
        let woken = Arc::new(AtomicUsize::new(0));
        for number in 1..=3 {
            let mut call = pool.submit(tasks::sleep_ms, 200);
            let count = Arc::clone(&woken);
            let waker = Once::waker(move || {
                count.fetch_add(1, Ordering::SeqCst);
                panic!("a waker panics, as the test wants");
            });
            poll(&mut call, &waker);
            eventually("the waker runs", || woken.load(Ordering::SeqCst) == number);
            assert_eq!(call.wait().unwrap(), 200);
        }
        assert_eq!(pool.map(tasks::square, 0..50).unwrap().len(), 50);
    });
}

#[test]
fn a_waker_may_end_the_pool_or_wait_for_a_call() {
    promptly("a pool that is used by its waker hangs", || {
        for end in [
            |pool: Arc<Pool>| assert_eq!(pool.call(tasks::square, 3).unwrap(), 9),
            |pool: Arc<Pool>| pool.terminate(),
            |pool: Arc<Pool>| drop(Arc::into_inner(pool).unwrap()),
        ] {
            let pool = Arc::new(pool(1));
            let mut call = pool.submit(tasks::sleep_ms, 200);
            let (sender, ended) = mpsc::channel();
            let waker = Once::waker(move || {
                end(pool);
                sender.send(()).unwrap();
            });
            poll(&mut call, &waker);
            ended.recv().unwrap();
            assert_eq!(call.wait().unwrap(), 200);
        }
    });
}

#[test]
fn a_host_that_holds_stdout_does_not_stop_the_pool() {
    let pool = pool(1);
    let out = io::stdout().lock();
    drop(pool.submit(
        tasks::print_part,
        "printed by a forgotten call\n".to_owned(),
    ));
    promptly("the pool waits for stdout", move || {
        assert_eq!(pool.map(tasks::square, 0..50).unwrap().len(), 50);
        pool.terminate();
    });
    drop(out);
}

#[test]
fn a_call_that_is_polled_after_its_result_was_taken_panics() {
    promptly("a second poll hangs", || {
        let pool = pool(1);
        let mut call = pool.submit(tasks::square, 3);
        eventually("the call ends", || call.is_done());
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut call).poll(&mut context).is_ready());
        let again = std::panic::AssertUnwindSafe(|| Pin::new(&mut call).poll(&mut context));
        assert!(std::panic::catch_unwind(again).is_err());
    });
}
