//! `--json`, `--log` and `--resume`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;
use tests::run::{complains, coordinator, prints, stderr, stdout};

fn objects(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[test]
fn json_has_an_object_for_each_call_and_one_for_the_run() {
    let script = "echo out; echo err >&2; [ $1 = 3 ] && kill -9 $$; exit $1";
    let output =
        coordinator(&["exec", "-j2", "--json", "-c", script, ":::", "0", "2", "3"]).output();
    assert_eq!(output.status.code(), Some(1));
    let objects = objects(stdout(&output));
    let of = |at: usize, field: &str| objects[at][field].clone();
    let calls = [
        ("0", "ok", Some(0), None),
        ("2", "failed", Some(2), None),
        ("3", "died", None, Some(9)),
    ];
    for (at, (input, status, exit, signal)) in calls.into_iter().enumerate() {
        assert_eq!(of(at, "v"), 1);
        assert_eq!(of(at, "seq"), at + 1);
        assert_eq!(of(at, "input"), input);
        assert_eq!(of(at, "status"), status);
        assert_eq!(of(at, "exit"), exit.map_or(Value::Null, Value::from));
        assert_eq!(of(at, "signal"), signal.map_or(Value::Null, Value::from));
        assert_eq!(of(at, "attempts"), 1);
        assert!(of(at, "ms").is_number() && of(at, "worker").is_number());
        assert_eq!(
            (of(at, "stdout"), of(at, "stderr")),
            ("out\n".into(), "err\n".into())
        );
        assert_eq!(of(at, "error").is_null(), status == "ok");
    }
    assert_eq!(of(3, "summary"), true);
    assert_eq!((of(3, "ok"), of(3, "failed")), (1.into(), 2.into()));
    assert_eq!(objects.len(), 4);
}

#[test]
fn json_has_results_and_bytes_that_are_no_text() {
    let output = coordinator(&["map", "--json", "square", ":::", "3", "x"]).output();
    let found = objects(stdout(&output));
    assert_eq!(found[0]["result"], 9);
    assert_eq!(found[1]["status"], "undecodable");
    let run = coordinator(&["exec", "--json", "--", "printf", "%s"]);
    let output = run.with_input(b"\xff\n");
    let found = objects(stdout(&output));
    assert_eq!(
        (&found[0]["input_b64"], &found[0]["stdout_b64"]),
        (&"/w==".into(), &"/w==".into())
    );
}

/// A run that leaves a mark for each call, and what it was called with.
struct Marked {
    directory: TempDir,
}

impl Marked {
    fn new() -> Self {
        Marked {
            directory: TempDir::new().unwrap(),
        }
    }

    fn log(&self) -> String {
        self.directory.path().join("log").display().to_string()
    }

    fn script(&self) -> String {
        let directory = self.directory.path().display();
        format!("echo \"$1\" >> {directory}/ran; ! [ -e \"{directory}/fails-$1\" ]")
    }

    fn run(&self, options: &[&str], inputs: &[&str]) -> Output {
        let (log, script) = (self.log(), self.script());
        let mut words = vec!["exec", "--log", &log];
        words.extend(options);
        words.extend(["-c", &script, ":::"]);
        words.extend(inputs);
        coordinator(&words).output()
    }

    /// What ran since the last time, sorted.
    fn ran(&self) -> String {
        let path = self.directory.path().join("ran");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        let mut inputs: Vec<_> = text.lines().collect();
        inputs.sort_unstable();
        inputs.concat()
    }

    fn fails(&self, input: &str, fails: bool) {
        let path = self.directory.path().join(format!("fails-{input}"));
        match fails {
            true => fs::write(path, "").unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

#[test]
fn a_resumed_run_does_what_is_left() {
    let marked = Marked::new();
    marked.fails("b", true);
    let output = marked.run(&[], &["a", "b", "c"]);
    assert_eq!(
        (output.status.code(), marked.ran().as_str()),
        (Some(1), "abc")
    );
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
    marked.fails("b", false);
    // Reordered, with two more, and one of them twice.
    let resumed = ["--resume"];
    assert_eq!(
        marked
            .run(&resumed, &["d", "c", "b", "a", "a"])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(marked.ran(), "abd");
    marked.run(&resumed, &["d", "c", "b", "a", "a"]);
    assert_eq!(marked.ran(), "");
    // The same from the start is not the same again.
    marked.run(&[], &["a", "b"]);
    assert_eq!(marked.ran(), "ab");
    marked.run(&resumed, &["a", "a", "a", "b"]);
    assert_eq!(marked.ran(), "a");
}

#[test]
fn the_log_has_a_line_for_each_attempt() {
    let marked = Marked::new();
    marked.fails("b", true);
    marked.run(&["-r2"], &["a", "b"]);
    let lines = objects(&fs::read_to_string(marked.log()).unwrap());
    let of_b: Vec<_> = lines.iter().filter(|line| line["input"] == "b").collect();
    assert_eq!((lines.len(), of_b.len()), (4, 3));
    let attempts: Vec<_> = of_b
        .iter()
        .map(|line| line["attempt"].as_u64().unwrap())
        .collect();
    assert_eq!(attempts, [1, 2, 3]);
    let again: Vec<_> = of_b
        .iter()
        .map(|line| line["again"].as_bool().unwrap())
        .collect();
    assert_eq!(again, [true, true, false]);
    assert!(
        of_b.iter()
            .all(|line| line["status"] == "failed" && line["exit"] == 1)
    );
}

#[test]
fn another_command_is_refused_and_a_dry_run_writes_nothing() {
    let marked = Marked::new();
    let output = marked.run(&["--dry-run"], &["a"]);
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(!Path::new(&marked.log()).exists());
    marked.run(&[], &["a"]);
    marked.ran();
    prints(&marked.run(&["--resume", "--dry-run"], &["a"]), 0, "");
    let log = marked.log();
    let output =
        coordinator(&["exec", "--log", &log, "--resume", "--", "echo", ":::", "a"]).output();
    prints(&output, 2, "");
    assert!(
        stderr(&output).contains("another command"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_run_that_is_killed_repeats_nothing_that_is_in_its_log() {
    let marked = Marked::new();
    let inputs: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let text = inputs.join("\n");
    let (log, script) = (marked.log(), marked.script());
    for kill_at in [40, 90, 0] {
        let mut run = coordinator(&["exec", "-j2", "--log", &log, "--resume", "-c", &script]);
        let input = marked.directory.path().join("inputs");
        fs::write(&input, &text).unwrap();
        let mut child = run
            .command
            .stdin(fs::File::open(input).unwrap())
            .spawn()
            .unwrap();
        let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
        if kill_at > 0 {
            tests::eventually("some have run", || lines() >= kill_at);
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }
    let mut logged: HashMap<String, u32> = HashMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        // A torn line was never written.
        if let Ok(line) = serde_json::from_str::<Value>(line)
            && line["status"] == "ok"
        {
            *logged
                .entry(line["input"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    assert_eq!(logged.len(), 300);
    assert!(logged.values().all(|times| *times == 1));
}

#[test]
fn a_log_has_one_writer_and_is_nothing_else() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let name = log.to_str().unwrap();
    // The run holds its log from before its first command on.
    let program = tests::coordinator();
    let inside = format!(
        "{} exec --log {name} -- true ::: 1 2>&1 || exit 3",
        program.display()
    );
    let output = coordinator(&["exec", "--log", name, "-c", &inside, ":::", "1"]).output();
    let said = stdout(&output);
    assert!(
        said.contains("another run (process ") && said.contains("is writing the log"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));

    let inputs = directory.path().join("inputs");
    fs::write(&inputs, "1\n2\n").unwrap();
    let name = inputs.to_str().unwrap();
    for more in [&[][..], &["--resume"]] {
        let arguments = [
            &["exec", "-a", name, "--log", name][..],
            more,
            &["--", "echo"],
        ];
        let output = coordinator(&arguments.concat()).output();
        complains(&output, 2, "something else than a log");
    }
    assert_eq!(fs::read_to_string(&inputs).unwrap(), "1\n2\n");
}

#[test]
fn who_has_locked_a_log_is_said() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    fs::write(&log, "").unwrap();
    // Whoever may read a file may lock it.
    let reader = fs::File::open(&log).unwrap();
    rustix::fs::flock(&reader, rustix::fs::FlockOperation::LockShared).unwrap();
    let words = [
        "exec",
        "--log",
        log.to_str().unwrap(),
        "--",
        "true",
        ":::",
        "1",
    ];
    let said = format!("process {} (`", std::process::id());
    complains(&coordinator(&words).output(), 2, &said);
    drop(reader);
    assert!(coordinator(&words).output().status.success());
}

#[test]
fn a_log_that_was_cut_anywhere_is_taken_up_again() {
    let directory = TempDir::new().unwrap();
    let (log, ran) = (directory.path().join("log"), directory.path().join("ran"));
    let script = format!("echo $1 >> {}", ran.display());
    let resume = |inputs: &[&str]| {
        let words = ["exec", "-j1", "--resume", "--log", log.to_str().unwrap()];
        let words = [&words[..], &["-c", script.as_str(), ":::"], inputs].concat();
        let output = coordinator(&words).output();
        assert!(output.status.success(), "{}", stderr(&output));
        let done = fs::read_to_string(&ran).unwrap_or_default();
        let _ = fs::remove_file(&ran);
        done
    };
    assert_eq!(resume(&["a", "b"]), "a\nb\n");
    let whole = fs::read(&log).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in first..=whole.len() {
        fs::write(&log, &whole[..cut]).unwrap();
        // The line is whole without its newline, too.
        let rest = if cut >= whole.len() - 1 { "" } else { "b\n" };
        assert_eq!(resume(&["a", "b"]), rest, "cut at {cut} of {}", whole.len());
        assert_eq!(
            resume(&["a", "b", "c"]),
            "c\n",
            "cut at {cut} of {}",
            whole.len()
        );
    }
}

/// Killed when it is about to write a line of its log: what the log says is done does not run again, all else does.
#[test]
fn a_run_that_is_killed_at_any_line_of_its_log_is_taken_up_again() {
    if !std::process::Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status()
        .is_ok_and(|it| it.success())
    {
        return tests::skipped("strace does not work here");
    }
    let inputs: Vec<String> = (1..=6).map(|number| number.to_string()).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    for number in 1..=inputs.len() {
        let directory = TempDir::new().unwrap();
        let (log, ran) = (directory.path().join("log"), directory.path().join("ran"));
        let script = format!("echo $1 >> {}", ran.display());
        let log = log.to_str().unwrap();
        let words = [
            "exec", "-j2", "--resume", "--log", log, "-c", &script, ":::",
        ];
        let words = [&words[..], &inputs].concat();
        let inject = format!("inject=write:signal=KILL:when={number}");
        let options = [
            "-o",
            "/dev/null",
            "-P",
            log,
            "-e",
            "trace=write",
            "-e",
            &inject,
        ];
        let killed = coordinator(&words)
            .under_strace(&options)
            .command
            .output()
            .unwrap();
        assert!(
            !killed.status.success(),
            "it was to be killed at line {number}"
        );
        let lines = fs::read_to_string(log).unwrap().lines().count();
        assert_eq!(lines, number - 1);
        let resumed = coordinator(&words).output();
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        let ran = fs::read_to_string(&ran).unwrap();
        let again = inputs
            .iter()
            .map(|input| ran.lines().filter(|line| line == input).count());
        let again: Vec<usize> = again.collect();
        // Two may have run when it was killed, and the one whose line was being written.
        assert!(
            again.iter().all(|times| (1..=2).contains(times)),
            "{number} {ran}"
        );
        assert!(
            again.iter().sum::<usize>() <= inputs.len() + 3,
            "{number} {ran}"
        );
        // Nothing is left to do.
        let rest = coordinator(&words).output();
        assert!(rest.status.success() && stdout(&rest).is_empty());
    }
}
