//! The tasks that run commands, with the `worker` binary and real processes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and prints"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Output};
use std::thread;
use std::time::Duration;

use protocol::message::Verdict;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use support::{SLOT, Worker, command, ended, within_limit, worker};

fn sh(script: &str) -> String {
    json!({ "argv": ["sh", "-c", script], "seq": 7 }).to_string()
}

fn failed(why: &str) -> (Verdict, String) {
    (Verdict::Failed(why.to_owned()), String::new())
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

/// A command that is run by hand; waits until it has printed a line that says so.
fn running(script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut by_hand = command(worker());
    by_hand.args(["call", "exec", &sh(script)]);
    let mut child = by_hand.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut stdout), "ready");
    (child, stdout)
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// All that is written until nobody is left who could write.
fn rest(mut stdout: BufReader<ChildStdout>) -> String {
    let read = move || {
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        rest
    };
    within_limit(read).expect("someone still holds the worker's stdout")
}

#[test]
fn a_call_ends_as_its_command_does() {
    let mut worker = Worker::start(worker());
    let done = (Verdict::Value, String::new());
    assert_eq!(worker.call("exec", &sh("exit 0")), done);
    let three = worker.call("exec", &sh("exit 3"));
    assert_eq!(three, failed("exited with code 3"));
    let killed = worker.call("exec", &sh("kill -9 $$"));
    assert_eq!(killed, failed("was killed by signal 9 (SIGKILL)"));
    let missing = worker.call("exec", r#"{"argv":["gzipp"],"seq":1}"#);
    let why = "`gzipp` could not be started: No such file or directory";
    assert_eq!(missing, failed(why));
    let nothing = worker.call("exec", r#"{"argv":[],"seq":1}"#);
    assert_eq!(nothing, failed("there is no command to run"));
    worker.hang_up();
}

#[test]
fn a_command_finds_what_it_is_promised() {
    let mut worker = Worker::start(worker());
    let script =
        "echo $COORDINATOR_SEQ $COORDINATOR_ATTEMPT $COORDINATOR_WORKER ${COORDINATOR_TOKEN-none}
        cut -d' ' -f5 /proc/$$/stat; echo $$; readlink /proc/self/fd/0; echo $(cat) >&2
        yes | head -1";
    assert_eq!(worker.call("exec", &sh(script)).0, Verdict::Value);
    // A shell would have set its signals itself.
    let argv = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"];
    let signals = json!({ "argv": argv, "seq": 8 }).to_string();
    assert_eq!(worker.call("exec", &signals).0, Verdict::Value);
    let output = worker.hang_up();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[0], format!("7 1 {SLOT} none"));
    assert_eq!(lines[1], lines[2]);
    assert_eq!(lines[3..5], ["/dev/null", "y"]);
    let mask = |line: &str, name| {
        let mask = line.strip_prefix(name).unwrap();
        u64::from_str_radix(mask, 16).unwrap()
    };
    assert_eq!(mask(lines[5], "SigBlk:\t"), 0);
    // Others may have been ignored before.
    let ours = 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGTERM - 1);
    assert_eq!(mask(lines[6], "SigIgn:\t") & ours, 0);
    assert_eq!(lines.len(), 7);
    assert_eq!(output.stderr, b"\n");
}

#[test]
fn what_a_command_leaves_behind_does_not_hold_its_call_up() {
    let mut worker = Worker::start(worker());
    // One that is of its group, and one that is not.
    let script = "sleep 1000 & setsid sleep 1000 & echo $!";
    let verdict = worker.call("exec", &sh(script)).0;
    let mut stdout = BufReader::new(worker.child.stdout.take().unwrap());
    let own_session: i32 = line(&mut stdout).parse().unwrap();
    kill_process(Pid::from_raw(own_session).unwrap(), Signal::KILL).unwrap();
    assert_eq!(verdict, Verdict::Value);
    worker.hang_up();
    assert_eq!(rest(stdout), "");
}

#[test]
fn a_command_that_waits_for_the_terminal_is_not_waited_for() {
    let mut worker = Worker::start(worker());
    // As the kernel does to one that reads from a terminal it has no part in. Other stops are its own affair.
    let script = "(until grep -q '^State:.T' /proc/$$/status; do :; done; kill -CONT $$) &
        kill -STOP $$; echo on; kill -TTIN $$; echo never";
    let Verdict::Failed(why) = worker.call("exec", &sh(script)).0 else {
        panic!("it did not fail")
    };
    assert!(why.contains("wanted the terminal"), "{why}");
    assert_eq!(worker.hang_up().stdout, b"on\n");
}

#[test]
fn sigterm_is_passed_on_and_then_died_of() {
    let script = "trap 'echo so long; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let (child, stdout) = running(script);
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(rest(stdout), "so long\n");
    assert_eq!(ended(child).status.signal(), Some(15));
}

#[test]
fn sigterm_ends_what_has_left_the_commands_group() {
    // As `timeout` does, and what that has started in a session of its own.
    let script = "timeout 1000 sh -c 'setsid sleep 1000 & echo ready; sleep 1000'; true";
    let (child, stdout) = running(script);
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(rest(stdout), "");
    assert_eq!(ended(child).status.signal(), Some(15));
}

#[test]
fn sigterm_ends_a_worker_between_calls() {
    let mut worker = Worker::start(worker());
    worker.call("exec", &sh("exit 0"));
    worker.call("pipe_open", r#"["cat"]"#);
    kill_process(pid(&worker.child), Signal::TERM).unwrap();
    let output = ended(worker.child); // waits for who holds stderr, too: `cat`
    assert_eq!(output.status.signal(), Some(15));
}

#[test]
fn a_command_dies_with_its_worker() {
    let (mut child, stdout) = running("trap '' TERM HUP; sleep 1000 & echo ready; wait");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(rest(stdout), "");
}

#[test]
fn a_command_that_is_just_starting_dies_with_its_worker() {
    for step in 0..100 {
        let mut by_hand = command(worker());
        by_hand.args(["call", "exec", &sh("exec sleep 1000")]);
        let mut child = by_hand.spawn().unwrap();
        // At every moment of the start, sooner or later.
        thread::sleep(Duration::from_micros(40 * step));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(rest(BufReader::new(child.stdout.take().unwrap())), "");
    }
}

/// A worker whose pipe is open.
fn piping(script: &str) -> Worker {
    let mut worker = Worker::start(worker());
    let argv = json!(["sh", "-c", script]).to_string();
    let opened = worker.call("pipe_open", &argv);
    assert_eq!(opened, (Verdict::Value, String::new()));
    worker
}

fn ask(worker: &mut Worker, line: &str) -> Result<String, String> {
    match worker.call("pipe", &json!(line).to_string()) {
        (Verdict::Value, output) => Ok(serde_json::from_str(&output).unwrap()),
        (Verdict::Failed(why), _) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// Asks for `line`, and wants an error that says this.
fn complains(worker: &mut Worker, line: &str, wanted: &str) {
    assert_eq!(ask(worker, line), Err(wanted.to_owned()));
}

#[test]
fn a_pipe_answers_line_by_line() {
    let mut worker = piping("exec cat");
    for line in ["x", "", "a\r", "\u{fc}ber"] {
        assert_eq!(ask(&mut worker, line).as_deref(), Ok(line));
    }
    // More than all the buffers between them, and answered while it is still being written.
    let long = "x".repeat(5 << 20);
    assert!(ask(&mut worker, &long) == Ok(long));
    complains(
        &mut worker,
        "a\nb",
        "\"a\\nb\" has a newline in it: a pipe's input is one line",
    );
    assert_eq!(ask(&mut worker, "y").as_deref(), Ok("y"));
    worker.hang_up();
}

#[test]
fn a_pipe_must_answer_with_one_line() {
    let mut worker = piping("while read -r x; do printf \"$x\"; done");
    let too_many = "out of step: the process answered \"a\\\\nb\\\\n\" with more than one line: it has to answer \
                    each line with one line";
    complains(&mut worker, "a\\nb\\n", too_many);
    assert_eq!(ask(&mut worker, "c\\n").as_deref(), Ok("c"));
    worker.hang_up();
}

#[test]
fn a_second_line_that_comes_late_is_found_by_the_next_call() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    // The second line comes when the fifo is opened, and what is said to it when it is there.
    let script = format!(
        "while read -r x; do echo $x; [ $x = two ] && {{ read go < {0}; echo late; echo > {0}; }}; \
         done",
        fifo.display()
    );
    let mut worker = piping(&script);
    assert_eq!(ask(&mut worker, "one").as_deref(), Ok("one"));
    assert_eq!(ask(&mut worker, "two").as_deref(), Ok("two"));
    fs::write(&fifo, "go\n").unwrap();
    fs::read(&fifo).unwrap();
    let wanted = "out of step: before it was given \"three\" the process wrote another line after its answer to \
                  \"two\": it has to answer each line with one line";
    complains(&mut worker, "three", wanted);
    assert_eq!(ask(&mut worker, "four").as_deref(), Ok("four"));
    worker.hang_up();
}

#[test]
fn a_pipe_that_ends_says_how_and_is_started_again() {
    let script = "while read -r x; do case $x in
        code) exit 3;; kill) kill -9 $$;; end) exit 0;; open) sleep 1000 & exit 4;;
        half) printf half; exit 0;; cut) printf cut; exit 5;; *) echo $$; esac; done";
    let mut worker = piping(script);
    let mut before = ask(&mut worker, "pid").unwrap();
    assert_eq!(ask(&mut worker, "pid").unwrap(), before);
    for (input, wanted) in [
        (
            "code",
            "the process exited with code 3 instead of answering to \"code\"",
        ),
        (
            "kill",
            "the process was killed by signal 9 (SIGKILL) instead of answering to \"kill\"",
        ),
        (
            "end",
            "the process ended (code 0) without answering to \"end\": it has to answer each line \
             with a line, and flush its output",
        ),
        // Its stdout is still open.
        (
            "open",
            "the process exited with code 4 instead of answering to \"open\"",
        ),
        (
            "cut",
            "the process exited with code 5 instead of answering to \"cut\"",
        ),
    ] {
        complains(&mut worker, input, wanted);
        let now = ask(&mut worker, "pid").unwrap();
        assert_ne!(now, before);
        before = now;
    }
    assert_eq!(ask(&mut worker, "half").as_deref(), Ok("half"));
    // It dies of itself between two calls.
    let idle: i32 = ask(&mut worker, "pid").unwrap().parse().unwrap();
    kill_process(Pid::from_raw(idle).unwrap(), Signal::KILL).unwrap();
    let stat = || fs::read_to_string(format!("/proc/{idle}/stat")).unwrap();
    while !stat().contains(") Z ") {
        thread::sleep(Duration::from_millis(1));
    }
    assert_ne!(ask(&mut worker, "pid").unwrap(), idle.to_string());
    worker.hang_up();
}

#[test]
fn a_pipe_that_never_answers_is_not_started_for_ever() {
    let mut worker = piping("echo started >&2; exit 6");
    let wanted = "the process exited with code 6 instead of answering to \"x\"";
    complains(&mut worker, "x", wanted);
    complains(&mut worker, "x", wanted);
    let stderr = String::from_utf8(worker.hang_up().stderr).unwrap();
    assert!(stderr.lines().count() <= 3, "{stderr}");
}

#[test]
fn a_pipe_ends_with_its_worker() {
    let mut worker = piping("while read -r x; do echo $x; done; echo bye >&2; sleep 1000");
    assert_eq!(ask(&mut worker, "x").as_deref(), Ok("x"));
    let Output { status, stderr, .. } = worker.hang_up();
    assert_eq!((status.code(), stderr), (Some(0), b"bye\n".to_vec()));

    let mut worker = piping("trap '' TERM; while read -r x; do echo $x; done; sleep 1000");
    // That a call has been answered says that it is armed.
    assert_eq!(ask(&mut worker, "x").as_deref(), Ok("x"));
    worker.child.kill().unwrap();
    ended(worker.child); // waits for who holds stderr
}

#[test]
fn sigterm_is_passed_on_to_a_pipe_that_is_asked() {
    let script = "trap 'echo so long >&2; exit 0' TERM; read -r x; echo ready >&2
        while :; do sleep 0.01; done";
    let mut worker = piping(script);
    let input = json!("x").to_string();
    worker.send(
        "pipe",
        protocol::message::Encoding::Text,
        0,
        &[input.as_bytes()],
    );
    let mut stderr = BufReader::new(worker.child.stderr.take().unwrap());
    assert_eq!(line(&mut stderr), "ready");
    kill_process(pid(&worker.child), Signal::TERM).unwrap();
    // The shell may have something to say of its `sleep`, too.
    let said = stderr.lines().map(Result::unwrap).collect::<Vec<_>>();
    assert!(said.iter().any(|line| line == "so long"), "{said:?}");
    assert_eq!(ended(worker.child).status.signal(), Some(15));
}

#[test]
fn a_script_that_does_not_say_who_reads_it_is_read_by_a_shell() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "[ $# = 2 ] && exit $2").unwrap();
    let mut worker = Worker::start(worker());
    let call = json!({ "argv": [script, "a b", "3"], "seq": 1 }).to_string();
    let name = script.display();
    let forbidden = failed(&format!("`{name}` could not be started: Permission denied"));
    assert_eq!(worker.call("exec", &call), forbidden);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(worker.call("exec", &call), failed("exited with code 3"));
    // No system could be asked to run that.
    let zero = json!({ "argv": ["true", "a\0b"], "seq": 1 }).to_string();
    let why = "`true` could not be started: there is a zero byte in it, which no command can be given \
               (inputs that end with one are read with -0)";
    assert_eq!(worker.call("exec", &zero), failed(why));
}

#[test]
fn a_command_is_found_as_a_shell_would_find_it_also_when_it_moves() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let paths = directories.each_ref().map(|at| at.path().join("moves"));
    let mut worker = Worker::start_with(worker(), |command| {
        let system = std::env::var_os("PATH").unwrap();
        let ours = directories.iter().map(|directory| directory.path().into());
        let path = std::env::join_paths(ours.chain(std::env::split_paths(&system))).unwrap();
        command.env("PATH", path)
    });
    // It calls itself by the name that it was given, wherever it was found.
    let moves = json!({ "argv": ["moves", "-c", "[ $0 = moves ]"], "seq": 1 }).to_string();
    let mut call = || worker.call("exec", &moves);
    let done = (Verdict::Value, String::new());
    let missing = failed("`moves` could not be started: No such file or directory");
    assert_eq!(call(), missing);
    fs::write(&paths[1], "").unwrap();
    let forbidden = failed("`moves` could not be started: Permission denied");
    assert_eq!(call(), forbidden);
    fs::remove_file(&paths[1]).unwrap();
    symlink("/bin/sh", &paths[1]).unwrap();
    assert_eq!((call(), call()), (done.clone(), done.clone()));
    fs::rename(&paths[1], &paths[0]).unwrap();
    assert_eq!(call(), done);
    fs::remove_file(&paths[0]).unwrap();
    assert_eq!(call(), missing);
}
