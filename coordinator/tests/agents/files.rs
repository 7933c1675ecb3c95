//! Files that go along with calls, and come back.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::support::{Agent, Broker, SOON, wait_until};

/// Runs `coordinator exec` in a directory, on agents alone.
fn exec(broker: &Broker, directory: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["exec", "-j0", "--nats", &broker.url()])
        .args(words)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// The same, while something happens to what it runs on. It has to end by itself.
fn exec_while(
    broker: &Broker,
    directory: &Path,
    words: &[&str],
    happens: impl FnOnce(&Child),
) -> Vec<serde_json::Value> {
    let mut run = Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["exec", "-j0", "--json", "--nats", &broker.url()])
        .args(words)
        .current_dir(directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = run.stdout.take().unwrap();
    let told = std::thread::spawn(move || {
        let mut told = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut told).unwrap();
        told
    });
    happens(&run);
    let until = Instant::now() + SOON;
    while run.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            run.kill().unwrap();
            run.wait().unwrap();
            panic!("the run does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = told.join().unwrap();
    told.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until a run reads the files that are to go along with its calls.
fn wait_until_measured(run: &Child) {
    let threads = format!("/proc/{}/task", run.id());
    wait_until("its files are read", || {
        let threads = fs::read_dir(&threads).into_iter().flatten().flatten();
        let mut names = threads.map(|thread| fs::read_to_string(thread.path().join("comm")));
        names.any(|name| name.is_ok_and(|name| name.trim() == "files"))
    });
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn files_go_along_and_come_back_under_their_names() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let agents = [Agent::start(&broker, "a", 2), Agent::start(&broker, "b", 1)];
    let here = tempfile::TempDir::new().unwrap();
    let at = |name: &str| here.path().join(name);
    fs::create_dir(at("in")).unwrap();
    let names = [
        "plain",
        "with space",
        "with\nnewline",
        "-dash",
        "ümläut",
        "empty",
    ];
    for name in names {
        let content = if name == "empty" {
            String::new()
        } else {
            name.repeat(50_000)
        };
        fs::write(at("in").join(name), content).unwrap();
    }
    // What goes along by a link is what the link leads to.
    symlink("plain", at("in/link")).unwrap();
    fs::write(
        at("turn.sh"),
        "#!/bin/sh\nmkdir -p out && rev < \"$1\" > \"out/${1##*/}\"\n",
    )
    .unwrap();
    fs::set_permissions(at("turn.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let inputs: Vec<String> = names
        .iter()
        .chain(&["link"])
        .map(|name| format!("in/{name}"))
        .collect();
    let words = [
        "--send",
        "{}",
        "--send",
        "turn.sh",
        "--fetch",
        "out/{/}",
        "-0",
        "--",
        "./turn.sh",
        "{}",
    ];
    let mut run = Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["exec", "-j0", "--nats", &broker.url()])
        .args(words)
        .current_dir(here.path())
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut run.stdin.take().unwrap(), inputs.join("\0").as_bytes())
        .unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for name in names.iter().chain(&["link"]) {
        let sent = fs::read_to_string(at("in").join(name)).unwrap();
        let lines = sent
            .lines()
            .map(|line| line.chars().rev().collect::<String>());
        let turned = lines.collect::<Vec<_>>().join("\n");
        assert!(
            fs::read_to_string(at("out").join(name)).unwrap() == turned,
            "{name:?}"
        );
    }
    // Nothing is left beside them, nor on the agents.
    assert_eq!(fs::read_dir(at("out")).unwrap().count(), names.len() + 1);
    for agent in &agents {
        wait_until("the files of the run are gone", || agent.keeps_no_files());
    }
}

#[test]
fn names_that_lead_out_and_files_that_are_missing_end_their_calls_alone() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let here = tempfile::TempDir::new().unwrap();
    fs::write(here.path().join("good"), "x").unwrap();
    fs::create_dir(here.path().join("directory")).unwrap();
    let inputs = ["good", "../good", "/etc/hostname", "missing", "directory"];
    let words = ["--send", "{}", "--json", "--", "cat", "{}", ":::"];
    let output = exec(&broker, here.path(), &[&words[..], &inputs[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let objects: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |index: usize| objects[index]["error"].as_str().unwrap_or("ok").to_owned();
    assert_eq!((of(0).as_str(), &objects[0]["stdout"]), ("ok", &"x".into()));
    for (index, why) in [
        (1, "not within"),
        (2, "not within"),
        (3, "No such file"),
        (4, "no file"),
    ] {
        assert!(of(index).contains(why), "{}", of(index));
    }
}

#[test]
fn only_a_call_that_succeeds_brings_files_and_those_it_has_promised() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 2);
    let here = tempfile::TempDir::new().unwrap();
    let script = "echo $1 > out-$1; test $1 != bad || exit 3; test $1 != none || rm out-none; \
                  test $1 != link || ln -sf /etc out-link; \
                  test $1 != fifo || { rm out-fifo; mkfifo out-fifo; }";
    let words = [
        "--fetch", "out-{}", "-c", script, ":::", "good", "bad", "none", "link", "fifo", "same",
        "same",
    ];
    fs::write(here.path().join("out-bad"), "before").unwrap();
    let output = exec(&broker, here.path(), &words);
    let at = |name: &str| fs::read_to_string(here.path().join(name));
    assert_eq!(at("out-good").unwrap(), "good\n");
    assert_eq!(at("out-bad").unwrap(), "before");
    assert_eq!(at("out-same").unwrap(), "same\n");
    assert!(at("out-none").is_err() && at("out-link").is_err());
    let said = said(&output);
    assert!(said.contains("it has made no file \"out-none\""), "{said}");
    assert!(said.contains("\"out-link\" is no file"), "{said}");
    // Nobody waits for what somebody may write into it.
    assert!(said.contains("\"out-fifo\" is no file"), "{said}");
    assert!(said.contains("exited with code 3"), "{said}");
}

#[test]
fn large_files_come_through_and_where_they_run_does_not_matter() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let here = tempfile::TempDir::new().unwrap();
    let bytes: Vec<u8> = (0..20_000_000_u32)
        .map(|at| (at ^ (at >> 8)) as u8)
        .collect();
    for name in ["one", "two", "three"] {
        fs::write(here.path().join(name), &bytes).unwrap();
    }
    // One worker is here, where the files are, and one elsewhere.
    let output = Command::new(env!("CARGO_BIN_EXE_coordinator"))
        .args(["exec", "-j1", "--nats", &broker.url()])
        .args(["--send", "{}", "--fetch", "{}.copy", "--json"])
        .args([
            "-c",
            "cp $1 $1.copy; sleep 0.5",
            ":::",
            "one",
            "two",
            "three",
        ])
        .current_dir(here.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let machines = String::from_utf8(output.stdout).unwrap();
    assert!(machines.contains("\"machine\":\"a\""), "{machines}");
    for name in ["one", "two", "three"] {
        assert!(fs::read(here.path().join(name).with_extension("copy")).unwrap() == bytes);
    }
}

/// A place here that can't be written ends the call, and says so.
#[test]
fn a_file_that_finds_no_place_here_is_told_of() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let here = tempfile::TempDir::new().unwrap();
    fs::write(here.path().join("out"), "a file, and no directory").unwrap();
    let script = "mkdir -p out; echo x > out/x";
    let words = ["--fetch", "out/x", "-c", script, ":::", "1"];
    let output = exec(&broker, here.path(), &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("what it has made did not come through"),
        "{}",
        said(&output)
    );
}

/// What goes along with a call is deleted, cut off or written anew before the agent has all of it: that call ends, says why, and
/// costs no other.
#[test]
fn a_file_that_changes_under_way_costs_its_call_alone() {
    let Some(broker) = Broker::start() else {
        return;
    };
    const LARGE: usize = 60 << 20;
    let write_anew = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path);
        std::io::Write::write_all(&mut file.unwrap(), &vec![b'y'; LARGE]).unwrap();
    };
    let delete = |path: &Path| fs::remove_file(path).unwrap();
    let cut_off = |path: &Path| fs::write(path, "short").unwrap();
    type Change<'c> = (&'c dyn Fn(&Path), &'c str);
    let changes: [Change<'_>; 3] = [
        (&delete, "can't be read any more"),
        (&cut_off, "can't be read any more"),
        (&write_anew, "not what it was"),
    ];
    for (change, why) in changes {
        let agent = Agent::start(&broker, "a", 3);
        let here = tempfile::TempDir::new().unwrap();
        for name in ["one", "two", "three"] {
            fs::write(here.path().join(name), name).unwrap();
        }
        let large = here.path().join("two");
        fs::write(&large, vec![b'x'; LARGE]).unwrap();
        let words = [
            "--send",
            "{}",
            "-c",
            "wc -c < $1",
            ":::",
            "one",
            "two",
            "three",
        ];
        let told = exec_while(&broker, here.path(), &words, |_| {
            wait_until("it is fetched", || agent.is_fetching());
            change(&large);
        });
        let of = |index: usize| told[index]["error"].as_str().unwrap_or("ok");
        assert_eq!((of(0), of(2)), ("ok", "ok"), "{told:?}");
        assert!(of(1).contains(why), "{}", of(1));
    }
}

/// Something that takes a while to be read.
fn write_large(path: &Path) {
    fs::write(path, vec![b'x'; 200 << 20]).unwrap();
}

/// An agent leaves before its files are known: it has heard nothing of its call, which is given to the next.
#[test]
fn an_agent_that_leaves_before_it_has_its_lease_keeps_nothing() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let mut leaver = Agent::start(&broker, "a", 1);
    let here = tempfile::TempDir::new().unwrap();
    write_large(&here.path().join("large"));
    let words = ["--send", "{}", "-c", "wc -c < $1", ":::", "large"];
    let mut next = None;
    let told = exec_while(&broker, here.path(), &words, |run| {
        wait_until_measured(run);
        leaver.signal(libc::SIGTERM);
        assert!(leaver.wait().success());
        next = Some(Agent::start(&broker, "b", 1));
    });
    assert_eq!(told[0]["machine"], "b", "{told:?}");
}

/// What is wanted back before its files are known does not run.
#[test]
fn what_is_taken_back_before_it_is_sent_does_not_run() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let here = tempfile::TempDir::new().unwrap();
    write_large(&here.path().join("large"));
    let ran = here.path().join("ran");
    let script = format!("touch {}", ran.display());
    let words = ["--send", "{}", "-c", &script, ":::", "large"];
    exec_while(&broker, here.path(), &words, |run| {
        wait_until_measured(run);
        let mut kill = Command::new("kill");
        kill.args(["-2", &run.id().to_string()]);
        assert!(kill.status().unwrap().success());
    });
    assert!(!ran.exists());
}

/// The names of the files of one call are more than a message takes: it ends, and says so.
#[test]
fn a_call_with_too_many_files_is_told_of() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let _agent = Agent::start(&broker, "a", 1);
    let here = tempfile::TempDir::new().unwrap();
    let names = |many: usize| -> Vec<String> {
        let long = "x".repeat(200);
        (0..many).map(|at| format!("{at}{long}")).collect()
    };
    for many in [40, 3000] {
        for name in names(many) {
            fs::write(here.path().join(name), "x").unwrap();
        }
        fs::write(here.path().join("names"), names(many).join("\n")).unwrap();
        let words = [
            "-n", "3000", "--send", "{}", "-a", "names", "--", "true", "{}",
        ];
        let told = exec_while(&broker, here.path(), &words, |_| {});
        let said = told[0]["error"].as_str().unwrap_or("ok");
        match many {
            40 => assert_eq!(said, "ok"),
            _ => assert!(said.contains("too many names"), "{said}"),
        }
    }
}
