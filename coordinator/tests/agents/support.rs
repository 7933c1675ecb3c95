//! A broker, agents, and a network between them that can be cut; and a ledger of who ran what.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::Agents;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// How long a thing may take that comes soon.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How long a machine may be out of sight, and how long calls have to end.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// Waits until something is true.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "{what} did not come true");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A `nats-server` on the loopback interface, which can be killed and started again.
pub(crate) struct Broker {
    child: Mutex<Option<Child>>,
    port: u16,
    directory: TempDir,
}

impl Broker {
    /// `None`, with a message, where there is no `nats-server`.
    pub(crate) fn start() -> Option<Arc<Self>> {
        let directory = TempDir::new().unwrap();
        let mut broker = Broker {
            child: Mutex::new(None),
            port: 0,
            directory,
        };
        let Some(child) = broker.spawn("-1") else {
            assert!(std::env::var_os("CI").is_none(), "CI has no nats-server");
            println!("skipped: there is no nats-server here");
            return None;
        };
        broker.port = broker.port_of(&child);
        *broker.child.lock().unwrap() = Some(child);
        Some(Arc::new(broker))
    }

    fn spawn(&self, port: &str) -> Option<Child> {
        let path = self.directory.path().display().to_string();
        Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", port, "--user", "u", "--pass", "p"])
            .args(["--ports_file_dir", &path])
            .stderr(Stdio::null())
            .spawn()
            .ok()
    }

    fn port_of(&self, child: &Child) -> u16 {
        let file = format!("nats-server_{}.ports", child.id());
        let file = self.directory.path().join(file);
        let until = Instant::now() + SOON;
        loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let mut numbers = text
                .split(|byte: char| !byte.is_ascii_digit())
                .filter_map(|number| number.parse::<u16>().ok());
            if let Some(port) = numbers.find(|port| *port > 1024) {
                return port;
            }
            assert!(Instant::now() < until, "the broker says no port");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn start_again(&self) {
        let child = self.spawn(&self.port.to_string()).unwrap();
        self.port_of(&child);
        *self.child.lock().unwrap() = Some(child);
    }

    /// Where a coordinator finds it.
    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// The agents of this broker, for a coordinator.
    pub(crate) fn agents(&self) -> Agents {
        Agents::at(url(self.port))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn url(port: u16) -> String {
    format!("nats://u:p@127.0.0.1:{port}")
}

/// What becomes of what travels between an agent and its broker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Nothing arrives, and nothing is lost: it comes when the weather is fair again.
    Held,
    /// Connections are gone, and no new ones come about.
    Cut,
}

/// The network between an agent and its broker.
pub(crate) struct Network {
    port: u16,
    weather: Arc<(Mutex<Weather>, Condvar)>,
    /// How many bytes the agent has sent.
    sent: Arc<AtomicU64>,
}

impl Network {
    fn to(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new((Mutex::new(Weather::Fair), Condvar::new()));
        let theirs = Arc::downgrade(&weather);
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(weather)) = (client, theirs.upgrade()) else {
                    return;
                };
                if *weather.0.lock().unwrap() == Weather::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", broker)) else {
                    continue;
                };
                let received = Arc::new(AtomicU64::new(0));
                for (from, to, count) in [(&client, &server, &count), (&server, &client, &received)]
                {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (weather, count) = (Arc::clone(&weather), Arc::clone(count));
                    thread::spawn(move || carry(from, to, &weather, &count));
                }
            }
        });
        Network {
            port,
            weather,
            sent,
        }
    }

    /// How many bytes the agent has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn set(&self, weather: Weather) {
        *self.weather.0.lock().unwrap() = weather;
        self.weather.1.notify_all();
    }

    pub(crate) fn hold(&self) {
        self.set(Weather::Held);
    }

    pub(crate) fn cut(&self) {
        self.set(Weather::Cut);
    }

    pub(crate) fn heal(&self) {
        self.set(Weather::Fair);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.cut();
        // Its listener looks once more, and finds that nobody wants it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    weather: &(Mutex<Weather>, Condvar),
    count: &AtomicU64,
) {
    from.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => break,
        };
        let mut now = weather.0.lock().unwrap();
        while *now == Weather::Held {
            now = weather.1.wait(now).unwrap();
        }
        if *now == Weather::Cut || to.write_all(&bytes[..read]).is_err() {
            break;
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// An agent's process, which can be killed and started again.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) network: Network,
    slots: usize,
    home: TempDir,
    child: Option<Child>,
}

impl Agent {
    pub(crate) fn start(broker: &Broker, name: &str, slots: usize) -> Self {
        let mut agent = Agent {
            name: name.to_owned(),
            network: Network::to(broker.port),
            slots,
            home: TempDir::new().unwrap(),
            child: None,
        };
        agent.start_again();
        agent
    }

    pub(crate) fn start_again(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_coordinator"))
            .args(["agent", "--nats", &url(self.network.port)])
            .args(["--name", &self.name, "-j", &self.slots.to_string()])
            .env("XDG_CACHE_HOME", self.home.path())
            .env("RUST_LOG", "coordinator=info")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// What it has written to stderr.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Whether no files of a run are left.
    pub(crate) fn keeps_no_files(&self) -> bool {
        let calls = self.home.path().join("coordinator/calls");
        fs::read_dir(calls).map_or(true, |entries| entries.count() == 0)
    }

    /// Whether it has begun to fetch a file that goes along with a call.
    pub(crate) fn is_fetching(&self) -> bool {
        let runs = fs::read_dir(self.home.path().join("coordinator/calls"));
        let files = runs.into_iter().flatten().flatten();
        let mut files = files.flat_map(|run| fs::read_dir(run.path()).into_iter().flatten());
        files.any(|file| {
            file.and_then(|file| file.metadata())
                .is_ok_and(|found| found.is_file() && found.len() > 0)
        })
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = self.child.as_ref().unwrap().id();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &pid.to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until it has ended, and says how.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        let until = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < until, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            println!("{} said:\n{}", self.name, self.said());
        }
    }
}

/// What calls write down when they begin and end.
pub(crate) struct Ledger(TempDir);

/// A call as its task gets it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) ledger: PathBuf,
    pub(crate) index: u64,
    pub(crate) millis: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("locks")).unwrap();
        Ledger(directory)
    }

    pub(crate) fn call(&self, index: u64, millis: u64) -> Call {
        Call {
            ledger: self.0.path().to_owned(),
            index,
            millis,
        }
    }

    /// A file for what a command writes down.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The process ids that commands have written into `pids`.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.file("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often a call was begun.
    pub(crate) fn begun(&self, index: u64) -> usize {
        let line = format!("begin {index}");
        self.lines().iter().filter(|known| **known == line).count()
    }

    /// How many calls have begun.
    pub(crate) fn all_begun(&self) -> usize {
        let lines = self.lines();
        lines
            .iter()
            .filter(|line| line.starts_with("begin"))
            .count()
    }

    /// No two runs of a call were under way at the same time.
    pub(crate) fn check(&self) {
        let twice = self
            .lines()
            .into_iter()
            .find(|line| line.starts_with("twice"));
        assert_eq!(twice, None, "a call ran at two places at once");
    }
}

/// A call that has begun. The lock is the kernel's: it is free as soon as the process that holds it is dead.
pub(crate) struct Begun {
    call: Call,
    _lock: File,
}

fn write(ledger: &Path, line: &str) {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .append(true)
        .open(ledger.join("lines"))
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Notes that a call has begun, and whether it runs somewhere else.
pub(crate) fn begin(call: &Call) -> Begun {
    let path = call.ledger.join("locks").join(call.index.to_string());
    let lock = File::create(path).unwrap();
    if lock.try_lock().is_err() {
        write(&call.ledger, &format!("twice {}", call.index));
    }
    write(&call.ledger, &format!("begin {}", call.index));
    Begun {
        call: call.clone(),
        _lock: lock,
    }
}

impl Begun {
    pub(crate) fn end(self) {
        write(&self.call.ledger, &format!("end {}", self.call.index));
    }
}
