//! Streams whose inputs take their time.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use coordinator::Pool;
use tests::{eventually, tasks};

fn pool(workers: usize) -> Pool {
    Pool::builder()
        .workers(workers)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
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

/// Inputs of which the third one only comes when the second result was taken.
fn three(told: mpsc::Receiver<()>) -> impl Iterator<Item = i64> + Send {
    (0..3).inspect(move |number| {
        if *number == 2 {
            told.recv().unwrap();
        }
    })
}

#[test]
fn what_is_ready_comes_before_another_input_is_asked_for() {
    promptly(
        "a stream waits for an input while a result is ready",
        || {
            let pool = Arc::new(pool(1));
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("go");
            let (tell, told) = mpsc::channel();
            let (go, theirs) = (file.clone(), Arc::clone(&pool));
            // A filter promises no inputs, so that each is read by itself. The first call ends while the
            // second input is being read.
            let inputs = three(told).filter(move |number| {
                if *number == 1 {
                    std::fs::write(&go, "").unwrap();
                    eventually("the first call ends", || theirs.stats().succeeded == 1);
                }
                true
            });
            let files = inputs.map(move |number| (number == 0).then(|| file.clone()));
            let mut stream = pool.stream(tasks::wait_for_file, files);
            stream.next().unwrap().unwrap();
            eventually("the second call ends", || pool.stats().succeeded == 2);
            stream.next().unwrap().unwrap();
            tell.send(()).unwrap();
            stream.next().unwrap().unwrap();
            assert!(stream.next().is_none());
        },
    );
}

#[test]
fn with_a_thread_inputs_may_wait_for_earlier_results() {
    promptly("a stream with a thread waits for an input", || {
        let pool = pool(2);
        let (tell, told) = mpsc::channel();
        let mut stream = pool.stream_threaded(tasks::square, three(told));
        assert_eq!(stream.next().unwrap().unwrap(), 0);
        assert_eq!(stream.next().unwrap().unwrap(), 1);
        tell.send(()).unwrap();
        assert_eq!(stream.next().unwrap().unwrap(), 4);
        assert!(stream.next().is_none());
        assert!(stream.next().is_none());
    });
}

#[test]
fn with_a_thread_a_panic_of_the_inputs_and_the_end_of_the_pool_are_seen() {
    promptly("a stream with a thread does not end", || {
        let pool = pool(1);
        let inputs = (0..2).chain(std::iter::from_fn(|| panic!("as the test wants")));
        let mut stream = pool.stream_threaded(tasks::square, inputs);
        assert_eq!(
            stream.by_ref().take(2).filter_map(Result::ok).sum::<i64>(),
            1
        );
        let ended = catch_unwind(AssertUnwindSafe(|| stream.next()));
        assert!(ended.is_err());
        assert!(stream.next().is_none());

        let (never, told) = mpsc::channel();
        let mut stream = pool.stream_threaded(tasks::square, three(told));
        assert_eq!(
            stream.by_ref().take(2).filter_map(Result::ok).sum::<i64>(),
            1
        );
        pool.close();
        let error = stream.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
        assert!(stream.next().is_none());
        drop(never);
        let refused = pool.stream_threaded(tasks::square, 0..3);
        assert_eq!(refused.filter(Result::is_err).count(), 1);
    });
}

#[test]
fn large_inputs_with_small_results_are_not_read_far_ahead() {
    promptly("a stream of large inputs hangs", || {
        let pool = pool(2);
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        let inputs = (0..100).map(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            vec![0; 1 << 20].into()
        });
        let mut stream = pool.stream_threaded(tasks::count_bytes, inputs);
        assert_eq!(stream.next().unwrap().unwrap(), 1 << 20);
        // All that were let in have ended; one more was read and waits for room.
        eventually("the window is full", || {
            let read = read.load(Ordering::SeqCst);
            read >= 9 && pool.stats().succeeded + 1 == read
        });
        assert!(read.load(Ordering::SeqCst) <= 12, "{read:?}");
        assert_eq!(stream.count(), 99);
    });
}
