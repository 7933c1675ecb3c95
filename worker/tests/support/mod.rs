//! Plays the coordinator for a real worker process. Nothing here waits longer than [`LIMIT`].
#![allow(dead_code, reason = "not every test uses all of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use protocol::Link;
use protocol::frame::Caps;
use protocol::handshake::{self, CONNECT_ARGUMENT, TOKEN_VARIABLE, Token};
use protocol::link::{self, Socket};
use protocol::message::{Batch, CallHeader, Encoding, Hello, Reply, ToWorker, Verdict, Welcome};
use tempfile::TempDir;

/// Longer than anything takes; a test that waits for it has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// The slot every worker here is told it fills.
pub(crate) const SLOT: u32 = 3;

/// Set for a test program that is to be `worker::main()` instead.
const AS_WORKER: &str = "TEST_AS_WORKER";

/// The `worker` binary.
pub(crate) fn worker() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_worker"))
}

/// The test program itself, as a worker.
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A command that runs a worker, this program or another, with nothing of our surroundings.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command
        .env(AS_WORKER, "1")
        .env_remove(TOKEN_VARIABLE)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The `main` of a test program that is also the worker it tests: cargo's usual harness leaves no
/// room for that.
pub(crate) fn main(tests: &[(&str, fn())]) -> ExitCode {
    // A worker, by its arguments.
    worker::init();
    if std::env::var_os(AS_WORKER).is_some() {
        return worker::main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listing = arguments.iter().any(|argument| argument == "--list");
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    for (name, test) in tests {
        if listing {
            println!("{name}: test");
        } else if filters.is_empty() || filters.iter().any(|filter| name.contains(*filter)) {
            println!("test {name} ...");
            test();
        }
    }
    ExitCode::SUCCESS
}

/// Waits until a process has ended, and kills it if it does not.
pub(crate) fn ended(child: Child) -> Output {
    let pid = i32::try_from(child.id()).unwrap();
    let output = within_limit(move || child.wait_with_output().unwrap());
    output.unwrap_or_else(|| {
        // Not waited for yet, so the number is still its own.
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        panic!("the worker did not end");
    })
}

fn within_limit<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    result.recv_timeout(LIMIT).ok()
}

/// What a worker said that could not go on: one line on stderr, and exit code 2.
pub(crate) fn complaint(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
        .strip_prefix("worker: ")
        .unwrap_or_else(|| panic!("who says this? {stderr}"))
        .trim_end()
        .to_owned()
}

/// Where a worker and this test meet.
pub(crate) struct Place {
    listener: interprocess::local_socket::Listener,
    directory: TempDir,
    pub(crate) token: Token,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = link::listen(directory.path().join("link").as_os_str()).unwrap();
        Place {
            listener,
            directory,
            token: Token::from_random([7; 16]),
        }
    }

    pub(crate) fn name(&self) -> PathBuf {
        self.directory.path().join("link")
    }

    /// The command of a worker that comes here.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = command(program);
        command
            .env_remove(AS_WORKER)
            .env(TOKEN_VARIABLE, self.token.reveal())
            .arg(CONNECT_ARGUMENT)
            .arg(self.name());
        command
    }

    /// Accepts a worker, and gives the place up, which removes the socket.
    pub(crate) fn accept(self) -> (Link<Socket>, TempDir) {
        use interprocess::local_socket::traits::{Listener as _, Stream as _};
        let listener = self.listener;
        let stream = within_limit(move || listener.accept().unwrap()).expect("no worker came");
        stream.set_recv_timeout(Some(LIMIT)).unwrap();
        (Link::new(stream), self.directory)
    }
}

/// A worker that has been let in.
pub(crate) struct Worker {
    pub(crate) link: Link<Socket>,
    pub(crate) hello: Hello,
    pub(crate) child: Child,
    _directory: TempDir,
}

impl Worker {
    pub(crate) fn start(program: impl AsRef<Path>) -> Self {
        Self::start_with(program, |command| command)
    }

    pub(crate) fn start_with(
        program: impl AsRef<Path>,
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let place = Place::new();
        let child = change(&mut place.command(program)).spawn().unwrap();
        let token = place.token.clone();
        let (mut link, directory) = place.accept();
        let hello = handshake::receive(&mut link, &token).unwrap();
        handshake::admit(&mut link, Welcome { slot: SLOT }).unwrap();
        Worker {
            link,
            hello,
            child,
            _directory: directory,
        }
    }

    /// Sends a batch of calls whose indices count from `first`.
    pub(crate) fn send(&mut self, task: &str, encoding: Encoding, first: u64, inputs: &[&[u8]]) {
        let call = |(index, input): (u64, &&[u8])| CallHeader {
            index,
            attempt: 1,
            len: u32::try_from(input.len()).unwrap(),
        };
        let batch = Batch {
            task: task.to_owned(),
            types: None,
            encoding,
            calls: (first..).zip(inputs).map(call).collect(),
        };
        self.link.send(&ToWorker::Batch(batch), inputs).unwrap();
    }

    pub(crate) fn reply(&mut self) -> (Reply, Vec<u8>) {
        let (reply, payload) = self.link.receive::<Reply>(Caps::FULL).unwrap();
        (reply, payload.to_vec())
    }

    /// The verdict on one call in the text encoding, and its output.
    pub(crate) fn call(&mut self, task: &str, input: &str) -> (Verdict, String) {
        self.send(task, Encoding::Text, 0, &[input.as_bytes()]);
        let (reply, output) = self.reply();
        (reply.verdict, String::from_utf8(output).unwrap())
    }

    /// Closes the link and waits for the worker to leave.
    pub(crate) fn hang_up(self) -> Output {
        drop(self.link);
        ended(self.child)
    }
}
