//! Plays the coordinator for a real worker process. Nothing here waits longer than [`LIMIT`].
#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs::File;
use std::io::{Cursor, IoSlice};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use protocol::Link;
use protocol::black_box::{self, BlackBox};
use protocol::descriptors;
use protocol::frame::Caps;
use protocol::handshake::{self, CONNECT_ARGUMENT, TOKEN_VARIABLE, Token};
use protocol::lane::Side;
use protocol::link::{self, Socket};
use protocol::message::{Batch, Encoding, Hello, Reply, ToWorker, Verdict, Welcome};
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

pub(crate) fn within_limit<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
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

    /// A black box, and its file.
    pub(crate) fn black_box(&self) -> (BlackBox, File) {
        let path = self.directory.path().join("box");
        let options = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = options.unwrap();
        file.set_len(black_box::SIZE as u64).unwrap();
        (BlackBox::map(&file).unwrap(), file)
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

/// Lets a worker in, whose black box is this file; or nothing comes with the welcome.
pub(crate) fn admit(link: &Link<Socket>, black_box: Option<&File>) {
    let welcome = ToWorker::Welcome(Welcome {
        slot: SLOT,
        board: false,
    });
    let mut frame = Link::new(Cursor::new(Vec::new()));
    frame.send(&welcome, &[]).unwrap();
    let bytes = frame.stream().get_ref();
    let files: Vec<_> = black_box.iter().map(|file| file.as_fd()).collect();
    let sent = descriptors::send(link.stream(), &[IoSlice::new(bytes)], &files).unwrap();
    assert_eq!(sent, bytes.len());
}

/// One call, as a worker has answered for it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) verdict: Verdict,
    pub(crate) output: Vec<u8>,
    pub(crate) nanos: u64,
    /// How long stdout and stderr are, if that was said.
    pub(crate) printed: Option<(u64, u64)>,
}

/// What a worker has said of a batch.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) calls: Vec<Answered>,
    /// How many calls each of its messages was about.
    pub(crate) frames: Vec<usize>,
    /// It was cut short.
    pub(crate) stopped: bool,
}

impl Answers {
    /// What has been said of how much is printed: by which call, and how much.
    pub(crate) fn printed(&self) -> Vec<(usize, (u64, u64))> {
        let calls = self.calls.iter().enumerate();
        calls
            .filter_map(|(at, call)| Some((at, call.printed?)))
            .collect()
    }

    pub(crate) fn outputs(&self) -> Vec<&[u8]> {
        self.calls.iter().map(|call| &*call.output).collect()
    }
}

/// A worker that has been let in.
pub(crate) struct Worker {
    pub(crate) link: Link<Socket>,
    pub(crate) hello: Hello,
    pub(crate) child: Child,
    pub(crate) black_box: Arc<BlackBox>,
    /// The number of the last batch.
    pub(crate) serial: u32,
    /// How many calls it had.
    sent: u32,
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
        let (black_box, file) = place.black_box();
        let child = change(&mut place.command(program)).spawn().unwrap();
        let token = place.token.clone();
        let (mut link, directory) = place.accept();
        let hello = handshake::receive(&mut link, &token).unwrap();
        admit(&link, Some(&file));
        handshake::await_ready(&mut link).unwrap();
        let black_box = Arc::new(black_box);
        link.share(&black_box, Side::Coordinator);
        Worker {
            link,
            hello,
            child,
            black_box,
            // Far from 0, so that a worker that forgets it is found out, also when it wraps.
            serial: u32::MAX - 3,
            sent: 0,
            _directory: directory,
        }
    }

    /// Sends a batch of calls whose indices count from `first`.
    pub(crate) fn send(&mut self, task: &str, encoding: Encoding, first: u64, inputs: &[&[u8]]) {
        let batch = Batch {
            serial: self.serial,
            task: task.to_owned(),
            types: None,
            encoding,
            first,
            attempt: 1,
            lens: inputs.iter().map(|input| input.len() as u32).collect(),
        };
        self.send_batch(batch, inputs);
    }

    /// Sends a batch, under the next number, whatever it says.
    pub(crate) fn send_batch(&mut self, mut batch: Batch, payload: &[&[u8]]) {
        self.serial = self.serial.wrapping_add(1);
        batch.serial = self.serial;
        self.sent = u32::try_from(batch.lens.count()).unwrap();
        self.black_box.open(self.sent);
        self.link.send(&ToWorker::Batch(batch), payload).unwrap();
    }

    /// All that the worker says of the last batch. It must say it of every call, in order, once.
    pub(crate) fn answers(&mut self) -> Answers {
        let mut answers = Answers {
            calls: Vec::new(),
            frames: Vec::new(),
            stopped: false,
        };
        while answers.calls.len() < self.sent as usize && !answers.stopped {
            self.hear(&mut answers);
        }
        assert!(!self.link.has_unread(), "it speaks out of turn");
        answers
    }

    fn hear(&mut self, answers: &mut Answers) {
        let (reply, payload) = self.link.receive::<Reply>(Caps::FULL).unwrap();
        let (serial, at) = match &reply {
            Reply::Calls(calls) => (calls.serial, calls.at),
            Reply::Call(call) => (call.serial, call.at),
            Reply::Stopped(stopped) => (stopped.serial, stopped.at),
        };
        assert_eq!((serial, at as usize), (self.serial, answers.calls.len()));
        match reply {
            Reply::Calls(calls) => {
                assert!(calls.lens.count() > 0, "of no calls");
                assert_eq!(calls.lens.count(), calls.nanos.count());
                answers.frames.push(calls.lens.count() as usize);
                let mut rest = payload;
                let mut ends = calls.ends.into_iter().peekable();
                for (place, (len, nanos)) in (0..).zip(calls.lens.iter().zip(calls.nanos.iter())) {
                    let (output, behind) = rest.split_at(len as usize);
                    rest = behind;
                    let end = ends.next_if(|(of, _)| *of == place).map(|(_, end)| end);
                    let printed = end.as_ref().map(|end| (end.stdout, end.stderr));
                    let verdict = end.map_or(Verdict::Value, |end| end.verdict);
                    let has_output = verdict == Verdict::Value;
                    assert!(has_output || output.is_empty(), "an output of a failure");
                    answers.calls.push(Answered {
                        verdict,
                        output: output.to_vec(),
                        nanos: nanos.into(),
                        printed,
                    });
                }
                assert_eq!(ends.next(), None, "ends of no call, or out of order");
                assert!(rest.is_empty(), "{} bytes of no call", rest.len());
            }
            Reply::Call(call) => {
                let has_output = call.end.verdict == Verdict::Value;
                assert!(has_output || payload.is_empty(), "an output of a failure");
                answers.frames.push(1);
                answers.calls.push(Answered {
                    verdict: call.end.verdict,
                    output: payload.to_vec(),
                    nanos: call.nanos,
                    printed: Some((call.end.stdout, call.end.stderr)),
                });
            }
            Reply::Stopped(_) => answers.stopped = true,
        }
    }

    /// The answer to a batch of one call.
    pub(crate) fn answer(&mut self) -> Answered {
        assert_eq!(self.sent, 1);
        let mut answers = self.answers();
        assert!(!answers.stopped);
        answers.calls.pop().unwrap()
    }

    /// The verdict on one call in the text encoding, and its output.
    pub(crate) fn call(&mut self, task: &str, input: &str) -> (Verdict, String) {
        self.send(task, Encoding::Text, 0, &[input.as_bytes()]);
        let answer = self.answer();
        (answer.verdict, String::from_utf8(answer.output).unwrap())
    }

    /// Closes the link and waits for the worker to leave.
    pub(crate) fn hang_up(self) -> Output {
        drop(self.link);
        ended(self.child)
    }
}
