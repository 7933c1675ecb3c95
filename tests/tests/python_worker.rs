//! A worker in another language, written from the protocol's documentation: `examples/worker.py`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coordinator::{Builder, Death, Output, Pool, Why};
use serde_bytes::ByteBuf;
use tests::{python, run, tasks};

const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/worker.py");

/// `None` where there is no Python that is new enough.
fn builder() -> Option<Builder> {
    let new_enough = "import sys; sys.exit(sys.version_info < (3, 10))";
    let python = Command::new("python3").args(["-c", new_enough]).status();
    if !python.is_ok_and(|status| status.success()) {
        tests::skipped("there is no Python 3.10 here");
        return None;
    }
    Some(
        Pool::builder()
            .workers(2)
            .worker(Path::new(WORKER))
            .output(Output::Capture),
    )
}

#[test]
fn values_come_in_order() {
    let Some(builder) = builder() else { return };
    let pool = builder.build().unwrap();
    let squares = pool.map(tasks::square, -1500..1500).unwrap();
    let expected: Vec<i64> = (-1500..1500).map(|x| x * x).collect();
    assert_eq!(squares, expected);
    let words = |number: usize| vec!["ä".repeat(number), String::new(), "z".to_owned()];
    let inputs = (0..300).map(|number| (words(number), "–".to_owned()));
    for (number, joined) in pool
        .map(python::join, inputs)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        assert_eq!(joined, words(number).join("–"));
    }
    let numbers: Vec<i64> = [i64::MAX, i64::MIN, 0, -1].into();
    let quotients = pool
        .map(python::divide, numbers.iter().map(|number| (*number, 1)))
        .unwrap();
    assert_eq!(quotients, numbers);
    assert_eq!(
        pool.call(python::root, 6.25).unwrap().to_bits(),
        2.5_f64.to_bits()
    );
    pool.close();
    pool.join().unwrap();
}

#[test]
fn what_a_call_prints_and_how_it_fails_is_its_own() {
    let Some(builder) = builder() else { return };
    let pool = builder.build().unwrap();
    let (inputs, reports) = pool.with().open(python::shout);
    let inputs = inputs.unwrap();
    for number in 0..50 {
        inputs.send(format!("word {number}")).unwrap();
    }
    drop(inputs);
    for (number, report) in reports.enumerate() {
        assert_eq!(report.result.as_ref().unwrap(), &format!("WORD {number}!"));
        let printed = String::from_utf8(report.stdout.read().unwrap()).unwrap();
        assert_eq!(printed, format!("shouting word {number}\n"));
    }
    let roots = pool.map_each(python::root, [4.0, -1.0, 9.0]);
    let failed = roots[1].as_ref().unwrap_err();
    assert_eq!(*failed.why(), Why::Failed("-1.0 has no root".to_owned()));
    assert!(roots[0].is_ok() && roots[2].is_ok());
    let raised = pool.call(python::divide, (1, 0)).unwrap_err();
    let Why::Panicked {
        message, location, ..
    } = raised.why()
    else {
        panic!("{raised}")
    };
    assert!(message.starts_with("ZeroDivisionError: "), "{message}");
    assert!(location.contains("worker.py:"), "{location}");
    let unknown = pool.call(tasks::echo, vec![1]).unwrap_err();
    assert!(matches!(unknown.why(), Why::Undecodable(_)), "{unknown}");
    assert_eq!(pool.stats().workers_died, 0);
}

#[test]
fn deaths_and_limits_cost_the_call_that_ran() {
    let Some(builder) = builder() else { return };
    let pool = builder.grace(Duration::from_millis(100)).build().unwrap();
    let ends = pool.map_each(python::leave, 0..4);
    for (code, end) in ends.iter().enumerate() {
        let death = Death::Exit(i32::try_from(code).unwrap());
        assert_eq!(*end.as_ref().unwrap_err().why(), Why::Died(death));
    }
    let limit = Duration::from_millis(200);
    let waits = pool
        .with()
        .timeout(limit)
        .map_each(python::wait, [0.0, 60.0, 0.0]);
    assert_eq!(*waits[1].as_ref().unwrap_err().why(), Why::TimedOut(limit));
    assert!(waits[0].is_ok() && waits[2].is_ok());
    // A map whose other calls go on.
    assert_eq!(pool.map(tasks::square, 0..100).unwrap().len(), 100);
    let retried = pool.with().retries(2).call(python::leave, 7).unwrap_err();
    assert_eq!(retried.attempts(), 3);
}

#[test]
fn large_values_go_by_the_socket() {
    let Some(builder) = builder() else { return };
    let pool = builder.build().unwrap();
    for size in [0, 1, 40_000, 1 << 20, 50_000_000] {
        let piece: Vec<u8> = (0..251).collect();
        let mut data: Vec<u8> = piece.repeat(size / piece.len() + 1);
        data.truncate(size);
        let turned = pool
            .call(python::reverse, ByteBuf::from(data.clone()))
            .unwrap();
        data.reverse();
        assert!(turned == data, "{size} bytes");
    }
}

#[test]
fn packed_integers_are_read() {
    let Some(builder) = builder() else { return };
    let pool = builder.build().unwrap();
    for count in [0, 3, 255, 256, 10_000] {
        let numbers: Vec<i64> = (0..count).map(|at| at * at - 1_000_000).collect();
        let sum: i64 = numbers.iter().sum();
        assert_eq!(pool.call(python::total, numbers).unwrap(), sum);
    }
}

#[test]
fn the_command_line_runs_its_tasks() {
    if builder().is_none() {
        return;
    }
    let listed = run::coordinator(&["tasks", "--worker", WORKER]).output();
    assert!(
        run::stdout(&listed).contains("fn join(words: Vec<String>, between: String) -> String")
    );
    let joined = run::coordinator(&[
        "map",
        "join",
        "--worker",
        WORKER,
        ":::",
        r#"[["a","b"],"-"]"#,
    ])
    .output();
    run::prints(&joined, 0, "a-b\n");
    let shouted =
        run::coordinator(&["map", "shout", "--worker", WORKER, ":::", "1", "two"]).output();
    run::prints(&shouted, 0, "shouting 1\n1!\nshouting two\nTWO!\n");
    let wrong = run::coordinator(&["map", "square", "--worker", WORKER, ":::", "1", "x"]).output();
    run::complains(&wrong, 2, "input \"x\"");
    let initialized = builder()
        .unwrap()
        .initializer(python::shout, "hello".to_owned())
        .build();
    assert_eq!(initialized.unwrap().call(tasks::square, 3).unwrap(), 9);
}
