//! The programs of these tests: brokers, agents and runs. Each ends with its test.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long something may take that comes soon.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Waits until something is there.
pub(crate) fn wait_until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {SOON:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A process whose output is read as it comes.
pub(crate) struct Program {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// What a process has written so far, and who reads it.
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
            }
        });
        Output {
            lines,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.text()
    }
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Option<Self> {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        Some(Program {
            stdout: Output::of(child.stdout.take().unwrap()),
            stderr: Output::of(child.stderr.take().unwrap()),
            child,
        })
    }

    /// Waits until it has written such a line to stderr.
    pub(crate) fn says(&self, words: &str) {
        wait_until(words, || {
            let lines = self.stderr.lines.lock().unwrap();
            lines.iter().any(|line| line.contains(words)).then_some(())
        });
    }

    /// Waits until it has ended.
    pub(crate) fn end(mut self) -> Ended {
        let status = wait_until("the end", || self.child.try_wait().unwrap());
        Ended {
            code: status.code(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- a program said:\n{}", self.stderr.text());
        }
    }
}

/// A broker, and a directory for those who use it.
pub(crate) struct Broker {
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
    _program: Program,
}

impl Broker {
    /// A broker with the configuration and the keys that `--new-keys` makes with these options. It listens on all addresses of
    /// this machine, as that says. `None`, with a message, where there is no `nats-server`.
    pub(crate) fn with_keys(options: &[&str]) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let keys = directory.path().join("keys");
        let mut command = coordinator(directory.path());
        command
            .args(["agents", "--new-keys"])
            .arg(&keys)
            .args(options);
        let made = Program::start(command).unwrap().end();
        assert_eq!(made.code, Some(0), "{made:?}");
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(keys.join("nats.conf"));
        Self::start(command, directory)
    }

    /// A broker with these options and no certificate.
    pub(crate) fn plain(options: &[&str]) -> Option<Self> {
        let mut command = Command::new("nats-server");
        command.args(options);
        Self::start(command, TempDir::new().unwrap())
    }

    fn start(mut command: Command, directory: TempDir) -> Option<Self> {
        command
            .args(["-p", "-1", "--ports_file_dir"])
            .arg(directory.path());
        let Some(program) = Program::start(command) else {
            assert!(std::env::var_os("CI").is_none(), "CI has no nats-server");
            println!("skipped: there is no nats-server here");
            return None;
        };
        let file = format!("nats-server_{}.ports", program.child.id());
        let file = directory.path().join(file);
        let port = wait_until("the broker's port", || {
            let text = fs::read_to_string(&file).ok()?;
            let said: serde_json::Value = serde_json::from_str(&text).ok()?;
            let url = said["nats"][0].as_str()?.to_owned();
            url.rsplit(':').next()?.parse().ok()
        });
        Some(Broker {
            port,
            directory,
            _program: program,
        })
    }

    pub(crate) fn key(&self, user: &str) -> PathBuf {
        self.directory
            .path()
            .join("keys")
            .join(format!("{user}.key"))
    }

    pub(crate) fn url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    /// `coordinator` with these words, as this user of the broker.
    pub(crate) fn run_as(&self, user: &str, words: &[&str]) -> Program {
        self.run(&self.url(), Some(&self.key(user)), words)
    }

    /// The same at any URL. The options come behind the command.
    pub(crate) fn run(&self, url: &str, key: Option<&Path>, words: &[&str]) -> Program {
        let mut command = coordinator(self.directory.path());
        command.args(&words[..1]).args(["--nats", url]);
        if let Some(key) = key {
            command.arg("--key").arg(key);
        }
        Program::start(command_with(command, &words[1..])).unwrap()
    }

    /// An agent that waits for runs.
    pub(crate) fn agent(&self, user: &str, name: &str) -> Program {
        let agent = self.run_as(user, &["agent", "-j2", "--name", name]);
        agent.says("waits for runs");
        agent
    }
}

fn command_with(mut command: Command, words: &[&str]) -> Command {
    command.args(words);
    command
}

/// `coordinator`, whose agents leave nothing outside of this directory.
fn coordinator(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.env("XDG_CACHE_HOME", directory.join("cache"));
    command.env("RUST_LOG", "warn,coordinator=info");
    command
        .env_remove("COORDINATOR_NATS")
        .env_remove("COORDINATOR_KEY");
    command
}
