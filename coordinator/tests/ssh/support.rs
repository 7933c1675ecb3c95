//! The machines of a test, and what runs there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_coordinator");
/// How long a thing may take that comes soon, on a machine that has much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The variable by which all processes of a test are known.
pub(crate) const MARK: &str = "COORDINATOR_TEST_PLACE";

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
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) ssh: PathBuf,
}

/// Whether what a test needs is here. In CI it must be.
pub(crate) fn has(program: &str, version: &str) -> bool {
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

pub(crate) fn script(path: &Path, text: &str) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o755))
        .unwrap();
}

impl Place {
    /// `None` where there is no broker.
    pub(crate) fn new() -> Option<Self> {
        has("nats-server", "-v").then(|| {
            let directory = TempDir::new().unwrap();
            let ssh = directory.path().join("ssh");
            script(&ssh, STAND_IN);
            Place { directory, ssh }
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
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

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().unwrap())
    }

    /// The processes of this test, but for this one.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
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
    pub(crate) fn processes_with(&self, word: &str) -> BTreeSet<u32> {
        let has = |pid: &u32| words_of(*pid).iter().any(|known| known == word);
        self.processes().into_iter().filter(has).collect()
    }

    /// Nothing of a run is left: no process, and on no machine a lock.
    pub(crate) fn is_clean(&self) {
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
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
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

pub(crate) fn words_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn kill(pid: u32) {
    let killed = Command::new("kill").arg("-9").arg(pid.to_string()).status();
    assert!(killed.unwrap().success());
}

/// What a run has printed, and how it has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn says(&self, what: &str) {
        assert!(self.stderr.contains(what), "{self:?}");
    }
}

/// Runs calls that wait until the file `go` is there, and returns when two of them have begun.
pub(crate) fn waiting_calls(place: &Place, on: &str) -> Child {
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
