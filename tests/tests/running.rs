//! What a person sees and does while `coordinator exec` runs.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::run::{Run, complains, coordinator, prints, stderr, stdout};
use tests::{eventually, is_alive};

/// A command that says its process id, starts a child, and waits for a file.
struct Waiting {
    run: Run,
    child: Child,
    directory: TempDir,
}

fn start(options: &[&str], script: &str) -> Waiting {
    let directory = TempDir::new().unwrap();
    let path = directory.path().display();
    let script = format!(
        "cd {path}; {script}\n\
         sleep 1000 & echo $$ $! > pids$1.new; mv pids$1.new pids$1\n\
         while ! [ -e go ]; do sleep 0.01; done; echo $1 went"
    );
    let mut words = vec!["exec"];
    words.extend(options);
    words.extend(["-c", &script, ":::", "1", "2"]);
    let mut run = coordinator(&words);
    let child = run.command.spawn().unwrap();
    Waiting {
        run,
        child,
        directory,
    }
}

impl Waiting {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The process ids of a command and its child, as soon as it runs.
    fn pids(&self, input: u32) -> Vec<u32> {
        let file = self.file(&format!("pids{input}"));
        eventually("it runs", || file.exists());
        let text = fs::read_to_string(file).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn sigusr1_says_what_is_running() {
    let mut waiting = start(&["-j1"], "");
    waiting.pids(1);
    waiting.signal(Signal::USR1);
    let said = BufReader::new(waiting.child.stderr.take().unwrap())
        .lines()
        .next()
        .unwrap()
        .unwrap();
    assert!(
        said.contains("worker 1") && said.contains("\"1\", attempt 1"),
        "{said}"
    );
    fs::write(waiting.file("go"), "").unwrap();
    prints(
        &waiting.child.wait_with_output().unwrap(),
        0,
        "1 went\n2 went\n",
    );
    waiting.run.nothing_left();
}

#[test]
fn however_it_ends_no_command_and_no_child_of_one_is_left() {
    for (signal, code) in [
        (Signal::TERM, Some(143)),
        (Signal::HUP, Some(143)),
        (Signal::KILL, None),
    ] {
        for script in ["", "trap '' TERM HUP"] {
            let mut waiting = start(&["-j2", "--grace", "0.2"], script);
            let pids = [waiting.pids(1), waiting.pids(2)].concat();
            waiting.signal(signal);
            assert_eq!(waiting.child.wait().unwrap().code(), code);
            let began = Instant::now();
            eventually("all are gone", || !pids.iter().any(|pid| is_alive(*pid)));
            assert!(began.elapsed() < Duration::from_secs(1));
            waiting.run.nothing_left();
        }
    }
}

#[test]
fn sigterm_lets_a_command_tidy_up() {
    let waiting = start(&["-j1", "--grace", "20"], "trap 'touch tidy; exit' TERM");
    waiting.pids(1);
    waiting.signal(Signal::TERM);
    let tidy = waiting.file("tidy");
    let Waiting {
        run,
        child,
        directory: _directory,
    } = waiting;
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    eventually("it has tidied up", || tidy.exists());
    run.nothing_left();
}

#[test]
fn ctrl_c_finishes_the_commands_that_run() {
    let waiting = start(&["-j1"], "");
    waiting.pids(1);
    waiting.signal(Signal::INT);
    let ran = waiting.file("pids2");
    let go = waiting.file("go");
    let Waiting {
        run,
        mut child,
        directory: _directory,
    } = waiting;
    // Until it has heard of the signal, the next command may start.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("finishing 1 running"), "{line}");
    fs::write(go, "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(130), "1 went\n")
    );
    assert!(!ran.exists());
    run.nothing_left();
}

#[test]
fn ctrl_z_stops_the_commands_too() {
    let waiting = start(&["-j1"], "");
    let pids = waiting.pids(1);
    waiting.signal(Signal::TSTP);
    // It goes last: what continues it before that would be lost.
    let all = [&pids[..], &[waiting.child.id()]].concat();
    // A shell that starts a child just then waits for it, in state D, and stands still as well.
    eventually("all are stopped", || {
        all.iter().all(|pid| matches!(state(*pid), 'T' | 'D'))
    });
    waiting.signal(Signal::CONT);
    eventually("both go on", || pids.iter().all(|pid| state(*pid) != 'T'));
    fs::write(waiting.file("go"), "").unwrap();
    let Waiting {
        run,
        child,
        directory: _directory,
    } = waiting;
    prints(&child.wait_with_output().unwrap(), 0, "1 went\n2 went\n");
    run.nothing_left();
}

#[test]
fn starts_can_be_held_back() {
    let words = [
        "exec", "-j4", "--delay", "0.2", "--", "echo", ":::", "1", "2", "3",
    ];
    let run = coordinator(&words);
    let began = Instant::now();
    prints(&run.output(), 0, "1\n2\n3\n");
    assert!(began.elapsed() >= Duration::from_millis(400));
    let free = ["--max-load", "100000", "--min-free-memory", "1M"];
    let words = [&["exec"], &free[..], &["--", "echo", ":::", "1"]].concat();
    prints(&coordinator(&words).output(), 0, "1\n");
}

#[test]
fn nothing_starts_where_there_is_no_memory_for_it() {
    let mut waiting = start(&["-j1", "--min-free-memory", "1000T"], "");
    let mut said = BufReader::new(waiting.child.stderr.take().unwrap()).lines();
    eventually("it listens", || {
        let status = fs::read_to_string(format!("/proc/{}/status", waiting.child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        // A bit for each signal, from 1: see proc_pid_status(5).
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        caught & (1 << (Signal::USR1.as_raw() - 1)) != 0
    });
    waiting.signal(Signal::USR1);
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("nothing is running"), "{line}");
    waiting.signal(Signal::INT);
    assert_eq!(waiting.child.wait().unwrap().code(), Some(130));
    assert!(!waiting.file("pids1").exists());
    waiting.run.nothing_left();
}

#[test]
fn progress_is_shown_to_people_and_colours_can_be_refused() {
    let shown = |options: &[&str]| {
        let words = [
            &["exec", "--progress", "always"],
            options,
            &["--", "false", ":::", "1"],
        ]
        .concat();
        let mut run = coordinator(&words);
        run.command.env_remove("NO_COLOR").stderr(Stdio::piped());
        stderr(&run.output()).to_owned()
    };
    // Not on a terminal, the library of the bar draws nothing; the summary has its colours all the same.
    assert!(shown(&["--color", "always"]).contains("\u{1b}[31m"));
    assert!(!shown(&["--color", "never"]).contains("\u{1b}[31m"));
    assert!(!shown(&[]).contains('\u{1b}'));
    let quiet = coordinator(&[
        "exec",
        "-q",
        "-r1",
        "-c",
        "[ $COORDINATOR_ATTEMPT = 2 ]",
        ":::",
        "1",
    ]);
    let output = quiet.output();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn the_manual_has_everything_once() {
    let output = coordinator(&["man"]).output();
    let manual = stdout(&output);
    let sections = [
        "OPTIONS OF RUNS",
        "EXEC",
        "PIPE",
        "PLACEHOLDERS",
        "ENVIRONMENT",
        "EXIT STATUS",
        "SIGNALS",
        "EXAMPLES",
    ];
    for part in sections {
        assert!(manual.contains(&format!(".SH {part}\n")), "{part}");
    }
    for option in ["min\\-free\\-memory", "numbered", "inputs", "trace"] {
        let heading = format!("\\fB\\-\\-{option}\\fR");
        let lines = manual
            .lines()
            .filter(|line| line.starts_with("\\fB") && line.contains(&heading));
        assert_eq!(lines.count(), 1, "{option}");
    }
}

#[test]
fn a_shell_completes_options_tasks_and_commands() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = coordinator(&["completions", shell]).output();
        assert!(stdout(&output).contains("coordinator"), "{shell}");
    }
    // As bash does when somebody presses the tab key.
    let script = r#"
        PATH=$1:$PATH
        shift
        eval "$(coordinator completions bash)"
        COMP_WORDS=(coordinator "$@")
        COMP_CWORD=$#
        _clap_complete_coordinator coordinator "${COMP_WORDS[COMP_CWORD]}" ""
        printf '%s\n' "${COMPREPLY[@]}""#;
    let directory = tests::coordinator().parent().unwrap();
    let complete = |words: &[&str]| {
        let mut bash = Command::new("bash");
        bash.args(["-c", script, "bash"]).arg(directory).args(words);
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["exec", "--min-f"]), "--min-free-memory\n");
    assert_eq!(complete(&["map", "sq"]), "square\n");
    // A worker that never joins keeps nobody waiting who types.
    let home = TempDir::new().unwrap();
    let worker = home.path().join("silent");
    fs::write(&worker, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
    let begun = Instant::now();
    let silent = ["map", "--worker", worker.to_str().unwrap(), "sq"];
    assert_eq!(complete(&silent).trim(), "");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(complete(&["exec", "--", "bas"]).contains("bash\n"));
    assert!(complete(&["exec", "-j2", "--", "cat", "/etc/host"]).contains("/etc/hosts\n"));
    complains(
        &coordinator(&["completions", "nosuch"]).output(),
        2,
        "nosuch",
    );
}
