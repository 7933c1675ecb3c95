//! Signals, as a terminal, a shell or a service manager sends them to a run.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tests::run::{Run, coordinator, prints, stderr, stdout};
use tests::{eventually, is_alive};

/// A run of some inputs, in a process group of its own as a shell would have it.
struct Started {
    run: Run,
    child: Child,
    files: TempDir,
}

/// `go` in an input stands for the file that lets it go on, `runs0` and so on for those that say that
/// a call runs.
fn start(task: &str, options: &[&str], inputs: &[&str]) -> Started {
    let files = TempDir::new().unwrap();
    let path = files.path().display().to_string();
    let inputs: Vec<String> = inputs
        .iter()
        .map(|input| input.replace('@', &path))
        .collect();
    let mut words = vec!["map", task, "--worker", env!("CARGO_BIN_EXE_misbehave")];
    words.extend(options);
    words.push(":::");
    words.extend(inputs.iter().map(String::as_str));
    let mut run = coordinator(&words);
    let child = run.command.process_group(0).spawn().unwrap();
    Started { run, child, files }
}

impl Started {
    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn runs(&self, name: &str) {
        eventually("a call runs", || {
            fs::read(self.file(name)).is_ok_and(|text| !text.is_empty())
        });
    }

    fn pids(&self, name: &str) -> Vec<u32> {
        let text = fs::read_to_string(self.file(name)).unwrap();
        text.split(' ').map(|pid| pid.parse().unwrap()).collect()
    }

    /// As a terminal does it: to the whole process group.
    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    fn says(&mut self, what: &str) -> String {
        let mut line = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        while !line.contains(what) {
            let mut byte = [0];
            let read = std::io::Read::read(stderr, &mut byte).unwrap();
            assert_eq!(read, 1, "it never said {what:?}: {line}");
            line.push(char::from(byte[0]));
        }
        line
    }

    fn end(self) -> Output {
        let output = self.child.wait_with_output().unwrap();
        self.run.nothing_left();
        output
    }
}

/// What was killed as the child of a worker may take a moment to be gone.
fn gone(pids: &[u32]) {
    let began = Instant::now();
    eventually("all are gone", || pids.iter().all(|pid| !is_alive(*pid)));
    assert!(began.elapsed() < Duration::from_secs(1));
}

const WAITING: [&str; 4] = [
    r#"["@/runs0", "@/go"]"#,
    r#"["@/runs1", "@/go"]"#,
    r#"["@/runs2", "@/go"]"#,
    r#"["@/runs3", "@/go"]"#,
];

#[test]
fn ctrl_c_finishes_what_runs_and_starts_nothing() {
    let mut run = start("wait_for", &["-j2"], &WAITING);
    run.runs("runs0");
    run.runs("runs1");
    run.signal(Signal::INT);
    // It says so at once, not when they are done.
    let said = run.says("Ctrl-C again");
    assert!(said.contains("finishing 2"), "{said}");
    fs::write(run.file("go"), "").unwrap();
    let files = run.files.path().to_owned();
    let (
        workers,
        Started {
            run: rest,
            child,
            files: _files,
        },
    ) = ([run.pids("runs0"), run.pids("runs1")].concat(), run);
    let output = child.wait_with_output().unwrap();
    rest.nothing_left();
    let expected: String = workers.iter().map(|pid| format!("{pid}\n")).collect();
    prints(&output, 130, &expected);
    assert!(
        stderr(&output).contains("2 calls were done"),
        "{}",
        stderr(&output)
    );
    assert!(!files.join("runs2").exists());
}

#[test]
fn retries_that_wait_are_not_made_after_ctrl_c() {
    let options = ["-j1", "-r9", "--backoff", "1h"];
    let run = start("note_time_and_fail", &options, &["@/times"]);
    // Its first attempt may be over by then, or not.
    run.runs("times");
    run.signal(Signal::INT);
    let times = run.file("times");
    let Started {
        run: rest,
        child,
        files: _files,
    } = run;
    prints(&child.wait_with_output().unwrap(), 130, "");
    rest.nothing_left();
    let times = fs::read_to_string(times).unwrap();
    assert_eq!(times.lines().count(), 1, "{times}");
}

#[test]
fn ctrl_c_twice_ends_also_what_ignores_sigterm() {
    let mut run = start("hold_out", &["-j1", "--grace", "300ms"], &["@/pids"]);
    run.runs("pids");
    let pids = run.pids("pids");
    run.signal(Signal::INT);
    run.says("Ctrl-C again");
    let began = Instant::now();
    run.signal(Signal::INT);
    let output = run.end();
    let took = began.elapsed();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        took >= Duration::from_millis(300),
        "it had no grace: {took:?}"
    );
    assert!(took < Duration::from_secs(3), "{took:?}");
    gone(&pids);
}

#[test]
fn sigterm_and_sighup_leave_no_survivors() {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut run = start(
            "hold_out",
            &["-j1", "--grace", "100ms"],
            &["@/pids", "@/more"],
        );
        run.runs("pids");
        let pids = run.pids("pids");
        // To the coordinator alone, as `kill` does it.
        kill_process(Pid::from_child(&run.child), signal).unwrap();
        run.says("being stopped");
        let more = run.file("more");
        let output = run.end();
        prints(&output, 143, "");
        gone(&pids);
        assert!(!more.exists());
    }
}

#[test]
fn what_nohup_ignores_is_ignored() {
    let files = TempDir::new().unwrap();
    let (runs, go) = (files.path().join("runs"), files.path().join("go"));
    let script = format!(
        "trap '' HUP; exec {} map wait_for --worker {} ::: '[\"{}\", \"{}\"]'",
        tests::coordinator().display(),
        env!("CARGO_BIN_EXE_misbehave"),
        runs.display(),
        go.display()
    );
    let child = std::process::Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it runs", || runs.exists());
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    fs::write(go, "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 1);
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn ctrl_z_stops_the_workers_too_and_deadlines_wait() {
    let run = start("wait_for", &["-j1", "-t", "1500ms"], &WAITING[..1]);
    run.runs("runs0");
    let (coordinator, worker) = (run.child.id(), run.pids("runs0")[0]);
    run.signal(Signal::TSTP);
    eventually("both are stopped", || {
        state(coordinator) == Some('T') && state(worker) == Some('T')
    });
    // As long as it takes for the deadline to pass.
    std::thread::sleep(Duration::from_secs(2));
    run.signal(Signal::CONT);
    eventually("both go on", || {
        state(coordinator) != Some('T') && state(worker) != Some('T')
    });
    fs::write(run.file("go"), "").unwrap();
    prints(&run.end(), 0, &format!("{worker}\n"));
}

#[test]
fn ctrl_c_before_a_worker_is_there_ends_the_run() {
    let mut run = start("square", &["--manual"], &["1"]);
    run.says("--connect");
    run.signal(Signal::INT);
    prints(&run.end(), 130, "");
}

/// The one place that can be seen for longer than a moment is where a worker is met that is started by hand.
#[test]
fn a_run_that_is_killed_while_it_waits_for_a_worker_leaves_no_place() {
    let mut run = start("square", &["--manual", "-j2"], &["1"]);
    run.says("--connect");
    let places = || run.run.temporary.path().read_dir().unwrap().count();
    assert!(places() > 0);
    run.signal(Signal::KILL);
    let began = Instant::now();
    eventually("all places are gone", || places() == 0);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(run.end().status.code(), None);
}

/// A run whose command fills stderr, which nobody reads, and then goes on.
fn with_full_stderr() -> (Child, TempDir) {
    let files = TempDir::new().unwrap();
    let script = "seq 30000 >&2; echo $$ > \"$1\"; exec sleep 1000";
    let path = files.path().join("pid").display().to_string();
    let mut run = coordinator(&["exec", "-c", script, ":::", &path]);
    let child = run.command.process_group(0).spawn().unwrap();
    let stderr = child.stderr.as_ref().unwrap();
    eventually("stderr is full", || {
        rustix::io::ioctl_fionread(stderr).unwrap() >= 64 << 10
    });
    eventually("the command goes on", || files.path().join("pid").exists());
    (child, files)
}

#[test]
fn signals_do_not_wait_for_stderr() {
    for (signal, again, code) in [
        (Signal::TERM, false, 143),
        (Signal::HUP, false, 143),
        (Signal::INT, true, 130),
    ] {
        let (mut child, files) = with_full_stderr();
        let command = fs::read_to_string(files.path().join("pid")).unwrap();
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        let mut code_of_end = None;
        let began = Instant::now();
        while code_of_end.is_none() && began.elapsed() < Duration::from_secs(20) {
            // Two at once could be one, so the second comes again until there is nobody to hear it.
            if again {
                kill_process(pid, signal).unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            code_of_end = child.try_wait().unwrap().map(|status| status.code());
        }
        child.kill().unwrap();
        assert_eq!(code_of_end, Some(Some(code)), "{signal:?}");
        gone(&[command.trim().parse().unwrap()]);
    }
}
