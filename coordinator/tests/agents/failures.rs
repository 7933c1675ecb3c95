//! Each row of the failure table, with a ledger of who ran what.

use std::time::{Duration, Instant};

use coordinator::{Death, Output, Pool, Why};

use super::support::{Agent, Broker, GRACE, LEASE, Ledger, wait_until};
use super::{MUCH, work, yield_much};

fn pool(broker: &Broker, workers: usize) -> Pool {
    let pool = Pool::builder().workers(workers).agents(broker.agents());
    let pool = pool.lease(LEASE).grace(GRACE).output(Output::Capture);
    pool.build_now().unwrap()
}

fn wait_for_agents(pool: &Pool, many: usize) {
    wait_until("all agents join", || pool.agents().len() == many);
}

fn is_lost(error: &coordinator::CallError) -> bool {
    *error.why() == Why::Died(Death::Machine)
}

#[test]
fn an_agent_that_is_killed_and_restarted_costs_what_it_ran() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (mut a, _b) = (Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 2));
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending: Vec<_> = (0..12)
        .map(|index| pool.submit(work, ledger.call(index, 700)))
        .collect();
    wait_until("calls run on both", || {
        let running = pool.running();
        let on = |name: &str| {
            running
                .iter()
                .any(|call| call.machine.as_deref() == Some(name))
        };
        on("a") && on("b")
    });
    a.kill();
    let killed = Instant::now();
    a.start_again();
    let outcomes: Vec<_> = pending.into_iter().map(|one| one.wait()).collect();
    // The restarted one says that the former is dead: nobody waits for the lease.
    let lost = outcomes
        .iter()
        .filter(|outcome| outcome.as_ref().is_err_and(is_lost))
        .count();
    assert!((1..=2).contains(&lost), "{outcomes:?}");
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        12 - lost
    );
    assert!(
        killed.elapsed() < LEASE + Duration::from_secs(4),
        "{:?}",
        killed.elapsed()
    );
    ledger.check();
}

#[test]
fn an_agent_that_is_gone_is_lost_at_its_lease() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (mut a, _b) = (Agent::start(&broker, "a", 1), Agent::start(&broker, "b", 1));
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending: Vec<_> = (0..6)
        .map(|index| pool.with().retries(1).submit(work, ledger.call(index, 500)))
        .collect();
    wait_until("a call runs there", || {
        pool.running()
            .iter()
            .any(|call| call.machine.as_deref() == Some("a"))
    });
    a.kill();
    for one in pending {
        one.wait().unwrap();
    }
    assert_eq!(pool.agents().len(), 1);
    assert!(
        pool.take_agent_news()
            .iter()
            .any(|line| line.starts_with("a is lost"))
    );
    ledger.check();
}

#[test]
fn a_frozen_agent_is_ended_by_the_kernel_before_others_get_its_calls() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (mut a, _b) = (Agent::start(&broker, "a", 1), Agent::start(&broker, "b", 1));
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    // Longer than the lease: only its own end, or the kernel's timer, ends it in time.
    let pending: Vec<_> = (0..2)
        .map(|index| {
            pool.with()
                .retries(1)
                .submit(work, ledger.call(index, 7_000))
        })
        .collect();
    wait_until("a call runs there", || {
        pool.running()
            .iter()
            .any(|call| call.machine.as_deref() == Some("a"))
    });
    a.signal(libc::SIGSTOP);
    let status = a.wait();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGKILL)
    );
    for one in pending {
        one.wait().unwrap();
    }
    ledger.check();
}

#[test]
fn a_short_cut_costs_nothing() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (a, _b) = (Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 1));
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending: Vec<_> = (0..30)
        .map(|index| pool.submit(work, ledger.call(index, 150)))
        .collect();
    for held in [true, false] {
        wait_until("calls run there", || {
            pool.running()
                .iter()
                .any(|call| call.machine.as_deref() == Some("a"))
        });
        if held {
            a.network.hold()
        } else {
            a.network.cut()
        }
        // As long as the cut lasts, what runs there ends; the agent keeps what became of it.
        std::thread::sleep(Duration::from_millis(800));
        a.network.heal();
    }
    for one in pending {
        one.wait().unwrap();
    }
    for index in 0..30 {
        assert_eq!(ledger.begun(index), 1, "call {index}");
    }
    ledger.check();
}

#[test]
fn a_long_cut_ends_what_runs_there_before_others_get_it() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (a, _b) = (Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 1));
    for held in [true, false] {
        let (pool, ledger) = (pool(&broker, 0), Ledger::new());
        wait_for_agents(&pool, 2);
        let pending: Vec<_> = (0..6)
            .map(|index| {
                pool.with()
                    .retries(2)
                    .submit(work, ledger.call(index, 1_500))
            })
            .collect();
        wait_until("calls run there", || {
            pool.running()
                .iter()
                .any(|call| call.machine.as_deref() == Some("a"))
        });
        if held {
            a.network.hold()
        } else {
            a.network.cut()
        }
        wait_until("it is lost", || pool.agents().len() == 1);
        a.network.heal();
        // It joins again, in a new life.
        wait_until("it is back", || pool.agents().len() == 2);
        for one in pending {
            one.wait().unwrap();
        }
        ledger.check();
    }
}

#[test]
fn a_broker_that_restarts_costs_nothing() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agents = [Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 2)];
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending: Vec<_> = (0..60)
        .map(|index| pool.submit(work, ledger.call(index, 150)))
        .collect();
    for _ in 0..2 {
        wait_until("calls run", || !pool.running().is_empty());
        broker.kill();
        broker.start_again();
    }
    for one in pending {
        one.wait().unwrap();
    }
    for index in 0..60 {
        assert_eq!(ledger.begun(index), 1, "call {index}");
    }
    ledger.check();
}

#[test]
fn without_a_broker_workers_here_go_on() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _a = Agent::start(&broker, "a", 1);
    let (pool, ledger) = (pool(&broker, 1), Ledger::new());
    wait_for_agents(&pool, 1);
    let pending: Vec<_> = (0..8)
        .map(|index| pool.with().retries(1).submit(work, ledger.call(index, 300)))
        .collect();
    wait_until("a call runs there", || {
        pool.running()
            .iter()
            .any(|call| call.machine.as_deref() == Some("a"))
    });
    broker.kill();
    for one in pending {
        one.wait().unwrap();
    }
    let news = pool.take_agent_news();
    assert!(news.iter().any(|line| line.contains("is away")), "{news:?}");
    ledger.check();
}

/// A coordinator that is killed can't say so. The broker says that nobody hears what its agents ask.
#[test]
fn agents_end_what_a_dead_coordinator_wanted() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let a = Agent::start(&broker, "a", 2);
    let ledger = Ledger::new();
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["exec", "-j0", "--lease", "30s", "--nats", &broker.url()])
        .args(["-c", "echo $$ >> $1; exec sleep 100", ":::"])
        .arg(ledger.file("pids"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the command runs", || !ledger.pids().is_empty());
    let pid = ledger.pids()[0];
    run.kill().unwrap();
    run.wait().unwrap();
    let began = Instant::now();
    let is_alive = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    wait_until("the command is ended", || !is_alive());
    // Five seconds, and the grace of a second; and what a busy machine adds.
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    // The agent serves others.
    let pool = pool(&broker, 0);
    assert_eq!(pool.call(work, ledger.call(1, 1)).unwrap(), 1);
    drop(a);
}

#[test]
fn an_agent_that_leaves_finishes_what_it_runs() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (mut a, _b) = (Agent::start(&broker, "a", 1), Agent::start(&broker, "b", 1));
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending: Vec<_> = (0..10)
        .map(|index| pool.submit(work, ledger.call(index, 400)))
        .collect();
    wait_until("a call runs there", || {
        pool.running()
            .iter()
            .any(|call| call.machine.as_deref() == Some("a"))
    });
    a.signal(libc::SIGTERM);
    assert!(a.wait().success());
    for one in pending {
        one.wait().unwrap();
    }
    for index in 0..10 {
        assert_eq!(ledger.begun(index), 1, "call {index}");
    }
    assert_eq!(pool.agents().len(), 1);
}

#[test]
fn an_agent_that_leaves_begins_nothing_more() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let mut a = Agent::start(&broker, "a", 1);
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 1);
    let pending: Vec<_> = (0..60)
        .map(|index| pool.submit(work, ledger.call(index, 100)))
        .collect();
    wait_until("some have run", || ledger.all_begun() > 3);
    a.signal(libc::SIGTERM);
    wait_until("it has heard that", || a.said().contains("leaving"));
    let begun = ledger.all_begun();
    assert!(a.wait().success());
    // One may have begun in the moment in which it heard.
    assert!(
        ledger.all_begun() <= begun + 1,
        "{begun}: {}",
        ledger.all_begun()
    );
    pool.terminate();
    drop(pending);
    ledger.check();
}

#[test]
fn an_agent_that_leaves_at_once_returns_what_it_ends() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let (mut a, _b) = (Agent::start(&broker, "a", 1), Agent::start(&broker, "b", 1));
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending: Vec<_> = (0..2)
        .map(|index| pool.submit(work, ledger.call(index, 2_000)))
        .collect();
    wait_until("a call runs there", || {
        pool.running()
            .iter()
            .any(|call| call.machine.as_deref() == Some("a"))
    });
    a.signal(libc::SIGTERM);
    wait_until("it has heard that", || a.said().contains("leaving"));
    a.signal(libc::SIGTERM);
    assert!(a.wait().success());
    // None is charged, though nobody tries again.
    for one in pending {
        one.wait().unwrap();
    }
    assert_eq!(ledger.all_begun(), 3);
    ledger.check();
}

#[test]
fn a_pause_reaches_agents_and_does_not_cost_them_their_lease() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _a = Agent::start(&broker, "a", 1);
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 1);
    let pending = pool.submit(work, ledger.call(0, 2_000));
    wait_until("it runs", || !pool.running().is_empty());
    pool.pause();
    let worker = pool.running()[0].worker;
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next())
    };
    wait_until("its worker is stopped", || state() == Some('T'));
    pool.resume();
    assert_eq!(pending.wait().unwrap(), 0);
    assert_eq!(ledger.begun(0), 1);
}

#[test]
fn terminating_a_pool_ends_what_agents_run() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _a = Agent::start(&broker, "a", 2);
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 1);
    let pending: Vec<_> = (0..5)
        .map(|index| pool.submit(work, ledger.call(index, 60_000)))
        .collect();
    wait_until("two run", || pool.running().len() == 2);
    let workers: Vec<u32> = pool.running().iter().map(|call| call.worker).collect();
    let began = Instant::now();
    pool.terminate();
    assert!(
        began.elapsed() < GRACE + Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    for one in pending {
        assert_eq!(*one.wait().unwrap_err().why(), Why::Cancelled);
    }
    let is_dead = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    wait_until("its workers are gone", || workers.iter().all(is_dead));
}

#[test]
fn a_machine_that_can_take_no_part_says_why() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let parent = tempfile::TempDir::new().unwrap();
    let directory = parent.path().join("project");
    std::fs::create_dir(&directory).unwrap();
    // The call that runs here makes away with the directory: for an agent that comes later, it was never there.
    let script = "rmdir \"$PWD\"; sleep 3";
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args([
            "exec",
            "-j1",
            "--nats",
            &broker.url(),
            "-c",
            script,
            ":::",
            "x",
        ])
        .current_dir(&directory)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the directory is gone", || !directory.exists());
    let a = Agent::start(&broker, "a", 1);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut run.stderr.take().unwrap(), &mut said).unwrap();
    assert!(run.wait().unwrap().success());
    assert!(
        said.contains("a can't take part: calls run in the directory"),
        "{said}"
    );
    drop(a);
}

/// A machine dies while its large output is being fetched. Whoever runs the call next has the same output, and is asked for it.
#[test]
fn what_was_being_fetched_from_a_lost_agent_is_fetched_from_the_next() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let mut agents = [Agent::start(&broker, "a", 1), Agent::start(&broker, "b", 1)];
    let (pool, ledger) = (pool(&broker, 0), Ledger::new());
    wait_for_agents(&pool, 2);
    let pending = pool
        .with()
        .retries(1)
        .submit(yield_much, ledger.call(0, 500));
    wait_until("it runs", || !pool.running().is_empty());
    let on = pool.running()[0].machine.clone().unwrap();
    let agent = agents.iter_mut().find(|agent| *agent.name == *on);
    let agent = agent.unwrap();
    wait_until("its output is on its way", || {
        agent.network.sent() > MUCH as u64 / 10
    });
    agent.kill();
    wait_until("its output is here", || pending.is_done());
    assert_eq!(pending.wait().unwrap().len(), MUCH);
    // It was not here before that machine was lost.
    assert_eq!(ledger.begun(0), 2);
}
