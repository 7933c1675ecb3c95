//! What works on one machine works on several.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator::{Output, Pool, Shared, Why, task};

use super::support::{Agent, Broker, GRACE, LEASE, SOON};

#[task]
fn square(x: i64) -> i64 {
    x * x
}

#[task]
fn talk(x: u32) -> Result<u32, String> {
    println!("out {x}");
    eprint!("err {x}");
    match x {
        3 => Err("three".to_owned()),
        4 => panic!("four"),
        5 => std::process::exit(5),
        6 => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        _ => Ok(x),
    }
}

#[task]
fn reverse(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().rev().collect()
}

#[task]
fn print_much(bytes: usize) {
    print!("{}", "x".repeat(bytes));
}

#[task]
fn complain(panics: bool) -> Result<(), String> {
    let much = "x".repeat(1 << 20);
    match panics {
        true => panic!("{much}"),
        false => Err(much),
    }
}

static BASE: AtomicU64 = AtomicU64::new(0);

#[task]
fn set_base(base: u64, table: Shared<Vec<u64>>) {
    BASE.store(base + table[0], Ordering::Relaxed);
}

#[task]
fn add(table: Shared<Vec<u64>>, at: usize) -> u64 {
    BASE.load(Ordering::Relaxed) + table[at]
}

fn pool(broker: &Broker) -> Pool {
    let pool = Pool::builder().workers(0).agents(broker.agents());
    let pool = pool.lease(LEASE).grace(GRACE).output(Output::Capture);
    pool.build().unwrap()
}

#[test]
fn maps_streams_and_single_calls() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agents = [Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 1)];
    let pool = pool(&broker);
    let squares: Vec<i64> = (0..10_000).map(|x| x * x).collect();
    assert_eq!(pool.map(square, 0..10_000).unwrap(), squares);
    let streamed: Vec<i64> = pool.stream(square, 0..500).map(Result::unwrap).collect();
    assert_eq!(streamed, squares[..500]);
    assert_eq!(pool.call(square, 12).unwrap(), 144);
    let pending: Vec<_> = (0..20).map(|x| pool.submit(square, x)).collect();
    let waited: Vec<i64> = pending.into_iter().map(|one| one.wait().unwrap()).collect();
    assert_eq!(waited, squares[..20]);
    let agents = pool.agents();
    let slots: usize = agents.iter().map(|agent| agent.slots).sum();
    assert!(slots <= 3 && !agents.is_empty(), "{agents:?}");
    pool.close();
    pool.join().unwrap();
}

#[test]
fn each_way_to_end_is_told_with_what_was_printed() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let pool = pool(&broker);
    let with = pool.with().timeout(Duration::from_millis(500));
    let (inputs, reports) = with.open(talk);
    inputs.unwrap().send_all((0..7).collect()).unwrap();
    for report in reports {
        let index = report.index;
        assert_eq!(
            report.stdout.read().unwrap(),
            format!("out {index}\n").into_bytes()
        );
        let said = String::from_utf8(report.stderr.read().unwrap()).unwrap();
        assert!(said.starts_with(&format!("err {index}")), "{said}");
        assert_eq!(report.machine.as_deref(), Some("a"));
        assert!(report.slot.is_some() && report.worker.is_some());
        match (index, report.result) {
            (3, Err(error)) => {
                assert_eq!(*error.why(), Why::Failed("three".to_owned()));
                assert_eq!(error.machine(), Some("a"));
            }
            (4, Err(error)) => assert!(matches!(error.why(), Why::Panicked { .. })),
            (5, Err(error)) => assert!(error.to_string().contains("exited with code 5")),
            (6, Err(error)) => assert!(matches!(error.why(), Why::TimedOut(_)), "{error}"),
            (_, Ok(value)) => assert_eq!(u64::from(value), index),
            (index, Err(error)) => panic!("{index}: {error}"),
        }
    }
}

/// What a call says of its end may be longer than a message.
#[test]
fn long_errors_and_panics_come_through_shortened() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let pool = pool(&broker);
    for panics in [false, true] {
        let mut pending = pool.submit(complain, panics);
        let ended = pending.wait_timeout(SOON).expect("it ends");
        let said = match ended.unwrap_err().why() {
            Why::Failed(said) => said.clone(),
            Why::Panicked { message, .. } => message.clone(),
            other => panic!("{other:?}"),
        };
        assert!(said.starts_with("xxx") && said.ends_with("bytes more"));
    }
}

#[test]
fn large_inputs_outputs_and_prints_come_through() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let pool = pool(&broker);
    for size in [
        0,
        1,
        200 << 10,
        (256 << 10) - 1,
        256 << 10,
        1 << 20,
        9 << 20,
    ] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
        assert!(pool.call(reverse, bytes).unwrap() == reversed, "{size}");
    }
    for size in [100, 300 << 10, 6 << 20] {
        let (inputs, mut reports) = pool.with().open(print_much);
        inputs.unwrap().send(size).unwrap();
        let report = reports.next().unwrap();
        report.result.unwrap();
        let printed = report.stdout.read().unwrap();
        assert!(printed.len() == size && printed.iter().all(|byte| *byte == b'x'));
    }
}

#[test]
fn an_initializer_and_shared_values_reach_each_agent() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agents = [Agent::start(&broker, "a", 1), Agent::start(&broker, "b", 1)];
    let table = Shared::new((0..300_000_u64).collect::<Vec<_>>());
    let first = Shared::new(vec![7]);
    let pool = Pool::builder()
        .workers(0)
        .agents(broker.agents())
        .initializer(set_base, (100, first))
        .build()
        .unwrap();
    let inputs = (0..200).map(|at| (table.clone(), at * 1000));
    let sums: Vec<u64> = (0..200).map(|at| 107 + at * 1000).collect();
    assert_eq!(pool.map(add, inputs).unwrap(), sums);
}
