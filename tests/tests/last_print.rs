//! What a call prints while it is being stopped is part of it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use coordinator::{Output, Pool, Why};
use tests::{hogs, large};

#[test]
fn what_a_call_prints_that_answers_too_late_is_kept() {
    let pool = Pool::builder()
        .workers(1)
        .output(Output::Capture)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .initializer(large::heed_no_term, ())
        .build()
        .unwrap();
    let with = pool
        .with()
        .timeout(Duration::from_millis(50))
        .grace(Duration::from_secs(2));
    let (inputs, mut reports) = with.open(hogs::tidy_when_stopped);
    inputs.unwrap().send(()).unwrap();
    let report = reports.next().unwrap();
    let error = report.result.unwrap_err();
    assert!(matches!(error.why(), Why::TimedOut(_)), "{error}");
    assert_eq!(report.stdout.read().unwrap(), b"tidied\n");
}
