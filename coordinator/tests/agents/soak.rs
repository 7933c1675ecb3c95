//! Ten thousand calls of which one in a hundred misbehaves, while agents, broker and network die in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use coordinator::{Death, Order, Output, Pool, Why, task};

use super::support::{self, Agent, Broker, Call, GRACE, LEASE, Ledger};

const CALLS: u64 = 10_000;

/// Misbehaves if its index says so.
#[task]
fn soak(call: Call) -> Result<u64, String> {
    let begun = support::begin(&call);
    match call.index % 500 {
        13 => return Err("no".to_owned()),
        113 => panic!("no"),
        213 => std::process::exit(7),
        313 => loop {
            thread::sleep(Duration::from_secs(1));
        },
        413 => println!("{}", "much ".repeat(100_000)),
        _ => thread::sleep(Duration::from_millis(call.millis)),
    }
    begun.end();
    Ok(call.index)
}

/// Whether a call may end so, where machines are lost.
fn is_right(index: u64, result: &Result<u64, coordinator::CallError>) -> bool {
    let why = result.as_ref().map_err(coordinator::CallError::why);
    if matches!(why, Err(Why::Died(Death::Machine))) {
        return true;
    }
    match (index % 500, why) {
        (13, Err(Why::Failed(_)))
        | (113, Err(Why::Panicked { .. }))
        | (213, Err(Why::Died(Death::Exit(7))))
        | (313, Err(Why::TimedOut(_))) => true,
        (13 | 113 | 213 | 313, _) => false,
        (_, Ok(value)) => *value == index,
        (_, Err(_)) => false,
    }
}

#[test]
fn whatever_dies_each_call_has_one_outcome_and_the_right_one() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let mut agents: Vec<Agent> = ["a", "b", "c"]
        .iter()
        .map(|name| Agent::start(&broker, name, 4))
        .collect();
    let ledger = Ledger::new();
    let pool = Pool::builder().workers(2).agents(broker.agents());
    let pool = pool
        .lease(LEASE)
        .grace(GRACE)
        .timeout(Duration::from_secs(1));
    let pool = Arc::new(pool.output(Output::Capture).build().unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let theirs = Arc::clone(&broker);
    let misfortune = thread::spawn(move || {
        for turn in 0.. {
            let agent = &mut agents[turn % 3];
            // Misfortunes take their time; between them nothing is waited for.
            let pause = |millis| thread::sleep(Duration::from_millis(millis));
            match turn % 7 {
                0 => {
                    agent.kill();
                    agent.start_again();
                }
                1 => {
                    agent.network.cut();
                    pause(1_000);
                    agent.network.heal();
                }
                2 => {
                    theirs.kill();
                    theirs.start_again();
                }
                3 => {
                    agent.network.hold();
                    pause(LEASE.as_millis() as u64 + 1_500);
                    agent.network.heal();
                }
                4 => {
                    agent.kill();
                    pause(500);
                    agent.start_again();
                }
                5 => {
                    agent.signal(libc::SIGSTOP);
                    pause(1_000);
                    agent.signal(libc::SIGCONT);
                }
                _ => {
                    agent.signal(libc::SIGTERM);
                    agent.wait();
                    agent.start_again();
                }
            }
            pause(700);
            if over.load(Ordering::Relaxed) {
                return agents;
            }
        }
        agents
    });
    let (inputs, reports) = pool.with().order(Order::Completion).open(soak);
    let calls: Vec<Call> = (0..CALLS).map(|index| ledger.call(index, 10)).collect();
    let sender = thread::spawn(move || inputs.unwrap().send_all(calls).unwrap());
    let mut ended = vec![false; CALLS as usize];
    let mut lost = 0;
    for report in reports {
        let index = report.index;
        assert!(!ended[index as usize], "call {index} has two outcomes");
        ended[index as usize] = true;
        assert!(
            is_right(index, &report.result),
            "{index}: {:?}",
            report.result
        );
        lost += u64::from(
            report
                .result
                .is_err_and(|error| *error.why() == Why::Died(Death::Machine)),
        );
    }
    sender.join().unwrap();
    is_over.store(true, Ordering::Relaxed);
    assert!(ended.iter().all(|ended| *ended), "some have no outcome");
    ledger.check();
    drop(misfortune.join().unwrap());
    println!(
        "{lost} calls were lost with their machines, {} begun",
        ledger.all_begun()
    );
    pool.close();
    pool.join().unwrap();
}
