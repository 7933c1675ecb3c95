//! Warm processes of any language: a line in, a line out. For `coordinator pipe`.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, Timespec};

use super::commands::{Bytes, Ending, not_started, process};
use crate::os::Group;
use crate::task;

/// How much of a line a message shows, in characters.
const SHOWN: usize = 60;
/// How much is read at once, at first.
const CHUNK: usize = 4 << 10;
/// How long a process has to end when its input has.
const LEAVE: Duration = Duration::from_millis(200);

/// The command that lines are given to, and the process, once there is one.
struct Pipe {
    argv: Vec<Bytes>,
    warm: Option<Warm>,
}

static PIPE: Mutex<Option<Pipe>> = Mutex::new(None);

fn pipe_of_worker() -> MutexGuard<'static, Option<Pipe>> {
    PIPE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the process that [`pipe`] gives lines to; as an initializer, for `coordinator pipe`.
#[task(register = false)]
pub fn pipe_open(argv: Vec<Bytes>) -> Result<(), String> {
    let warm = Warm::start(&argv)?;
    *pipe_of_worker() = Some(Pipe {
        argv,
        warm: Some(warm),
    });
    Ok(())
}

/// Gives a line to a warm process and returns the line that it answers with; for `coordinator pipe`.
///
/// A process that has died is started anew. One that ends, or answers with anything but one line, fails
/// the call.
#[task(register = false)]
pub fn pipe(line: Bytes) -> Result<Bytes, String> {
    let mut guard = pipe_of_worker();
    let pipe = guard
        .as_mut()
        .ok_or("there is no process: the worker was not told which to start")?;
    let line = line.0;
    if line.contains(&b'\n') {
        return Err(format!(
            "{} has a newline in it: what a pipe is given is one line",
            shown(&line)
        ));
    }
    let mut warm = match pipe.warm.take() {
        Some(warm) => warm,
        None => Warm::start(&pipe.argv)?,
    };
    if let Some(why) = warm.check()? {
        return match why {
            Idle::Said => Err(warm.give_up(|before| {
                format!(
                    "before it was given {}, the process wrote another line after its answer to {}: it has to \
                     answer each line with one line",
                    shown(&line),
                    shown(before)
                )
            })),
            Idle::Ended => {
                warm.group.kill().map_err(|error| error.to_string())?;
                let mut again = Warm::start(&pipe.argv)?;
                let answer = again.ask(line);
                pipe.warm = answer.is_ok().then_some(again);
                answer.map(Bytes)
            }
        };
    }
    let answer = warm.ask(line);
    // One that did not answer as it should is not asked again.
    pipe.warm = answer.is_ok().then_some(warm);
    answer.map(Bytes)
}

/// Lets the process end by itself, if it wants to: the worker is about to leave.
pub(crate) fn close() {
    let warm = pipe_of_worker().as_mut().and_then(|held| held.warm.take());
    let Some(Warm {
        mut group, stdin, ..
    }) = warm
    else {
        return;
    };
    drop(stdin);
    let began = Instant::now();
    while began.elapsed() < LEAVE && matches!(group.child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that waits for a line.
struct Warm {
    group: Group,
    /// Not blocking: a process may begin to answer before it has read all.
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// What it has written and was not asked for yet.
    read: Vec<u8>,
    /// What it was asked last.
    before: Vec<u8>,
}

/// What a process has done while it was not asked.
enum Idle {
    Said,
    Ended,
}

impl Warm {
    fn start(argv: &[Bytes]) -> Result<Self, String> {
        let mut process = process(argv)?;
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(call) = crate::current() {
            process.env("COORDINATOR_WORKER", call.worker.to_string());
        }
        let mut group = Group::start(&mut process).map_err(|error| not_started(argv, &error))?;
        let missing = || "the process has no pipes".to_owned();
        let stdin = group.child.stdin.take().ok_or_else(missing)?;
        let stdout = group.child.stdout.take().ok_or_else(missing)?;
        rustix::fs::fcntl_getfl(&stdin)
            .and_then(|flags| rustix::fs::fcntl_setfl(&stdin, flags | OFlags::NONBLOCK))
            .map_err(|error| error.to_string())?;
        let (read, before) = (Vec::new(), Vec::new());
        Ok(Warm {
            group,
            stdin,
            stdout,
            read,
            before,
        })
    }

    /// Looks at what it has done since it was asked last.
    fn check(&mut self) -> Result<Option<Idle>, String> {
        let mut polled = [PollFd::new(&self.stdout, PollFlags::IN)];
        let ready = rustix::event::poll(&mut polled, Some(&Timespec::default()));
        if !ready.is_ok_and(|ready| ready > 0) {
            return Ok(None);
        }
        match self.read_some().map_err(|error| error.to_string())? {
            0 => Ok(Some(Idle::Ended)),
            _ => Ok(Some(Idle::Said)),
        }
    }

    fn ask(&mut self, mut line: Vec<u8>) -> Result<Vec<u8>, String> {
        line.push(b'\n');
        let asked = self.exchange(&line);
        line.pop();
        self.before = line;
        match asked {
            Ok(Some(answer)) if self.read.is_empty() => Ok(answer),
            Ok(Some(_)) => Err(self.give_up(|line| {
                format!(
                    "the process answered {} with more than one line: it has to answer each line with one line",
                    shown(line)
                )
            })),
            Ok(None) => Err(self.ended()),
            Err(error) => Err(self.give_up(|line| {
                format!("the process could not be asked about {}: {error}", shown(line))
            })),
        }
    }

    /// Writes a line and reads one; `None` if the process ends instead.
    fn exchange(&mut self, line: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Warm {
            group,
            stdin,
            stdout,
            read,
            ..
        } = self;
        group.heeding(|_| {
            let mut rest = line;
            let mut searched = 0;
            loop {
                if !rest.is_empty() {
                    match stdin.write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            wait(stdin, stdout)?
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        // It does not listen. It may still have answered.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => rest = &[],
                        Err(error) => return Err(error),
                    }
                    if !rest.is_empty() && !is_readable(stdout) {
                        continue;
                    }
                }
                if read_into(stdout, read)? == 0 {
                    let last = std::mem::take(read);
                    return Ok((!last.is_empty()).then_some(last));
                }
                if let Some(at) = read[searched..].iter().position(|byte| *byte == b'\n') {
                    let mut answer: Vec<u8> = read.drain(..=searched + at).collect();
                    answer.pop();
                    return Ok(Some(answer));
                }
                searched = read.len();
            }
        })
    }

    fn read_some(&mut self) -> io::Result<usize> {
        read_into(&mut self.stdout, &mut self.read)
    }

    /// It has ended instead of answering: says how.
    fn ended(&mut self) -> String {
        let line = shown(&self.before);
        match self.group.wait().map(Ending::of) {
            Ok(Ending::Exit(0)) => format!(
                "the process ended (code 0) without answering {line}: it has to answer each line with a line, \
                 and to flush its output"
            ),
            Ok(ending) => format!("the process {ending} instead of answering {line}"),
            Err(error) => format!("the process ended instead of answering {line}: {error}"),
        }
    }

    /// Kills it; what it says of why is about what it was asked last.
    fn give_up(&mut self, why: impl FnOnce(&[u8]) -> String) -> String {
        let _ = self.group.kill();
        why(&self.before)
    }
}

fn read_into(stdout: &mut ChildStdout, to: &mut Vec<u8>) -> io::Result<usize> {
    let start = to.len();
    // More at once for long lines.
    to.resize(start + CHUNK.max(start), 0);
    let read = loop {
        match stdout.read(&mut to[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    to.truncate(start + *read.as_ref().unwrap_or(&0));
    read
}

fn is_readable(stdout: &ChildStdout) -> bool {
    let mut polled = [PollFd::new(stdout, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits until it reads or writes.
fn wait(stdin: &ChildStdin, stdout: &ChildStdout) -> io::Result<()> {
    let mut polled = [
        PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT),
        PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN),
    ];
    match rustix::event::poll(&mut polled, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A line as a message shows it: quoted, and not too long.
fn shown(line: &[u8]) -> impl Display {
    let text = String::from_utf8_lossy(line);
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
