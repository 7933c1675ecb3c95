//! One function in a process of its own: the cases of Python's and others' test suites.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::{Duration, Instant};

use coordinator::{Child, Death, Process, Why};
use tests::{eventually, is_alive, tasks};
use worker::Task;

fn start<T: Task>(task: T, input: T::Input) -> Child<T::Output> {
    Process::new(task, input)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .start()
        .unwrap()
}

#[test]
fn alive_id_and_exit_code_during_and_after() {
    let mut child = start(tasks::power, (2, 10));
    assert!(child.is_alive());
    assert_eq!(child.exit_code(), None);
    assert!(is_alive(child.id()));
    assert_eq!(child.join().unwrap(), 1024);
    assert!(!child.is_alive());
    assert_eq!(child.exit_code(), Some(0));
    assert!(!is_alive(child.id()));
}

#[test]
fn it_is_another_process() {
    let mut child = start(tasks::pid, ());
    let id = child.id();
    assert_ne!(id, std::process::id());
    assert_eq!(child.join().unwrap(), id);
}

#[test]
fn it_ends_without_being_joined() {
    let child = start(tasks::square, 3);
    eventually("the child ends", || !child.is_alive());
    assert_eq!(child.exit_code(), Some(0));
}

#[test]
fn terminate_and_kill_are_signals() {
    for (number, end) in [(15, Child::terminate as fn(&Child<u64>)), (9, Child::kill)] {
        let mut child = start(tasks::sleep_ms, 100_000);
        end(&child);
        let error = child.join().unwrap_err();
        assert_eq!(*error.why(), Why::Died(Death::Signal(number)));
        assert_eq!(child.exit_code(), Some(-number));
        assert!(!child.is_alive());
    }
}

#[test]
fn exit_codes_are_those_of_the_function() {
    let mut child = start(tasks::exit_with, 3);
    assert_eq!(*child.join().unwrap_err().why(), Why::Died(Death::Exit(3)));
    assert_eq!(child.exit_code(), Some(3));

    let mut child = start(tasks::fail, "no".to_owned());
    assert_eq!(
        *child.join().unwrap_err().why(),
        Why::Failed("no".to_owned())
    );
    assert_eq!(child.exit_code(), Some(1));
}

#[test]
fn a_panic_comes_back_whole() {
    let mut child = start(tasks::panic_with, "ouch".to_owned());
    let error = child.join().unwrap_err();
    let Why::Panicked {
        message,
        location,
        backtrace,
    } = error.why()
    else {
        panic!("{error}");
    };
    assert_eq!(message, "ouch");
    assert!(location.starts_with("tests/src/tasks.rs:"), "{location}");
    let wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    assert_eq!(backtrace.contains("panic_with"), wanted, "{backtrace}");
    assert_eq!(child.exit_code(), Some(1));
}

#[test]
fn join_timeout_does_not_wait_longer() {
    let mut child = start(tasks::sleep_ms, 100_000);
    let began = Instant::now();
    assert!(child.join_timeout(Duration::ZERO).is_none());
    assert!(child.join_timeout(Duration::from_millis(20)).is_none());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(child.is_alive());
    child.kill();
    assert!(child.join_timeout(Duration::MAX).unwrap().is_err());
}

#[test]
fn a_timeout_kills_it() {
    let process = Process::new(tasks::sleep_ms, 100_000).worker(env!("CARGO_BIN_EXE_misbehave"));
    let limit = Duration::from_millis(30);
    let mut child = process.timeout(limit).start().unwrap();
    assert_eq!(*child.join().unwrap_err().why(), Why::TimedOut(limit));
}

#[test]
fn dropping_it_ends_it() {
    let child = start(tasks::sleep_ms, 100_000);
    let id = child.id();
    drop(child);
    assert!(!is_alive(id));
}

#[test]
fn a_hundred_are_started_and_terminated_promptly() {
    let began = Instant::now();
    let mut children: Vec<_> = (0..100).map(|_| start(tasks::sleep_ms, 100_000)).collect();
    children.iter().for_each(Child::terminate);
    for child in &mut children {
        assert!(child.join().is_err());
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn descriptors_do_not_grow_with_siblings() {
    let first = start(tasks::open_files, ()).join().unwrap();
    let _siblings: Vec<_> = (0..10).map(|_| start(tasks::sleep_ms, 100_000)).collect();
    let last = start(tasks::open_files, ()).join().unwrap();
    assert_eq!(first, last);
}
