//! A pool of processes: the cases of Python's and others' test suites.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::{CallError, Death, Order, Output, Pool, PoolError, Why};
use support::{builder, pool};
use tempfile::TempDir;
use tests::tasks::{self, Fragile};
use tests::{eventually, is_alive};

fn pids(pool: &Pool) -> Vec<u32> {
    pool.workers().iter().map(|worker| worker.pid).collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn map_equals_serial_for_any_size() {
    let pool = pool(3);
    for size in [0, 1, 2, 3, 7, 100, 1000] {
        let expected: Vec<i64> = (0..size).map(|x| x * x).collect();
        assert_eq!(pool.map(tasks::square, 0..size).unwrap(), expected);
    }
}

#[test]
fn tuples_unordered_and_single_calls() {
    let pool = pool(2);
    assert_eq!(
        pool.map(tasks::power, [(2, 10), (3, 3)]).unwrap(),
        [1024, 27]
    );
    assert_eq!(pool.call(tasks::power, (5, 2)).unwrap(), 25);
    let mut seen: Vec<_> = pool
        .stream_unordered(tasks::square, 0..500)
        .map(|(i, x)| (i, x.unwrap()))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        (0..500).map(|x: i64| (x as u64, x * x)).collect::<Vec<_>>()
    );
    let lazily: Vec<_> = pool
        .stream(tasks::square, 0..500)
        .map(Result::unwrap)
        .collect();
    assert_eq!(lazily, (0..500).map(|x| x * x).collect::<Vec<_>>());
}

#[test]
fn the_first_error_by_index_is_returned() {
    let error = pool(4)
        .map(tasks::power, [(2, 3), (9, 99), (2, 2), (8, 99)])
        .unwrap_err();
    assert_eq!(
        (error.index(), error.task(), error.attempts()),
        (1, "power", 1)
    );
    assert_eq!(*error.why(), Why::Failed("overflow".to_owned()));
}

#[test]
fn one_death_costs_one_call() {
    let pool = pool(2);
    for round in 0..10 {
        let results = pool.map_each(tasks::square_but_die, (0..50).map(|x| (x, 20 + round)));
        for (x, result) in (0..).zip(results) {
            if x == 20 + round {
                let error = result.unwrap_err();
                assert_eq!(*error.why(), Why::Died(Death::Signal(9)));
                assert_eq!((error.index(), error.attempts()), (x as u64, 1));
                assert!(error.worker().is_some());
            } else {
                assert_eq!(result.unwrap(), x * x);
            }
        }
    }
    assert_eq!(pool.stats().workers_died, 10);
}

#[test]
fn every_kind_of_death_is_told_apart() {
    let pool = pool(1);
    for (number, name) in [
        (11, "SIGSEGV"),
        (6, "SIGABRT"),
        (9, "SIGKILL"),
        (15, "SIGTERM"),
    ] {
        let error = pool.call(tasks::raise, number).unwrap_err();
        assert_eq!(*error.why(), Why::Died(Death::Signal(number)));
        assert!(error.to_string().contains(name), "{error}");
    }
    for code in [0, 3] {
        let error = pool.call(tasks::exit_with, code).unwrap_err();
        assert_eq!(*error.why(), Why::Died(Death::Exit(code)));
    }
    assert_eq!(pool.call(tasks::square, 4).unwrap(), 16);
}

#[test]
fn an_idle_worker_that_is_killed_is_replaced_unnoticed() {
    let pool = pool(1);
    for x in 0..20 {
        eventually("there is a worker", || !pids(&pool).is_empty());
        kill(pids(&pool)[0]);
        assert_eq!(
            pool.map(tasks::square, [x, x + 1]).unwrap(),
            [x * x, (x + 1) * (x + 1)]
        );
    }
}

#[test]
fn what_cannot_be_encoded_is_an_error_of_its_call() {
    let pool = pool(1);
    let before = pool.call(tasks::pid, ()).unwrap();
    for _ in 0..20 {
        let error = pool.call(tasks::fragile_output, false).unwrap_err();
        assert!(matches!(error.why(), Why::Undecodable(_)), "{error}");
        assert!(
            error.to_string().contains("could not be encoded"),
            "{error}"
        );
        let error = pool.call(tasks::fragile_input, Fragile(false)).unwrap_err();
        assert!(matches!(error.why(), Why::Undecodable(_)), "{error}");
    }
    assert!(pool.call(tasks::fragile_output, true).unwrap().0);
    // No worker was lost by it.
    assert_eq!(pool.call(tasks::pid, ()).unwrap(), before);
}

#[test]
fn a_panic_in_the_inputs_comes_after_the_results_before_it() {
    let pool = pool(2);
    let inputs = (0..5).inspect(|x| assert!(*x < 3, "no more inputs"));
    let mut stream = pool.stream(tasks::square, inputs);
    let before: Vec<_> = stream.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(before, [0, 1, 4]);
    assert!(catch_unwind(AssertUnwindSafe(|| stream.next())).is_err());
    assert_eq!(pool.call(tasks::square, 5).unwrap(), 25);
}

#[test]
fn a_stream_reads_a_window_of_its_inputs_and_no_more() {
    let pool = pool(2);
    let read = Cell::new(0);
    let inputs = (0..200_000).inspect(|_| read.set(read.get() + 1));
    let mut stream = pool.stream(tasks::square, inputs);
    assert_eq!(read.get(), 0);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    assert!(read.get() <= 4096, "{}", read.get());
    drop(stream);
    // Inputs that are large fill the window by their bytes.
    let read = Cell::new(0);
    let large = std::iter::repeat_with(|| {
        read.set(read.get() + 1);
        vec![0; 1 << 20]
    });
    assert_eq!(
        pool.stream(tasks::echo, large)
            .next()
            .unwrap()
            .unwrap()
            .len(),
        1 << 20
    );
    assert!(read.get() <= 20, "{}", read.get());
}

#[test]
fn dropping_a_stream_cancels_the_rest_promptly() {
    let pool = pool(2);
    let began = Instant::now();
    let inputs = std::iter::once(0).chain(std::iter::repeat(100_000));
    let mut stream = pool.stream(tasks::sleep_ms, inputs);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    drop(stream);
    assert_eq!(pool.call(tasks::square, 2).unwrap(), 4);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn close_and_join_after_a_partial_read_of_a_stream() {
    let pool = pool(2);
    let mut stream = pool.stream(tasks::square, 0..);
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    pool.close();
    pool.join().unwrap();
    // What had been read is there; that there would have been more is not hidden.
    let (last, rest) = stream
        .map(|result| result.ok())
        .collect::<Vec<_>>()
        .split_last()
        .map(|(last, rest)| (*last, rest.to_vec()))
        .unwrap();
    assert_eq!(last, None);
    assert!(
        rest.iter()
            .zip(1..)
            .all(|(result, x)| *result == Some(x * x))
    );
}

#[test]
fn a_stream_that_ends_with_its_pool_does_not_look_complete() {
    // The last is the pool's drop.
    let ends: [fn(&Pool); 4] = [Pool::stop, Pool::terminate, Pool::close, |_| {}];
    for end in ends {
        let mut pool = Some(pool(2));
        let kept = pool.as_ref().unwrap();
        let mut stream = kept.stream(tasks::square, 0..);
        assert_eq!(stream.next().unwrap().unwrap(), 0);
        // All that was read of the inputs has ended.
        eventually("nothing is left to run", || {
            kept.stats().waiting == 0 && kept.stats().running == 0
        });
        end(kept);
        drop(pool.take());
        assert_eq!(*stream.last().unwrap().unwrap_err().why(), Why::Cancelled);
    }
}

#[test]
fn use_after_close_is_refused() {
    let pool = pool(2);
    assert_eq!(pool.join().unwrap_err(), PoolError::NotClosed);
    pool.close();
    let error = pool.call(tasks::square, 1).unwrap_err();
    assert_eq!(*error.why(), Why::Cancelled);
    assert!(error.to_string().contains("the pool is closed"), "{error}");
    let errors: Vec<CallError> = pool
        .map_each(tasks::square, 0..3)
        .into_iter()
        .map(Result::unwrap_err)
        .collect();
    assert_eq!(
        errors.iter().map(CallError::index).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    pool.join().unwrap();
    pool.join().unwrap();
    assert!(pool.workers().is_empty());
}

#[test]
fn close_finishes_what_was_submitted() {
    let pool = pool(2);
    let pending: Vec<_> = (0..20).map(|x| pool.submit(tasks::square, x)).collect();
    pool.close();
    pool.join().unwrap();
    let results: Vec<_> = pending
        .into_iter()
        .map(|pending| pending.wait().unwrap())
        .collect();
    assert_eq!(results, (0..20).map(|x| x * x).collect::<Vec<_>>());
}

#[test]
fn terminate_with_ten_thousand_long_calls_returns_promptly() {
    let pool = pool(2);
    let pending: Vec<_> = (0..10_000)
        .map(|_| pool.submit(tasks::sleep_ms, 100_000))
        .collect();
    let workers = pids(&pool);
    let began = Instant::now();
    pool.terminate();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(workers.iter().all(|pid| !is_alive(*pid)));
    for pending in pending {
        assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
    }
}

#[test]
fn a_worker_that_ignores_sigterm_is_killed_after_the_grace() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("pids");
    let pool = builder(1).grace(Duration::from_millis(50)).build().unwrap();
    let pending = pool.submit(tasks::hold_out, file.clone());
    eventually("it holds out", || file.exists());
    let pids = std::fs::read_to_string(&file).unwrap();
    pending.cancel();
    assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    eventually("it and its child are gone", || {
        pids.iter().all(|pid| !is_alive(*pid))
    });
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_queued_call_that_is_cancelled_never_runs() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ran");
    let pool = pool(1);
    let first = pool.submit(tasks::sleep_ms, 100);
    let second = pool.submit(tasks::append, (file.clone(), "ran".to_owned()));
    second.cancel();
    assert_eq!(*second.wait().unwrap_err().why(), Why::Cancelled);
    assert_eq!(first.wait().unwrap(), 100);
    pool.close();
    pool.join().unwrap();
    assert!(!file.exists());
}

#[test]
fn pending_calls_wait_time_out_and_are_futures() {
    let pool = pool(1);
    let mut slow = pool.submit(tasks::sleep_ms, 200);
    let began = Instant::now();
    assert!(slow.wait_timeout(Duration::from_millis(20)).is_none());
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(!slow.is_done());
    assert_eq!(block_on(slow).unwrap(), 200);
    assert_eq!(block_on(pool.submit(tasks::square, 6)).unwrap(), 36);
}

/// The smallest async runtime there is.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
        {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn large_errors_and_payloads_do_not_deadlock() {
    let pool = pool(2);
    let text = "x".repeat(1 << 20);
    for result in pool.map_each(tasks::fail, vec![text.clone(); 10]) {
        assert_eq!(*result.unwrap_err().why(), Why::Failed(text.clone()));
    }
    let bytes: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 1 << 20]).collect();
    assert_eq!(pool.map(tasks::echo, bytes.clone()).unwrap(), bytes);
    let huge = vec![7; 32 << 20];
    assert!(pool.call(tasks::echo, huge.clone()).unwrap() == huge);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn recycling_loses_nothing_also_while_closing() {
    let pool = builder(2).recycle_after(1).build().unwrap();
    let workers: HashSet<_> = pool
        .map(tasks::pid, [(); 12])
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(workers.len(), 12);
    let pending: Vec<_> = (0..10).map(|x| pool.submit(tasks::square, x)).collect();
    pool.close();
    pool.join().unwrap();
    for (x, pending) in (0..).zip(pending) {
        assert_eq!(pending.wait().unwrap(), x * x);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for builder in [builder(0), builder(1).recycle_after(0)] {
        assert!(matches!(
            builder.build().unwrap_err(),
            PoolError::Setting(_)
        ));
    }
}

#[test]
fn a_worker_that_cannot_be_started_is_an_error_at_once() {
    let build = |path: &str| {
        Pool::builder()
            .worker(path)
            .build()
            .unwrap_err()
            .to_string()
    };
    assert!(build("/nowhere").contains("/nowhere"));
    assert!(build("/bin/true").contains("exited with code 0 before it was ready"));
    // Without a path, and without worker::init(): an error that lists the four places.
    let error = Pool::new(1).unwrap_err();
    let PoolError::NoWorker { looked } = &error else {
        panic!("{error}")
    };
    assert_eq!(looked.len(), 4);
}

#[test]
fn the_initializer_runs_first_and_once_in_each_worker() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log");
    let builder = builder(2).initializer(tasks::append, (file.clone(), "ready".to_owned()));
    let pool = builder.build().unwrap();
    pool.map(tasks::sleep_ms, vec![20; 4]).unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "ready\nready\n");
}

#[test]
fn an_initializer_that_fails_is_reported_at_once() {
    let error = builder(2)
        .initializer(tasks::fail, "no licence".to_owned())
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the initializer of the workers failed: no licence"
    );
    let error = builder(2)
        .initializer(tasks::exit_with, 3)
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("initializer"), "{error}");
}

#[test]
fn ten_threads_share_one_pool() {
    let pool = pool(3);
    thread::scope(|scope| {
        for start in 0..10 {
            let pool = &pool;
            scope.spawn(move || {
                let inputs = start * 100..start * 100 + 100;
                let expected: Vec<i64> = inputs.clone().map(|x| x * x).collect();
                assert_eq!(pool.map(tasks::square, inputs).unwrap(), expected);
            });
        }
    });
    assert_eq!(pool.stats().succeeded, 1000);
    assert_eq!(pool.stats().workers_started, 3);
}

#[test]
fn maps_share_the_workers_fairly() {
    let pool = pool(2);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for result in pool.stream(tasks::sleep_ms, vec![5; 200]) {
                result.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        eventually("the long map has begun", || {
            done.load(Ordering::Relaxed) > 0
        });
        pool.map(tasks::sleep_ms, vec![5; 4]).unwrap();
        // A map that came later did not wait for the one before it.
        assert!(done.load(Ordering::Relaxed) < 150);
    });
}

/// Whichever worker has it, no other call waits behind it.
#[test]
fn a_slow_call_holds_nothing_back() {
    let pool = pool(2);
    let with = pool.with().order(Order::Completion);
    let (inputs, reports) = with.open(tasks::sleep_ms);
    let inputs = inputs.unwrap();
    inputs.send(100_000).unwrap();
    (0..200).for_each(|_| inputs.send(0).unwrap());
    drop(inputs);
    let others: Vec<_> = reports.take(200).map(|report| report.result).collect();
    assert_eq!(others, vec![Ok(0); 200]);
}

#[test]
fn a_task_can_use_a_pool_itself() {
    let pool = pool(2);
    assert_eq!(pool.map(tasks::sum_of_squares, [3, 4]).unwrap(), [14, 30]);
}

#[test]
fn a_call_knows_what_it_is() {
    let pool = pool(1);
    assert_eq!(
        pool.map(tasks::current, [(); 3]).unwrap(),
        [0, 1, 2].map(|i| Some((1, i, 1)))
    );
    assert_eq!(worker::current(), None);
}

#[test]
fn captured_output_is_kept_with_the_call() {
    let pool = builder(1).output(Output::Capture).build().unwrap();
    let (inputs, mut reports) = pool.with().open(tasks::print_part);
    let inputs = inputs.unwrap();
    inputs.send("kept".to_owned()).unwrap();
    let report = reports.next().unwrap();
    assert_eq!(report.stdout.read().unwrap(), b"kept");
    assert!(report.stderr.is_empty());
    drop(reports);
    assert!(inputs.send("nobody wants it".to_owned()).is_err());
    let silent = builder(1).output(Output::Null).build().unwrap();
    silent
        .call(tasks::print_part, "nothing".to_owned())
        .unwrap();
}

#[test]
fn a_call_that_fails_is_tried_again_if_asked_to() {
    let pool = pool(1);
    let error = pool
        .with()
        .retries(2)
        .call(tasks::exit_with, 1)
        .unwrap_err();
    assert_eq!(
        (error.attempts(), error.why()),
        (3, &Why::Died(Death::Exit(1)))
    );
}

#[test]
fn a_timer_starts_with_the_call_and_the_map_goes_on() {
    let pool = pool(1);
    let limit = Duration::from_millis(500);
    let results = pool
        .with()
        .timeout(limit)
        .map_each(tasks::sleep_ms, [300, 100_000, 300, 0]);
    let ended: Vec<_> = results
        .into_iter()
        .map(|r| r.map_err(|e| e.why().clone()))
        .collect();
    assert_eq!(ended, [Ok(300), Err(Why::TimedOut(limit)), Ok(300), Ok(0)]);
}
