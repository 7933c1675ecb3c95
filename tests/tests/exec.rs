//! `coordinator exec`, as people use it instead of xargs and GNU parallel.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use tempfile::TempDir;
use tests::run::{Run, complains, coordinator, prints, stderr, stdout};

fn script<'a>(options: &[&'a str], script: &'a str, inputs: &[&'a str]) -> Run {
    let mut words = vec!["exec"];
    words.extend(options);
    words.extend(["-c", script, ":::"]);
    words.extend(inputs);
    coordinator(&words)
}

#[test]
fn a_command_runs_for_each_input() {
    prints(
        &coordinator(&["exec", "--", "echo", "-n", "<{}>", "{#}", ":::", "a b", "c"]).output(),
        0,
        "<a b> 1<c> 2",
    );
    prints(
        &coordinator(&["exec", ":::", "a", "b", "--", "echo", "x"]).output(),
        0,
        "x a\nx b\n",
    );
    let names = coordinator(&["exec", "--", "echo", "{}", "{.}", "{/}", "{//}", "{/.}"]);
    prints(&names.with_input(b"d/f.c\n"), 0, "d/f.c d/f f.c d f\n");
    let three = coordinator(&["exec", "-n3", "--", "echo"]).with_input(b"1\n2\n3\n4\n");
    prints(&three, 0, "1 2 3\n4\n");
}

#[test]
fn a_script_gets_its_inputs_as_arguments() {
    prints(
        &script(&[], "echo \"<$1>\" $#", &["a b", "$(c)"]).output(),
        0,
        "<a b> 1\n<$(c)> 1\n",
    );
    prints(
        &script(&["-n2"], "echo \"$@\"", &["1", "2", "3"]).output(),
        0,
        "1 2\n3\n",
    );
    complains(&script(&[], "echo {}", &["1"]).output(), 2, "\"$1\"");
}

#[test]
fn odd_inputs_arrive_intact() {
    let odd = "My brother's 12\" *** record  (costs $$$).jpg";
    prints(
        &script(&[], "printf '%s\\n' \"$1\"", &[odd]).output(),
        0,
        &format!("{odd}\n"),
    );
    let run = coordinator(&["exec", "-0", "--", "printf", "<%s>"]);
    prints(&run.with_input(b"a\nb\0\0c"), 0, "<a\nb><><c>");
    let run = coordinator(&["exec", "--", "printf", "<%s>"]);
    prints(&run.with_input(b"a\n\nb"), 0, "<a><><b>");
    let run = coordinator(&["exec", "--", "printf", "<%s>"]);
    assert_eq!(run.with_input(b"\xff\xfe\n").stdout, b"<\xff\xfe>");
    prints(&coordinator(&["exec", "--", "echo"]).output(), 0, "");
}

#[test]
fn output_comes_in_input_order() {
    let run = script(&["-j3"], "sleep $1; echo $1", &["0.3", "0.2", "0.1"]);
    prints(&run.output(), 0, "0.3\n0.2\n0.1\n");
    let run = script(&["-j3", "-u"], "sleep $1; echo $1", &["0.6", "0.3", "0"]);
    prints(&run.output(), 0, "0\n0.3\n0.6\n");
}

#[test]
fn thirty_commands_of_three_megabytes_do_not_mix() {
    let inputs: Vec<String> = (10..40).map(|n| n.to_string()).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let lines = "yes $1-out | head -n 500000; yes $1-err | head -n 500000 >&2";
    let output = script(&["-j4"], lines, &inputs).output();
    for (text, kind) in [(stdout(&output), "out"), (stderr(&output), "err")] {
        let mut lines = text.lines();
        for input in &inputs {
            let line = format!("{input}-{kind}");
            assert!(
                lines.by_ref().take(500_000).all(|found| found == line),
                "{line}"
            );
        }
        assert!(lines.next().is_none());
    }
}

/// Starts it, with its stdout as lines.
fn lines(mut run: Run) -> (Run, std::process::Child, impl Iterator<Item = String>) {
    let mut child = run.command.stdin(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (run, child, lines.map(Result::unwrap))
}

#[test]
fn the_first_call_streams_and_later_ones_wait() {
    let directory = TempDir::new().unwrap();
    let go = directory.path().join("go");
    for (options, rest) in [
        (&["-j2"][..], ["1 end", "2 begin", "2 end"]),
        (&["-j2", "--live"], ["", "", ""]),
    ] {
        let _ = std::fs::remove_file(&go);
        let wait = format!(
            "echo $1 begin; while ! [ -e {} ]; do sleep 0.01; done; echo $1 end",
            go.display()
        );
        let (run, mut child, mut lines) = lines(script(options, &wait, &["1", "2"]));
        let live = options.contains(&"--live");
        let mut first: Vec<_> = lines.by_ref().take(if live { 2 } else { 1 }).collect();
        first.sort();
        assert_eq!(first, ["1 begin", "2 begin"][..first.len()]);
        std::fs::write(&go, "").unwrap();
        let mut last: Vec<_> = lines.collect();
        if live {
            last.sort();
            assert_eq!(last, ["1 end", "2 end"]);
        } else {
            assert_eq!(last, rest);
        }
        assert!(child.wait().unwrap().success());
        run.nothing_left();
    }
}

#[test]
fn the_first_call_starts_before_the_inputs_end() {
    let (run, mut child, mut lines) = lines(coordinator(&["exec", "--", "echo"]));
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "1").unwrap();
    assert_eq!(lines.next().unwrap(), "1");
    drop(stdin);
    assert!(child.wait().unwrap().success());
    run.nothing_left();
}

#[test]
fn head_ends_an_endless_run_quietly() {
    let (run, mut child, mut lines) = lines(coordinator(&["exec", "-j2", "--", "echo"]));
    let mut stdin = child.stdin.take().unwrap();
    let endless = std::thread::spawn(move || while writeln!(stdin, "2").is_ok() {});
    assert_eq!(lines.next().unwrap(), "2");
    drop(lines);
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(said, "");
    endless.join().unwrap();
    run.nothing_left();
}

#[test]
fn a_grandchild_that_keeps_stdout_open_holds_nothing_up() {
    prints(
        &script(&[], "sleep 1000 & echo $1", &["1", "2"]).output(),
        0,
        "1\n2\n",
    );
}

#[test]
fn a_timeout_kills_grandchildren_and_those_that_ignore_sigterm() {
    for ignore in ["", "trap '' TERM; "] {
        let directory = TempDir::new().unwrap();
        let pid = directory.path().join("pid");
        // The loop keeps a shell that ignores SIGTERM from dying with its child.
        let lines = format!(
            "{ignore}sleep 1000 & echo $! > {}; while :; do wait; sleep 0.1; done",
            pid.display()
        );
        let output = script(&["-t", "0.5", "--grace", "0.2"], &lines, &["1"]).output();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("500ms"), "{}", stderr(&output));
        let pid: u32 = std::fs::read_to_string(pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        tests::eventually("the grandchild is gone", || !tests::is_alive(pid));
    }
}

#[test]
fn commands_have_a_group_of_their_own_and_know_their_number() {
    let each = "echo $COORDINATOR_SEQ $COORDINATOR_ATTEMPT $COORDINATOR_WORKER; \
                [ $(ps -o pgid= -p $$) = $$ ]";
    prints(
        &script(&["-j1"], each, &["a", "b"]).output(),
        0,
        "1 1 1\n2 1 1\n",
    );
    // Such a signal reaches the command alone.
    let output = script(&["-j1"], "[ $1 = b ] || kill -KILL 0; echo $1", &["a", "b"]).output();
    prints(&output, 1, "b\n");
    assert!(stderr(&output).contains("SIGKILL"), "{}", stderr(&output));
}

#[test]
fn max_fail_starts_nothing_more() {
    let run = script(
        &["-j1", "--max-fail", "1"],
        "echo $1; exit $1",
        &["0", "1", "0"],
    );
    prints(&run.output(), 1, "0\n1\n");
    let run = script(
        &["-j2", "--max-fail", "1:now"],
        "[ $1 = 1 ] || exec sleep 30; sleep 0.2; exit 1",
        &["0", "1", "2"],
    );
    let began = std::time::Instant::now();
    prints(&run.output(), 1, "");
    assert!(began.elapsed() < std::time::Duration::from_secs(25));
}

#[test]
fn success_at_the_second_attempt_is_shown_as_retried() {
    let output = script(
        &["-r1"],
        "echo $COORDINATOR_ATTEMPT; [ $COORDINATOR_ATTEMPT = 2 ]",
        &["x"],
    );
    let output = output.output();
    prints(&output, 0, "2\n");
    assert!(stderr(&output).contains("1 retried"), "{}", stderr(&output));
}

#[test]
fn lines_can_be_tagged_with_their_input() {
    let output = script(&["--tag", "-j2"], "echo one; echo two", &["a", "b"]).output();
    prints(&output, 0, "a\tone\na\ttwo\nb\tone\nb\ttwo\n");
}

#[test]
fn a_command_that_opens_its_stdout_anew_loses_nothing_of_any_call() {
    let mut run = script(
        &["-j2"],
        "case $1 in
            first) read -r _ <fifo; echo first >/dev/stdout;;
            last) echo last; echo last >/dev/stderr; echo go >fifo;;
            *) echo a$1; echo b$1 >/dev/stdout; echo c$1 | tee /dev/stderr;;
        esac",
        &["first", "2", "3", "4", "last"],
    );
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    run.command.current_dir(directory.path());
    let output = run.output();
    prints(
        &output,
        0,
        "first\na2\nb2\nc2\na3\nb3\nc3\na4\nb4\nc4\nlast\n",
    );
    assert_eq!(stderr(&output), "c2\nc3\nc4\nlast\n");
}

#[test]
fn few_descriptors_do_not_hang_a_run() {
    // As many as two workers are given.
    let mut run = coordinator(&[]);
    let program = run.command.get_program().to_owned();
    let mut limited = std::process::Command::new("sh");
    limited
        .arg("-c")
        .arg("ulimit -n 31; exec \"$0\" exec -j2 -r1 -- false ::: 1 2 3 4 5 6 7 8")
        .arg(program)
        .env("TMPDIR", run.temporary.path())
        .stdin(Stdio::null());
    run.command = limited;
    let output = run.output();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
#[expect(unsafe_code, reason = "what whoever starts a run may do to it")]
fn it_is_known_how_a_command_ended_also_where_sigchld_is_ignored() {
    let mut run = coordinator(&["exec", "--", "echo", ":::", "1", "2"]);
    let ignore = || {
        // SAFETY: a plain call.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: it is allowed between fork and exec.
    unsafe { run.command.pre_exec(ignore) };
    prints(&run.output(), 0, "1\n2\n");
}

#[test]
fn several_inputs_are_no_more_than_a_command_line_has_room_for() {
    // With their addresses 7 MB of words; a command has a quarter of what the stack may have, and 6 MiB at most.
    let input: String = (0..400_000).map(|n| format!("{n:09}\n")).collect();
    let run = coordinator(&["exec", "-n", "1000000", "--", "printf", "%s\\n"]);
    let output = run.with_input(input.as_bytes());
    prints(&output, 0, &input);
    let run = coordinator(&["exec", "-n", "1000000", "-c", "echo $#"]);
    let output = run.with_input(input.as_bytes());
    let counts: Vec<u32> = stdout(&output)
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(counts.iter().sum::<u32>(), 400_000);
    assert!((2..100).contains(&counts.len()), "{counts:?}");
}

#[test]
fn a_closed_stdout_is_an_error_once_something_is_to_be_written() {
    let closed = |words: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" >&-"]);
        command.arg(tests::coordinator()).args(words);
        command.output().unwrap()
    };
    for words in [
        &["exec", "--", "echo", ":::", "1"][..],
        &["exec", "--dry-run", "--", "echo", ":::", "1"],
        &["map", "square", ":::", "1"],
        &["pipe", "--", "cat", ":::", "1"],
        &["tasks"],
        &["--help"],
    ] {
        complains(&closed(words), 3, "closed");
    }
    let silent = closed(&["exec", "--", "true", ":::", "1"]);
    assert_eq!(silent.status.code(), Some(0), "{}", stderr(&silent));
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let line = |arguments: &[&str]| coordinator(arguments).output();
    complains(
        &line(&["exec", "--", "nonesuch", ":::", "1"]),
        2,
        "there is no command `nonesuch`",
    );
    complains(
        &line(&["exec", "--", "/nonesuch", ":::", "1"]),
        2,
        "/nonesuch",
    );
    complains(
        &line(&["pipe", "--", "nonesuch", ":::", "1"]),
        2,
        "nonesuch",
    );
    complains(&line(&["exec", ":::", "1"]), 2, "after `--`");
    // What GNU parallel has, and what would be taken for something else in silence.
    for words in [
        &["exec", "--", "echo", "{1}", ":::", "1"][..],
        &["exec", "--", "echo", "a{%}", ":::", "1"],
        &["exec", "::::", "/dev/null", "--", "echo"],
        &["exec", "--", "echo", "::::", "/dev/null"],
        &["exec", "--", "echo", ":::", "1", ":::+", "2"],
        &["map", "square", "::::", "/dev/null"],
    ] {
        complains(&line(words), 2, "nothing");
    }
    complains(
        &line(&["exec", "-j0", "--", "true", ":::", "1"]),
        2,
        "--jobs",
    );
    complains(
        &line(&["exec", "-t", "soon", "--", "true", ":::", "1"]),
        2,
        "duration",
    );
    complains(
        &line(&["exec", "--resume", "--", "true", ":::", "1"]),
        2,
        "--log",
    );
    complains(
        &line(&["exec", "--", "echo", ":::", "1", ":::", "2"]),
        2,
        "second `:::`",
    );
    // No more are started than there is something to do for, if that is known.
    let many = ["exec", "-j99999999", "--", "true"];
    prints(&line(&[&many[..], &[":::", "1", "2"]].concat()), 0, "");
    complains(&coordinator(&many).with_input(b"1\n"), 2, "ulimit -n");
    complains(
        &line(&["exec", "--", "/etc/passwd", ":::", "1"]),
        2,
        "chmod +x",
    );
    complains(
        &line(&["exec", "--timeouts", "1s", "--", "true", ":::", "1"]),
        2,
        "try: coordinator exec --help",
    );
    complains(
        &line(&["exec", "--log", "/nowhere/log", "--", "true", ":::", "1"]),
        2,
        "/nowhere/log",
    );
}

#[test]
fn a_command_may_use_the_command_line_itself() {
    let nested = format!("{} map square ::: $1", tests::coordinator().display());
    prints(
        &script(&["-j2"], &nested, &["3", "4"]).output(),
        0,
        "9\n16\n",
    );
}

#[test]
fn a_full_disk_is_a_loud_error() {
    // Mounting needs a user namespace of its own, which not every machine allows.
    let directory = TempDir::new().unwrap();
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 77; \
                  TMPDIR=$1 \"$2\" exec -j1 -c 'head -c 2000000 /dev/zero 2>&-; true' ::: 1 2";
    let mut unshare = std::process::Command::new("unshare");
    unshare
        .args(["-rm", "sh", "-c", script, "sh"])
        .arg(&small)
        .arg(tests::coordinator());
    let Ok(output) = unshare.stdin(Stdio::null()).output() else {
        return;
    };
    match output.status.code() {
        Some(1 | 77) => {} // not on this machine
        code => {
            assert_eq!(code, Some(3), "{}", stderr(&output));
            assert!(
                stderr(&output).contains("no space left"),
                "{}",
                stderr(&output)
            );
        }
    }
}

#[test]
fn three_thousand_calls_need_the_memory_of_one() {
    let (run, mut child, mut lines) = lines(coordinator(&["exec", "-j2", "--", "echo"]));
    let mut stdin = child.stdin.take().unwrap();
    let peak = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kibibytes.parse().unwrap()
    };
    let mut ask = |from: u32, to: u32| {
        for input in from..to {
            writeln!(stdin, "{input}").unwrap();
            assert_eq!(lines.next().unwrap(), input.to_string());
        }
    };
    ask(0, 100);
    let at_first = peak(child.id());
    ask(100, 3000);
    let grown = peak(child.id()) - at_first;
    assert!(grown < 1024, "{grown} KiB");
    drop(stdin);
    assert!(child.wait().unwrap().success());
    run.nothing_left();
}

#[test]
fn inputs_that_can_not_be_read_to_their_end_are_not_all() {
    // Its first page is not mapped.
    let output = coordinator(&["exec", "-a", "/proc/self/mem", "--", "echo"]).output();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("from /proc/self/mem ended early"), "{said}");
    assert!(said.contains("the rest did not run"), "{said}");
}

#[test]
fn a_command_that_has_not_made_what_is_to_be_fetched_has_failed() {
    let here = TempDir::new().unwrap();
    let made = "test $1 = lazy || echo $1 > out/$1";
    let words = ["exec", "--fetch", "out/{}", "-c", made, ":::", "a", "lazy"];
    let mut run = coordinator(&words);
    run.command.current_dir(here.path());
    let output = run.output();
    prints(&output, 1, "");
    assert!(stderr(&output).contains("it has made no file \"out/lazy\""));
    assert!(here.path().join("out/a").exists());
}

/// Whoever shares a stream may have set it not to wait, and read slowly.
#[test]
fn streams_that_do_not_wait_lose_nothing() {
    let results = |script: &str| {
        let mut run = coordinator(&["exec", "-j2", "-c", script, ":::", "1", "2", "3"]);
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        match script.ends_with("&2") {
            true => run.command.stderr(writer),
            false => run.command.stdout(writer),
        };
        let mut child = run.command.spawn().unwrap();
        // The command holds a copy of the writing end.
        run.command.stdout(Stdio::null()).stderr(Stdio::null());
        // The results are larger than a pipe.
        let mut bytes = Vec::new();
        (&reader).read_to_end(&mut bytes).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{script}");
        bytes.len()
    };
    assert_eq!(results("yes $1 | head -c 1000000"), 3_000_000);
    assert_eq!(results("yes $1 | head -c 1000000 >&2"), 3_000_000);

    let mut run = coordinator(&["exec", "--", "echo"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let mut child = run.command.stdin(reader).spawn().unwrap();
    let mut results = BufReader::new(child.stdout.take().unwrap());
    let mut echoed = String::new();
    // Each result is there before the next input: in between, nothing is there to be read.
    for input in ["1\n", "2\n"] {
        writer.write_all(input.as_bytes()).unwrap();
        echoed.clear();
        results.read_line(&mut echoed).unwrap();
        assert_eq!(echoed, input);
    }
    drop(writer);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
