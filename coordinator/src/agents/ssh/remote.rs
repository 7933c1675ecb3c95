//! One ssh: its process, what is said on its pipe before an agent speaks there, and the copying afterwards.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::Bulk;
use worker::private::spawn::{Image, Spawn, above_stdio};

use super::hello::{self, Hello, Said};
use super::script;
use crate::agents::bulk;
use crate::error::Death;
use crate::os::{self, Beginning, GroupSignal, WorkerProcess};

/// The variable that names another ssh.
const VARIABLE: &str = "COORDINATOR_SSH";
/// How long the other machine may take to answer, or to take a piece of the program.
const ANSWER: Duration = Duration::from_secs(60);
/// How much may be printed there before something is said, in bytes.
const MOST_NOISE: usize = 1 << 20;
/// The longest line that can say something, and that is shown, in bytes.
const LINE: usize = 4096;
/// How often something is said until an agent is there: that the program is not, that it waits, and that it is.
const STEPS: usize = 3;
/// How many lines of stderr are kept to say why ssh has ended.
const KEPT: usize = 8;
/// How long the last words on stderr may take once ssh has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How many bytes travel at a time.
const PIECE: usize = 64 << 10;
/// How often ssh asks whether the other machine is there, in seconds.
const ALIVE: u64 = 5;

/// ssh is a child of this shell, which waits for it and holds the lifeline, its stdin. ssh itself would close any descriptor but
/// its standard streams. What follows ssh in the script keeps the shell from becoming ssh. Stdout is a socket, and ssh's stdin.
const SHELL: &str = "\"$@\" <&1; exit $?";

/// The program that runs on other machines.
#[derive(Debug)]
pub(super) struct Program {
    file: File,
    len: u64,
    /// What ssh is told to run.
    command: String,
}

impl Program {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let bulk: Bulk = bulk::name_of(&file)?;
        Ok(Program {
            file,
            len: bulk.len,
            command: script::command(&bulk),
        })
    }

    fn send(&self, to: &mut impl Write) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.len {
            // Both fit: a piece is short.
            let wanted = (self.len - at).min(PIECE as u64) as usize;
            self.file.read_exact_at(&mut piece[..wanted], at)?;
            to.write_all(&piece[..wanted])?;
            at += wanted as u64;
        }
        Ok(())
    }
}

/// An ssh. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Remote {
    process: WorkerProcess,
    /// Its stdin and stdout. Unlike a pipe, a socket that nobody reads does not cost a program its life that does not ignore
    /// SIGPIPE.
    socket: UnixStream,
    stderr: Arc<Stderr>,
    has_said_all: Mutex<Receiver<()>>,
    /// The connection to the broker, once there is one.
    broker: OnceLock<TcpStream>,
    /// How many bytes the agent was sent.
    carried: AtomicU64,
}

/// Where lines of the other machine's stderr go once its agent is there. Those before belong to the reason if it never is.
type Tell = Box<dyn Fn(String) + Send>;

#[derive(Debug, Default)]
struct Stderr(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    last: VecDeque<String>,
    is_open: bool,
}

impl Stderr {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, from: PipeReader, tell: &Tell) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(1..) = from.by_ref().take(LINE as u64).read_until(b'\n', &mut line) {
            let said = String::from_utf8_lossy(&line).trim().to_owned();
            line.clear();
            if said.is_empty() {
                continue;
            }
            let mut lines = self.lines();
            if lines.is_open {
                tell(said.clone());
            }
            if lines.last.len() >= KEPT {
                lines.last.pop_front();
            }
            lines.last.push_back(said);
        }
    }
}

impl Remote {
    /// Starts ssh. It gives up when it has heard nothing for `patience`.
    pub(super) fn start(
        destination: &str,
        program: &Program,
        patience: Duration,
        tell: Tell,
    ) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let socket = UnixStream::from(above_stdio(socket)?);
        let (stderr, writer) = os::pipe()?;
        let image = Image::at(Path::new("/bin/sh"))?;
        let words = words(destination, &program.command, patience);
        let words = words.iter().map(|word| word.as_bytes());
        let spawn = Spawn::new(&image, words, std::env::vars_os())?;
        let process = WorkerProcess::start(
            &spawn,
            &Beginning {
                directory: None,
                inherits: None,
                stdout: File::from(above_stdio(theirs)?),
                stderr: File::from(OwnedFd::from(writer)),
            },
        )?;
        let said = Arc::new(Stderr::default());
        let hears = Arc::clone(&said);
        let (done, has_said_all) = channel();
        let thread = thread::Builder::new().name("ssh stderr".to_owned());
        thread.spawn(move || {
            hears.hear(stderr, &tell);
            drop(done);
        })?;
        socket.set_write_timeout(Some(ANSWER))?;
        Ok(Remote {
            process,
            socket,
            stderr: said,
            has_said_all: Mutex::new(has_said_all),
            broker: OnceLock::new(),
            carried: AtomicU64::new(0),
        })
    }

    /// Has the program run there, and tells it what it has to know. Returns what it has said already to the broker, or why it
    /// can't take part.
    pub(super) fn begin(&self, program: &Program, hello: &Hello) -> Result<Vec<u8>, String> {
        let mut heard = Heard::default();
        for _ in 0..STEPS {
            let said = match heard.next(&self.socket, self.process.as_fd()) {
                Ok(said) => said,
                Err(Silence::Ended) => return Err(self.why_ended()),
                Err(Silence::Long(why)) => return Err(why),
            };
            let sent = match said {
                Said::Lacks => program.send(&mut &self.socket),
                Said::Waits => hello.send(&mut &self.socket),
                Said::Foreign(machine) => return Err(foreign(&machine)),
                Said::Open => {
                    self.stderr.lines().is_open = true;
                    return Ok(heard.bytes);
                }
            };
            match sent {
                Err(error) if is_late(&error) => return Err(late("took what it asked for")),
                // It has ended: why, it may have said on stderr.
                Err(_) => return Err(self.why_ended()),
                Ok(()) => {}
            }
        }
        Err("what runs there says the same again and again".to_owned())
    }

    /// Joins the agent and the broker, until either ends. `first` is what the agent has said already.
    pub(super) fn join(&self, broker: TcpStream, first: &[u8]) -> io::Result<()> {
        broker.set_nodelay(true)?;
        self.socket.set_write_timeout(None)?;
        let broker = self.broker.get_or_init(|| broker);
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("ssh stdin".to_owned());
            thread.spawn_scoped(scope, || {
                copy(broker, self);
                // The agent finds its stdin at an end, and ends. It may be gone already.
                let _ = self.socket.shutdown(Shutdown::Write);
            })?;
            let mut to = broker;
            if to.write_all(first).is_ok() {
                copy(self, broker);
            }
            // Ends the other thread, whatever it waits for. Either may be closed already.
            let _ = broker.shutdown(Shutdown::Both);
            let _ = self.socket.shutdown(Shutdown::Both);
            Ok(())
        })
    }

    /// How many bytes the agent was sent.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Ends it: in its own way if its agent is there, which then has some time, and at once if not.
    pub(super) fn hang_up(&self) {
        match self.broker.get() {
            // The broker may have closed it already.
            Some(broker) => _ = broker.shutdown(Shutdown::Both),
            None => self.kill(),
        }
    }

    /// Has an agent end that nobody speaks to, and waits for that.
    pub(super) fn part(&self, limit: Duration) {
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.process.wait(Some(limit));
    }

    pub(super) fn kill(&self) {
        self.process.signal(GroupSignal::Kill);
    }

    /// Waits until it has ended. Says whether its agent has left without a fault.
    pub(super) fn has_left(&self, limit: Duration) -> bool {
        self.process.wait(Some(limit)) && self.process.reap() == Death::Exit(0)
    }

    /// Why it has ended, in its own words.
    pub(super) fn why_ended(&self) -> String {
        if !self.process.wait(Some(ANSWER)) {
            return "ssh has closed its stdout, and goes on".to_owned();
        }
        let death = self.process.reap();
        let done = self.has_said_all.lock();
        // It never says anything: it hangs up when all has been read. Something that ssh has started may keep stderr open.
        let _ = done
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(LAST_WORDS);
        let lines = self.stderr.lines();
        match (lines.last.back(), death) {
            (Some(line), _) => line
                .strip_prefix("coordinator: ")
                .unwrap_or(line)
                .to_owned(),
            (None, death) => format!("ssh has ended without a word: {death}"),
        }
    }
}

impl Read for &Remote {
    /// Reads what the agent says, until ssh has ended. Something that ssh has started may still hold its stdout then.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = os::wait_readable(&[self.socket.as_fd(), self.process.as_fd()], None);
        match ready.first() {
            Some(true) => (&self.socket).read(buffer),
            _ => Ok(0),
        }
    }
}

impl Write for &Remote {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&self.socket).write(bytes)?;
        self.carried.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The shell's words, and ssh's among them.
fn words(destination: &str, command: &str, patience: Duration) -> Vec<OsString> {
    let ssh = std::env::var_os(VARIABLE).filter(|ssh| !ssh.is_empty());
    let asks = (patience.as_secs() / ALIVE).max(3);
    let options = [
        // A question could not be answered: stdin is the agent's.
        "BatchMode=yes".to_owned(),
        "ConnectTimeout=20".to_owned(),
        "LogLevel=ERROR".to_owned(),
        format!("ServerAliveInterval={ALIVE}"),
        format!("ServerAliveCountMax={asks}"),
        // A master that stays would outlive the run.
        "ControlMaster=no".to_owned(),
        // What a person has set for a session of their own: it may fail, or run something else.
        "ClearAllForwardings=yes".to_owned(),
        "ForwardAgent=no".to_owned(),
        "ForwardX11=no".to_owned(),
        "RemoteCommand=none".to_owned(),
    ];
    let options = options
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option]);
    let shell = ["sh", "-c", SHELL, "sh"].into_iter().map(OsString::from);
    shell
        .chain([ssh.unwrap_or_else(|| "ssh".into()), "-T".into()])
        .chain(options.map(OsString::from))
        .chain([destination.into(), command.into()])
        .collect()
}

fn foreign(machine: &str) -> String {
    format!(
        "it is {machine}, and this program is for {}: it could only run a worker there that is a script, with coordinator \
         {} installed in its PATH",
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION")
    )
}

fn late(what: &str) -> String {
    format!("it has not {what} within {} s", ANSWER.as_secs())
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Why nothing more is said.
enum Silence {
    Ended,
    Long(String),
}

/// What has been read of the other machine, and says nothing yet.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// How much was noise.
    noise: usize,
}

impl Heard {
    /// The next thing that is said. Skips what is noise. `life` is readable once ssh has ended.
    fn next(&mut self, from: &UnixStream, life: BorrowedFd<'_>) -> Result<Said, Silence> {
        let until = Instant::now() + ANSWER;
        loop {
            if let Some(said) = self.said() {
                return Ok(said);
            }
            if self.noise >= MOST_NOISE {
                return Err(Silence::Long(format!(
                    "its shell has printed {} KiB, and has run nothing yet: it may print nothing endless when a \
                     command is run",
                    MOST_NOISE >> 10
                )));
            }
            self.read(from, life, until)?;
        }
    }

    fn read(
        &mut self,
        mut from: &UnixStream,
        life: BorrowedFd<'_>,
        until: Instant,
    ) -> Result<(), Silence> {
        let left = until.saturating_duration_since(Instant::now());
        match os::wait_readable(&[from.as_fd(), life], Some(left))[..] {
            [true, _] => {}
            [_, true] => return Err(Silence::Ended),
            _ => return Err(Silence::Long(late("answered"))),
        }
        let mut piece = [0; LINE];
        match from.read(&mut piece) {
            Ok(0) => Err(Silence::Ended),
            Ok(len) => {
                self.bytes.extend(&piece[..len]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Silence::Ended),
        }
    }

    fn said(&mut self) -> Option<Said> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            if let Some(said) = hello::read_line(&String::from_utf8_lossy(&line)) {
                return Some(said);
            }
            self.noise += line.len();
        }
        // A line that is longer says nothing.
        if self.bytes.len() > LINE {
            self.noise += self.bytes.len();
            self.bytes.clear();
        }
        None
    }
}

/// Copies until either end is closed.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return,
            Ok(len) => match to.write_all(&piece[..len]) {
                Ok(()) => {}
                Err(_) => return,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    fn said_of(bytes: &'static [u8]) -> (Vec<Said>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = thread::spawn(move || {
            // The reader may have heard enough.
            let _ = theirs.write_all(bytes);
        });
        let mut heard = Heard::default();
        let mut all = Vec::new();
        let (life, _lives) = os::pipe().unwrap();
        while let Ok(said) = heard.next(&ours, life.as_fd()) {
            let is_last = said == Said::Open;
            all.push(said);
            if is_last {
                break;
            }
        }
        drop(ours);
        writer.join().unwrap();
        (all, heard.bytes)
    }

    #[test]
    fn noise_is_skipped_and_what_follows_is_kept() {
        let (said, rest) = said_of(
            b"Welcome!\nprompt> \ncoordinator-over-ssh: waits\n\ncoordinator-over-ssh: open\nPING\r\n",
        );
        assert_eq!(said, [Said::Waits, Said::Open]);
        assert_eq!(rest, b"PING\r\n");
    }

    #[test]
    fn endless_noise_is_not_listened_to_for_ever() {
        let line: &'static [u8] = vec![b'x'; 3 << 20].leak();
        let lines: &'static [u8] = b"yes\n".repeat(1 << 20).leak();
        for noise in [line, lines] {
            let (said, rest) = said_of(noise);
            assert!(said.is_empty());
            assert!(rest.len() <= 2 * LINE);
        }
    }
}
