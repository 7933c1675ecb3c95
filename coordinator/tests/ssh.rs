//! Machines over ssh, as people use them: `coordinator exec --on`, with a script that stands in for ssh, and with a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "a test says why it was skipped")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a thing may take that comes soon, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(60);
/// The variable by which all processes of a test are known.
const MARK: &str = "COORDINATOR_TEST_PLACE";

/// Stands in for ssh: it drops options, and runs the command here, in a home of that machine's own.
const STAND_IN: &str = r#"#!/bin/sh
while :; do case $1 in -o) shift 2 ;; -*) shift ;; *) break ;; esac; done
host=$1; shift
echo "$host" >>"$COORDINATOR_TEST_PLACE/calls"
case $host in
  nowhere*) echo "ssh: Could not resolve hostname $host: Name or service not known" >&2; exit 255 ;;
  noisy*) printf 'Welcome to %s\nLast login: never\nprompt> ' "$host" ;;
  silent*) echo "someone presses a key" >&2; exec sleep 1000 ;;
  strange*) PATH=$COORDINATOR_TEST_PLACE/strange:$PATH ;;
esac
HOME=$COORDINATOR_TEST_PLACE/$host; export HOME; unset XDG_CACHE_HOME
mkdir -p "$HOME"
# What ssh starts is no child of it, and does not die with it.
setsid sh -c "$*"
"#;

/// A place for the machines of one test, and for what they leave behind.
struct Place {
    directory: TempDir,
    ssh: PathBuf,
}

/// Whether what a test needs is here. In CI it must be.
fn has(program: &str, version: &str) -> bool {
    let found = Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has no {program}");
        println!("skipped: there is no {program} here");
    }
    found.is_ok()
}

fn script(path: &Path, text: &str) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755))
        .unwrap();
}

impl Place {
    /// `None` where there is no broker.
    fn new() -> Option<Self> {
        has("nats-server", "-v").then(|| {
            let directory = TempDir::new().unwrap();
            let ssh = directory.path().join("ssh");
            script(&ssh, STAND_IN);
            Place { directory, ssh }
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .args(words)
            .env(MARK, self.directory.path())
            .env("COORDINATOR_SSH", &self.ssh)
            .env_remove("COORDINATOR_NATS")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().unwrap())
    }

    /// The processes of this test, but for this one.
    fn processes(&self) -> BTreeSet<u32> {
        let marked = format!("{MARK}={}", self.directory.path().display());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == marked.as_bytes())
        };
        pids.filter(is_marked).collect()
    }

    /// Those of them whose command line has this word.
    fn processes_with(&self, word: &str) -> BTreeSet<u32> {
        let has = |pid: &u32| words_of(*pid).iter().any(|known| known == word);
        self.processes().into_iter().filter(has).collect()
    }

    /// Nothing of a run is left: no process, and on no machine a lock.
    fn is_clean(&self) {
        wait_for("all processes have ended", || self.processes().is_empty());
        let homes = fs::read_dir(self.directory.path()).unwrap().flatten();
        for home in homes {
            let locks = home.path().join(".cache/coordinator/agents");
            let left: Vec<_> = fs::read_dir(locks)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    /// What stands in the file that commands write a line into.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may have ended meanwhile.
            let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
        }
    }
}

fn words_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(pid: u32) {
    let killed = Command::new("kill").arg("-9").arg(pid.to_string()).status();
    assert!(killed.unwrap().success());
}

/// What a run has printed, and how it has ended.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn says(&self, what: &str) {
        assert!(self.stderr.contains(what), "{self:?}");
    }
}

#[test]
fn calls_run_on_machines_on_which_nothing_was_prepared() {
    let Some(place) = Place::new() else { return };
    let inputs: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let words = ["exec", "--on", "box2,box3:1", "-j0", "-c", "echo $1", ":::"];
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
            .map(|file| {
                use std::os::unix::fs::MetadataExt as _;
                (file.path(), file.metadata().unwrap().ino())
            })
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
        "nowhere1",
        "-j1",
        "-c",
        "sleep 1; echo $1",
        ":::",
        "a",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n"), "{ran:?}");
    ran.says("nowhere1 can't take part");
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

/// Runs calls that wait until the file `go` is there, and returns when two of them have begun.
fn waiting_calls(place: &Place, on: &str) -> Child {
    let go = place.path("go");
    let begun = place.path("begun");
    let wait = format!(
        "echo $1 >>{}; until [ -e {} ]; do sleep 0.05; done; echo $1",
        begun.display(),
        go.display()
    );
    let words = [
        "exec", "--on", on, "-j0", "-r2", "-c", &wait, ":::", "a", "b", "c",
    ];
    let child = place.command(&words).spawn().unwrap();
    wait_for("two calls run", || place.lines("begun").len() == 2);
    child
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

/// A real sshd on the loopback interface, for this user alone.
struct Sshd {
    place: Place,
    child: Child,
}

impl Sshd {
    fn start() -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let Some(sshd) = sshd else {
            assert!(std::env::var_os("CI").is_none(), "CI has no sshd");
            println!("skipped: there is no sshd here");
            return None;
        };
        if !(has("ssh", "-V") && has("ssh-keygen", "-?")) {
            return None;
        }
        let mut place = Place::new()?;
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(place.path(key))
                .status();
            assert!(made.unwrap().success());
        }
        let port = free_port();
        let directory = place.directory.path().display().to_string();
        fs::write(
            place.path("sshd_config"),
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n\
                 AuthorizedKeysFile {directory}/user.pub\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nSetEnv XDG_CACHE_HOME={directory}/cache {MARK}={directory}\n"
            ),
        )
        .unwrap();
        fs::write(
            place.path("config"),
            format!(
                "Host box*\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {directory}/user\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile {directory}/known_hosts\n  StrictHostKeyChecking no\n"
            ),
        )
        .unwrap();
        place.ssh = place.path("real");
        script(
            &place.ssh,
            &format!("#!/bin/sh\nexec ssh -F {directory}/config \"$@\"\n"),
        );
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(place.path("sshd_config"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Sshd { place, child };
        wait_for("sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn calls_run_over_a_real_ssh_and_nothing_is_left() {
    let Some(sshd) = Sshd::start() else { return };
    let place = &sshd.place;
    let run = || {
        place.run(&[
            "exec",
            "--on",
            "box2:2",
            "-j0",
            "-c",
            "echo $1 $SSH_CONNECTION",
            ":::",
            "a",
            "b",
            "c",
        ])
    };
    for _ in 0..2 {
        let ran = run();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines.len(), 3);
        for (line, input) in lines.iter().zip(["a", "b", "c"]) {
            assert!(line.starts_with(&format!("{input} 127.0.0.1 ")), "{ran:?}");
        }
        place.is_clean();
    }
    let mut child = waiting_calls(place, "box2:2");
    child.kill().unwrap();
    child.wait().unwrap();
    place.is_clean();
    let locks = place.path("cache/coordinator/agents");
    wait_for("the lock is gone", || {
        fs::read_dir(&locks).is_ok_and(|mut locks| locks.next().is_none())
    });
}

#[test]
fn a_real_ssh_says_why_it_can_not_connect() {
    let Some(sshd) = Sshd::start() else { return };
    let port = free_port();
    let config = sshd.place.path("config");
    let text = fs::read_to_string(&config).unwrap();
    let there = format!("Host box9\n  Port {port}\n{text}");
    fs::write(config, there).unwrap();
    let words = ["exec", "--on", "box9", "-j0", "-c", "echo $1", ":::", "a"];
    let ran = sshd.place.run(&words);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    ran.says("Connection refused");
    sshd.place.is_clean();
}
