//! Runs of the command line on other machines: limits, retries, logs, signals.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::support::{Agent, Broker, Ledger, wait_until};

fn command(broker: &Broker, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.args(words).env("COORDINATOR_NATS", broker.url());
    command
}

fn run(broker: &Broker, words: &[&str]) -> Output {
    command(broker, words).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn results_come_in_order_with_tags_and_limits_hold() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agents = [Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 2)];
    let script = "sleep 0.$((9 - $1 % 10)); echo $1";
    let inputs: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let words = [&["exec", "-j0", "--tag", "-c", script, ":::"][..]].concat();
    let words: Vec<&str> = words
        .into_iter()
        .chain(inputs.iter().map(String::as_str))
        .collect();
    let output = run(&broker, &words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // The tag is the input and the machine.
    let printed = out(&output);
    assert_eq!(printed.lines().count(), 20);
    for (number, line) in printed.lines().enumerate() {
        let by = |machine: &str| format!("{number}\t{machine}\t{number}");
        assert!(line == by("a") || line == by("b"), "{line}");
    }
    // The summary says how many each has run.
    assert!(
        said(&output).contains("(a ") || said(&output).contains("(b "),
        "{}",
        said(&output)
    );
    // Time and memory limits are the agent's pool's, retries the coordinator's.
    let script = "case $1 in slow) exec sleep 60;; hungry) exec head -c 400M /dev/zero | tail;; \
                  later) test $COORDINATOR_ATTEMPT = 2;; *) echo fine;; esac";
    let words = [
        "exec", "-j0", "-t", "1s", "--memory", "100M", "-r1", "--json", "-c", script, ":::",
    ];
    let output = run(
        &broker,
        &[&words[..], &["slow", "hungry", "later", "well"]].concat(),
    );
    let statuses: Vec<(String, u64)> = out(&output)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|object| object["summary"].is_null())
        .map(|object| {
            let status = object["status"].as_str().unwrap().to_owned();
            (status, object["attempts"].as_u64().unwrap())
        })
        .collect();
    let expected = [("timed_out", 2), ("out_of_memory", 2), ("ok", 2), ("ok", 1)];
    let expected = expected.map(|(status, attempts)| (status.to_owned(), attempts));
    assert_eq!(statuses, expected);
}

#[test]
fn a_run_that_gives_up_starts_nothing_more() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let ledger = Ledger::new();
    let script = format!("echo $1 >> {}; exit 1", ledger.file("pids").display());
    let inputs: Vec<String> = (1000..1100).map(|number| number.to_string()).collect();
    let words = ["exec", "-j0", "--max-fail", "3", "-c", &script, ":::"];
    let words: Vec<&str> = words
        .into_iter()
        .chain(inputs.iter().map(String::as_str))
        .collect();
    let output = run(&broker, &words);
    assert_eq!(output.status.code(), Some(1));
    // Those that ran when the third failed, and no others.
    let begun = ledger.pids().len();
    assert!((3..=4).contains(&begun), "{begun}: {}", said(&output));
}

#[test]
fn a_line_of_pipe_and_a_task_are_answered_elsewhere() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let output = run(
        &broker,
        &[
            "pipe", "-j0", "--", "sed", "-u", "s/^/x/", ":::", "abc", "def", "ghi",
        ],
    );
    assert_eq!(out(&output), "xabc\nxdef\nxghi\n", "{}", said(&output));
    let output = run(&broker, &["map", "square", "-j0", ":::", "3", "4"]);
    assert_eq!(out(&output), "9\n16\n", "{}", said(&output));
    // What is wrong with an input is found before anything runs, as ever.
    let output = run(&broker, &["map", "square", "-j0", ":::", "3", "x"]);
    assert_eq!(
        (out(&output).as_str(), output.status.code()),
        ("", Some(2)),
        "{}",
        said(&output)
    );
}

#[test]
fn a_run_that_was_killed_is_resumed_and_its_machine_is_in_the_report() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let ledger = Ledger::new();
    let (log, done) = (ledger.file("log"), ledger.file("pids"));
    let script = format!("sleep 0.1; echo $1 >> {}", done.display());
    let inputs: Vec<String> = (1000..1040).map(|number| number.to_string()).collect();
    let (log_name, page) = (log.display().to_string(), ledger.file("page.html"));
    let words = ["exec", "-j0", "--log", &log_name, "-c", &script, ":::"];
    let mut first = command(&broker, &words)
        .args(&inputs)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("some are done", || ledger.pids().len() > 10);
    first.kill().unwrap();
    first.wait().unwrap();
    let words = [
        "exec", "-j0", "--log", &log_name, "--resume", "-c", &script, ":::",
    ];
    let output = command(&broker, &words).args(&inputs).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let lines = fs::read_to_string(&log).unwrap();
    let machines = lines
        .lines()
        .filter(|line| line.contains("\"machine\":\"a\""))
        .count();
    assert_eq!(machines, inputs.len(), "{lines}");
    // What the log had was not run again, and what it had not was.
    let mut numbers = ledger.pids();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1000..1040).collect::<Vec<u32>>());
    let page_name = page.display().to_string();
    assert!(
        run(&broker, &["report", &log_name, "-o", &page_name])
            .status
            .success()
    );
    assert!(fs::read_to_string(&page).unwrap().contains("\"a 1\""));
}

/// A run that takes up a killed one's work first ends what that has left on other machines.
#[test]
fn a_run_that_is_resumed_at_once_runs_nothing_twice_at_a_time() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let ledger = Ledger::new();
    let log = ledger.file("log").display().to_string();
    let script = format!(
        "cd {}; exec 9>lock-$1; flock -n 9 || echo $1 >> twice; echo $$ >> pids; exec sleep 4",
        ledger.file("").display()
    );
    let inputs = ["1", "2", "3", "4"];
    let words = ["exec", "-j0", "--log", &log, "-c", &script, ":::"];
    let mut first = command(&broker, &words)
        .args(inputs)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("two run", || ledger.pids().len() == 2);
    wait_until("the log has its machine", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("\"joined\":\"a\"")
    });
    first.kill().unwrap();
    first.wait().unwrap();
    // The workers are here: they could begin in no time.
    let words = [
        "exec", "-j4", "--log", &log, "--resume", "-c", &script, ":::",
    ];
    let output = command(&broker, &words).args(inputs).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("the last run of this log was killed"),
        "{}",
        said(&output)
    );
    assert!(!ledger.file("twice").exists(), "{}", said(&output));
    // One that has ended as it should leaves nothing to be ended.
    let output = command(&broker, &words).args(inputs).output().unwrap();
    assert!(
        output.status.success() && !said(&output).contains("was killed"),
        "{}",
        said(&output)
    );
}

/// A run on another machine that was killed, and left two calls there for some seconds.
fn killed_run(broker: &Broker, ledger: &Ledger, lease: &str, script: &str) {
    let log = ledger.file("log").display().to_string();
    let words = ["exec", "-j0", "--lease", lease, "--log", &log, "-c", script];
    let mut run = command(broker, &words)
        .args([":::", "1", "2", "3", "4"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("two run", || ledger.pids().len() == 2);
    wait_until("the log has its machine", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("\"joined\":\"a\"")
    });
    run.kill().unwrap();
    run.wait().unwrap();
}

/// Notes its process, and where a call of the same input runs at the same time.
fn noting(ledger: &Ledger) -> String {
    format!(
        "cd {}; exec 9>lock-$1; flock -n 9 || echo $1 >> twice; echo $$ >> pids; exec sleep 4",
        ledger.file("").display()
    )
}

/// The run that takes it up, without other machines.
fn resumed_here(ledger: &Ledger, script: &str) -> Command {
    let log = ledger.file("log").display().to_string();
    let mut run = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    run.args(["exec", "-j4", "--log", &log, "--resume", "-c", script])
        .args([":::", "1", "2", "3", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    run
}

#[test]
fn a_run_that_is_resumed_without_its_machines_waits_for_their_lease() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let ledger = Ledger::new();
    let script = noting(&ledger);
    killed_run(&broker, &ledger, "5s", &script);
    let began = Instant::now();
    let output = resumed_here(&ledger, &script).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!ledger.file("twice").exists(), "{}", said(&output));
    assert!(said(&output).contains("waiting 6 s"), "{}", said(&output));
    // The lease is the former run's, which the log has, not the usual one.
    let lines = fs::read_to_string(ledger.file("log")).unwrap();
    assert!(lines.contains("\"lease_ms\":5000,"), "{lines}");
    assert!(began.elapsed() < Duration::from_secs(16));
    // It has waited once for all.
    let output = resumed_here(&ledger, &script).output().unwrap();
    assert!(!said(&output).contains("waiting"), "{}", said(&output));
}

#[test]
fn waiting_for_a_lease_can_be_interrupted() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let ledger = Ledger::new();
    let script = noting(&ledger);
    killed_run(&broker, &ledger, "5m", &script);
    for _ in 0..2 {
        let mut run = resumed_here(&ledger, &script).spawn().unwrap();
        let mut says = std::io::BufReader::new(run.stderr.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut says, &mut line).unwrap();
        assert!(line.contains("waiting 6 min"), "{line}");
        signal(&run, "-INT");
        assert_eq!(run.wait().unwrap().code(), Some(130));
    }
    assert_eq!(ledger.pids().len(), 2);
}

/// A run of one long command, which has written down its process id.
fn long_run(broker: &Broker, ledger: &Ledger, script: &str) -> (Child, u32) {
    let script = format!("echo $$ >> {}; {script}", ledger.file("pids").display());
    let run = command(
        broker,
        &["exec", "-j0", "-c", &script, ":::", "1", "2", "3"],
    )
    .stderr(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    wait_until("a command runs", || !ledger.pids().is_empty());
    (run, ledger.pids()[0])
}

fn signal(run: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &run.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

#[test]
fn an_interruption_finishes_what_runs_and_a_second_one_does_not() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let ledger = Ledger::new();
    let (run, _) = long_run(&broker, &ledger, "sleep 1; echo done $1");
    signal(&run, "-INT");
    let output = run.wait_with_output().unwrap();
    assert_eq!(
        (out(&output).as_str(), output.status.code()),
        ("done 1\n", Some(130)),
        "{}",
        said(&output)
    );
    assert_eq!(ledger.pids().len(), 1);
    let ledger = Ledger::new();
    let (run, pid) = long_run(&broker, &ledger, "exec sleep 100");
    signal(&run, "-INT");
    signal(&run, "-INT");
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    wait_until("the command is ended", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
}

#[test]
fn a_run_is_stopped_and_continued_and_says_what_runs_where() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let ledger = Ledger::new();
    let (mut run, pid) = long_run(&broker, &ledger, "sleep 2; echo done");
    let mut said = run.stderr.take().unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = said.read(&mut bytes) {
            hears
                .lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    });
    signal(&run, "-TSTP");
    wait_until("the command is stopped", || state_of(pid) == Some('T'));
    wait_until("the run is stopped", || state_of(run.id()) == Some('T'));
    signal(&run, "-CONT");
    wait_until("the command goes on", || {
        state_of(pid).is_some_and(|state| state != 'T')
    });
    wait_until("it says what runs where", || {
        signal(&run, "-USR1");
        heard.lock().unwrap().contains("worker 1 on a (process ")
    });
    let output = run.wait_with_output().unwrap();
    assert_eq!(out(&output), "done\ndone\ndone\n");
    assert_eq!(ledger.pids().len(), 3);
}
