//! Large inputs and outputs: whatever their sizes, however many are on their way, and whoever dies of them.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::Why;
use rustix::process::{Pid, Signal, kill_process};
use serde_bytes::ByteBuf;
use support::builder;
use tests::eventually;
use tests::large::{self, Picture, Slow};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Around each size at which something else is done.
fn sizes() -> Vec<usize> {
    let around = |size: usize| [size - 40, size - 3, size, size + 40];
    let sizes = [32 * KIB, 64 * KIB, 128 * KIB, 2 * MIB, 4 * MIB];
    [0, 1, 100, MIB, 9 * MIB]
        .into_iter()
        .chain(sizes.into_iter().flat_map(around))
        .collect()
}

fn pictures() -> Vec<Picture> {
    let pictures = (0..).zip(sizes());
    pictures
        .map(|(number, size)| Picture::new(number, size))
        .collect()
}

#[test]
fn what_is_large_arrives_whatever_its_size() {
    let pool = builder(2).build().unwrap();
    let pictures = pictures();
    let inputs = || pictures.iter().map(|picture| (picture.clone(), 0));
    assert!(pool.map(large::give_back, inputs()).unwrap() == pictures);
    let streamed = pool.stream(large::give_back, inputs());
    assert!(streamed.map(Result::unwrap).eq(pictures.iter().cloned()));
    for (input, picture) in inputs().zip(&pictures) {
        assert!(pool.call(large::give_back, input).unwrap() == *picture);
    }
    pool.close();
    pool.join().unwrap();
}

#[test]
fn more_large_inputs_than_there_is_room_for_at_a_time() {
    let pool = builder(2).build().unwrap();
    // All of them are kept until the workers may go on with their first ones.
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let slow = directories.each_ref().map(|directory| {
        let input = Slow::new(directory.path(), 200 * KIB);
        pool.submit(large::take_slowly, input)
    });
    let expected = |number| Picture::new(number, 300 * KIB);
    let pending = (0..30).map(|number| pool.submit(large::give_back, (expected(number), 0)));
    let pending: Vec<_> = pending.collect();
    for directory in &directories {
        fs::write(directory.path().join("go"), "").unwrap();
    }
    for slow in slow {
        slow.wait().unwrap();
    }
    for (number, pending) in (0..).zip(pending) {
        assert!(pending.wait().unwrap() == expected(number), "{number}");
    }
    pool.close();
    pool.join().unwrap();
}

#[test]
fn many_threads_call_at_once() {
    let pool = builder(3).build().unwrap();
    thread::scope(|scope| {
        for thread in 0..6 {
            let pool = &pool;
            scope.spawn(move || {
                for number in 0..10 {
                    let picture = Picture::new(thread * 100 + number, (130 * KIB) << (number % 5));
                    let got = pool.call(large::give_back, (picture.clone(), 0)).unwrap();
                    assert!(got == picture);
                }
            });
        }
    });
    pool.close();
    pool.join().unwrap();
}

#[test]
fn what_is_tried_again_is_what_it_was() {
    let pool = builder(2).build().unwrap();
    let with = pool.with().retries(2);
    let pictures = pictures();
    // Most of them kill a worker or two, which has had them before its eyes.
    let inputs = (0..)
        .zip(&pictures)
        .map(|(deaths, picture)| (picture.clone(), deaths % 3));
    assert!(with.map(large::give_back, inputs).unwrap() == pictures);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn what_a_worker_reads_stays_as_long_as_it_lives() {
    let patient = builder(2).grace(Duration::from_secs(30));
    let pool = patient
        .initializer(large::heed_no_term, ())
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let slow = pool.submit(large::take_slowly, Slow::new(directory.path(), MIB));
    eventually("it is being read", || file("reads").exists());
    // Nobody needs it any more, but its worker still reads.
    slow.cancel();
    for number in 0..40 {
        let picture = Picture::new(number, MIB);
        assert!(pool.call(large::give_back, (picture.clone(), 0)).unwrap() == picture);
    }
    fs::write(file("go"), "").unwrap();
    eventually("it has been read", || file("now").exists());
    // As the grace would, in the end.
    let reader = fs::read_to_string(file("reads")).unwrap();
    let reader = Pid::from_raw(reader.parse().unwrap()).unwrap();
    kill_process(reader, Signal::KILL).unwrap();
    assert_eq!(fs::read_to_string(file("now")).unwrap(), "same");
    assert_eq!(*slow.wait().unwrap_err().why(), Why::Cancelled);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn a_worker_that_is_killed_while_something_large_crosses_costs_an_attempt_and_no_more() {
    let pool = builder(1).build().unwrap();
    let picture = Picture::new(1, 40 * MIB);
    let is_done = AtomicBool::new(false);
    let kills = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            // At any moment of the crossings: each pause is a little longer than the last.
            let mut kills = 0_u64;
            while kills < 60 && !is_done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(3000 + 700 * (kills % 60)));
                for worker in pool.workers() {
                    let pid = Pid::from_raw(worker.pid as i32);
                    kills +=
                        u64::from(pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
                }
            }
            kills
        });
        for _ in 0..4 {
            let input = (picture.clone(), 0);
            let came = pool.with().retries(10_000).call(large::give_back, input);
            assert!(came.unwrap() == picture);
        }
        is_done.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    assert!(kills > 10, "{kills}");
    pool.close();
    pool.join().unwrap();
}

#[test]
fn a_pool_that_ends_waits_for_nothing_that_crosses() {
    for pause in [0, 5, 10, 20, 40, 80] {
        let pool = builder(2).build().unwrap();
        let large = Picture {
            bytes: ByteBuf::from(vec![7; 60 * MIB]),
            ..Picture::new(1, 0)
        };
        let pending = [(); 2].map(|()| pool.submit(large::give_back, (large.clone(), 0)));
        thread::sleep(Duration::from_millis(pause));
        let began = Instant::now();
        pool.terminate();
        pool.join().unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        for pending in pending {
            let _ = pending.wait();
        }
    }
}
