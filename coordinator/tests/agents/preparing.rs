//! How agents come to a run, and what becomes of one that is gone before they serve it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coordinator::Pool;

use super::support::{Agent, Broker, GRACE, Ledger, wait_until};
use super::work;

/// A copy of this program that is another one, so that agents have to fetch it.
fn other_program(directory: &Path) -> PathBuf {
    let path = directory.join("coordinator");
    fs::copy(env!("CARGO_BIN_EXE_coordinator"), &path).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"another").unwrap();
    path
}

fn run(program: &Path, broker: &Broker, words: &[&str]) -> Child {
    Command::new(program)
        .args(["exec", "-j0", "--nats", &broker.url()])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Its coordinator is killed while the program is on its way.
#[test]
fn a_run_that_is_gone_before_its_program_has_come_is_given_up() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let directory = tempfile::TempDir::new().unwrap();
    let program = other_program(directory.path());
    let agent = Agent::start(&broker, "a", 1);
    let mut gone = run(&program, &broker, &["-c", "echo never", ":::", "1"]);
    wait_until("the agent has begun to prepare", || {
        agent.said().contains("serving the run")
    });
    gone.kill().unwrap();
    gone.wait().unwrap();
    let began = Instant::now();
    let next = run(
        Path::new(env!("CARGO_BIN_EXE_coordinator")),
        &broker,
        &["-c", "echo well", ":::", "1"],
    );
    wait_until("the agent serves another run", || {
        agent.said().matches("serving the run").count() == 2
    });
    assert_eq!(next.wait_with_output().unwrap().stdout, b"well\n");
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// Its initializer may take for ever: when the run is over, so is that.
#[test]
fn an_initializer_ends_with_its_run() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let agent = Agent::start(&broker, "a", 1);
    let ledger = Ledger::new();
    let pool = Pool::builder()
        .workers(0)
        .agents(broker.agents())
        .initializer(work, ledger.call(0, 600_000));
    let pool = pool.grace(GRACE).build_now().unwrap();
    wait_until("it is being initialized", || ledger.begun(0) == 1);
    let lock = fs::File::open(ledger.file("locks/0")).unwrap();
    assert!(lock.try_lock().is_err());
    pool.terminate();
    wait_until("the run is over", || {
        agent.said().contains("the run is over")
    });
    wait_until("its initializer is gone", || lock.try_lock().is_ok());
}
