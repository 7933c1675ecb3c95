//! Machines over ssh, as people use them: `coordinator exec --on`, with a script that stands in for ssh, and with a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "a test says why it was skipped")]

mod real;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use support::{Place, Ran, SOON, kill, script, wait_for, waiting_calls, words_of};

#[test]
fn calls_run_on_machines_on_which_nothing_was_prepared() {
    let Some(place) = Place::new() else { return };
    let inputs: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    // Each machine waits for the other, so that neither runs all.
    let both = "cd $COORDINATOR_TEST_PLACE; touch seen-${HOME##*/}; \
                until [ -e seen-box2 -a -e seen-box3 ]; do sleep 0.05; done; echo $1";
    let words = ["exec", "--on", "box2,box3:1", "-j0", "-c", both, ":::"];
    let mut command = place.command(&words);
    let ran = Ran::of(command.args(&inputs).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines, inputs);
    ran.says("box2 joins with");
    ran.says("box3 joins with 1 slot");
    place.is_clean();
    // Each has this program now, and is not sent it again.
    let programs = |host: &str| -> Vec<(PathBuf, u64)> {
        let directory = place.path(host).join(".cache/coordinator/programs");
        let files = fs::read_dir(directory).unwrap().flatten();
        files
            .map(|file| (file.path(), file.metadata().unwrap().ino()))
            .collect()
    };
    let before = (programs("box2"), programs("box3"));
    assert_eq!((before.0.len(), before.1.len()), (1, 1), "{before:?}");
    let ran = place.run(&[
        "exec",
        "--on",
        "box2,box3:1",
        "-j0",
        "-c",
        "test $1 != b",
        ":::",
        "a",
        "b",
    ]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!((programs("box2"), programs("box3")), before);
    place.is_clean();
}

#[test]
fn a_program_that_was_damaged_there_is_sent_again() {
    let Some(place) = Place::new() else { return };
    let run = || place.run(&["exec", "--on", "box2:1", "-j0", "-c", "echo $1", ":::", "a"]);
    assert_eq!(run().code, Some(0));
    let directory = place.path("box2").join(".cache/coordinator/programs");
    let file = fs::read_dir(directory).unwrap().next().unwrap().unwrap();
    let whole = file.metadata().unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(file.path())
        .unwrap()
        .set_len(whole / 2)
        .unwrap();
    let ran = run();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n"), "{ran:?}");
    assert_eq!(file.path().metadata().unwrap().len(), whole);
    place.is_clean();
}

#[test]
fn two_runs_use_a_machine_at_once() {
    let Some(place) = Place::new() else { return };
    let words = [
        "exec", "--on", "box2:1", "-j0", "-c", "echo $1", ":::", "a", "b",
    ];
    let runs: Vec<Child> = (0..3)
        .map(|_| place.command(&words).spawn().unwrap())
        .collect();
    for run in runs {
        let ran = Ran::of(run.wait_with_output().unwrap());
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), "a\nb\n"),
            "{ran:?}"
        );
    }
    place.is_clean();
}

#[test]
fn a_machine_that_can_not_be_reached_is_left_out_and_noise_is_no_harm() {
    let Some(place) = Place::new() else { return };
    let ran = place.run(&[
        "exec",
        "--on",
        "nowhere,noisy:2",
        "-j0",
        "-c",
        "sleep 0.2; echo $1",
        ":::",
        "a",
        "b",
        "c",
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "a\nb\nc\n"),
        "{ran:?}"
    );
    ran.says("nowhere can't take part: ssh: Could not resolve hostname nowhere");
    assert_eq!(ran.stderr.matches("nowhere").count(), 2, "{ran:?}");
    place.is_clean();
}

#[test]
fn a_run_without_any_machine_fails_soon_and_says_why() {
    let Some(place) = Place::new() else { return };
    let began = Instant::now();
    let ran = place.run(&[
        "exec",
        "--on",
        "nowhere1,nowhere2",
        "-j0",
        "-c",
        "echo $1",
        ":::",
        "a",
    ]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    ran.says("no machine can take part");
    ran.says("nowhere1: ssh: Could not resolve hostname");
    ran.says("nowhere2: ssh: Could not resolve hostname");
    // With a worker here it is only said.
    let ran = place.run(&[
        "exec",
        "--on",
        "nowhere3",
        "-j1",
        "-c",
        "until grep -q nowhere3 $COORDINATOR_TEST_PLACE/calls; do sleep 0.05; done; sleep 1; echo $1",
        ":::",
        "a",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n"), "{ran:?}");
    ran.says("nowhere3 can't take part");
    place.is_clean();
}

#[test]
fn a_machine_of_another_architecture_is_told_of() {
    let Some(place) = Place::new() else { return };
    let strange = place.path("strange");
    fs::create_dir(&strange).unwrap();
    script(&strange.join("uname"), "#!/bin/sh\necho s390x\n");
    let ran = place.run(&[
        "exec", "--on", "strange", "-j0", "-c", "echo $1", ":::", "a",
    ]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    ran.says("strange: it is s390x, and this program is for");
    assert!(!place.path("strange/.cache").exists());
    // A program that somebody has installed there is used, if it is of this version.
    let there = format!("#!/bin/sh\nexec {} \"$@\"\n", support::PROGRAM);
    script(&strange.join("coordinator"), &there);
    let ran = place.run(&[
        "exec", "--on", "strange", "-j0", "-c", "echo $1", ":::", "a",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n"), "{ran:?}");
    assert!(!place.path("strange/.cache/coordinator/programs").exists());
    place.is_clean();
}

#[test]
fn a_broker_that_can_not_be_started_says_why() {
    let Some(place) = Place::new() else { return };
    let directory = place.path("broken");
    fs::create_dir(&directory).unwrap();
    let broken = "#!/bin/sh\necho 'nats-server: no such option: -c' >&2; exit 1\n";
    script(&directory.join("nats-server"), broken);
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let mut command = place.command(&["exec", "--on=box2", "-j0", "-c", "echo", ":::", "a"]);
    let ran = Ran::of(command.env("PATH", path).output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    ran.says("could not be started: nats-server: no such option: -c");
    place.is_clean();
}

#[test]
fn a_run_whose_broker_has_died_fails_and_says_so() {
    let Some(place) = Place::new() else { return };
    let child = waiting_calls(&place, "box2:2");
    for server in place.processes_with("nats-server") {
        kill(server);
    }
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    ran.says("the broker of this run, its nats-server, has ended");
    place.is_clean();
}

#[test]
fn mistakes_in_the_list_of_machines_are_told_of() {
    let Some(place) = Place::new() else { return };
    for (on, says) in [
        ("box2,box2", "named twice"),
        ("box2:x", "no number of slots"),
        ("-oProxyCommand=x", "hyphen"),
    ] {
        let on = format!("--on={on}");
        let ran = place.run(&["exec", &on, "-j0", "-c", "echo $1", ":::", "a"]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.says(says);
    }
    let mut command = place.command(&["exec", "--on=box2", "-j0", "-c", "echo", ":::", "a"]);
    let ran = Ran::of(command.env("PATH", place.path("none")).output().unwrap());
    if !["/usr/sbin", "/usr/local/sbin"]
        .iter()
        .any(|directory| Path::new(directory).join("nats-server").exists())
    {
        assert_eq!(ran.code, Some(3), "{ran:?}");
        ran.says("apt install nats-server");
    }
    place.is_clean();
}

#[test]
fn calls_of_a_machine_whose_ssh_has_died_run_again() {
    let Some(place) = Place::new() else { return };
    let child = waiting_calls(&place, "box2:1,box3:1");
    // The stand-in, and not the shell that waits for it.
    let ssh = |pid: &u32| {
        let words = words_of(*pid);
        words
            .get(1)
            .is_some_and(|word| Path::new(word) == place.ssh)
            && words.iter().any(|word| word == "box2")
    };
    let found: Vec<u32> = place.processes().into_iter().filter(ssh).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    // With it goes what it runs, as with a connection.
    let agents: Vec<u32> = place
        .processes_with("--stdio")
        .into_iter()
        .filter(|pid| words_of(*pid)[0].contains("/box2/"))
        .collect();
    assert_eq!(agents.len(), 1, "{agents:?}");
    kill(found[0]);
    wait_for("box2 is tried again", || {
        let calls = place.lines("calls");
        calls.iter().filter(|host| *host == "box2").count() >= 2
    });
    fs::write(place.path("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "a\nb\nc\n"),
        "{ran:?}"
    );
    ran.says("the connection to box2 has ended");
    place.is_clean();
}

#[test]
fn an_agent_that_is_killed_is_started_again() {
    let Some(place) = Place::new() else { return };
    let child = waiting_calls(&place, "box2:2");
    let agents = place.processes_with("--stdio");
    let agent = agents
        .iter()
        .find(|pid| words_of(**pid)[0].contains("/box2/"));
    kill(*agent.expect("an agent runs"));
    wait_for("calls run again", || place.lines("begun").len() >= 4);
    fs::write(place.path("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "a\nb\nc\n"),
        "{ran:?}"
    );
    place.is_clean();
}

/// ssh does not notice that the other end has vanished, if nobody has told it to ask.
#[test]
fn an_agent_whose_coordinator_is_out_of_sight_ends() {
    let Some(place) = Place::new() else { return };
    let wait = format!(
        "echo $1 >>{}; until [ -e {} ]; do sleep 0.05; done; echo $1",
        place.path("begun").display(),
        place.path("go").display()
    );
    let words = [
        "exec", "--on", "box2:1", "-j0", "-r2", "--lease", "4s", "-c", &wait, ":::", "a",
    ];
    let child = place.command(&words).spawn().unwrap();
    wait_for("a call runs", || place.lines("begun").len() == 1);
    let is_there = |pid: &u32| words_of(*pid)[0].contains("/box2/");
    let agents = || place.processes_with("--stdio").iter().any(is_there);
    assert!(agents());
    let signal = |name: &str| {
        let id = child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    wait_for("the agent has ended", || !agents());
    signal("-CONT");
    fs::write(place.path("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n"), "{ran:?}");
    place.is_clean();
}

#[test]
fn nothing_is_left_of_a_run_that_was_killed() {
    let Some(place) = Place::new() else { return };
    let mut child = waiting_calls(&place, "box2:1,box3:1,silent");
    assert!(!place.processes_with("--stdio").is_empty());
    assert!(!place.processes_with("nats-server").is_empty());
    wait_for("the one that hangs was tried", || {
        place.lines("calls").contains(&"silent".to_owned())
    });
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    place.is_clean();
}

#[test]
fn nobody_sees_the_password_of_a_run() {
    let Some(place) = Place::new() else { return };
    let child = waiting_calls(&place, "box2:2");
    let servers = place.processes_with("nats-server");
    let server = servers.first().expect("a broker runs");
    let config = fs::read_to_string(format!("/proc/{server}/fd/{}", config_of(*server))).unwrap();
    let password = config.split("password: \"").nth(1).unwrap();
    let password = password.split('"').next().unwrap();
    assert_eq!(password.len(), 32);
    for pid in place.processes() {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        for text in [arguments, environment] {
            assert!(!String::from_utf8_lossy(&text).contains(password));
        }
    }
    fs::write(place.path("go"), "").unwrap();
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).code, Some(0));
    place.is_clean();
}

/// The descriptor from which a broker has read its configuration.
fn config_of(server: u32) -> u32 {
    let words = words_of(server);
    let path = words.iter().find(|word| word.starts_with("/proc/self/fd/"));
    let number = path.unwrap().rsplit('/').next().unwrap();
    number.parse().unwrap()
}
