//! Asks one process line by line: the tasks behind `coordinator pipe`, which maps inputs over a filter that stays
//! warm.

use std::cell::Cell;
use std::io::PipeWriter;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::exec::{INSTEAD, PROCESS, not_started, start};
use super::{Bytes, Ending};
use crate::command::{self, Answers, Group, Hold, Moved, Streams};
use crate::task;

/// How long the process has to end by itself after its stdin was closed.
const TO_END: Duration = Duration::from_millis(200);
/// How long the process has to end after it has closed its stdout.
const TO_DIE: Duration = Duration::from_secs(1);
/// A wait for an answer in this range is longer than two context switches on one processor, and shorter than real work. It
/// mostly means that worker and process run on two processors, and that one of these had to be woken. So the worker
/// spends the next wait awake.
const WOKEN: Range<Duration> = Duration::from_micros(8)..Duration::from_micros(100);
/// How long the worker waits at the end for a line too many.
const PATIENCE: Range<Duration> = Duration::from_millis(2)..Duration::from_millis(100);
/// The size of a read, in bytes: the capacity of a pipe.
const CHUNK: usize = 64 << 10;
/// How much of the buffer for answers is kept from one call to the next, in bytes.
const KEEP: usize = 1 << 20;
/// The most characters of an input that an error shows.
const SHOWN: usize = 60;
const ONE_LINE: &str = "a pipe's input is one line";
/// The beginning of an error after which earlier answers of the same process may belong to other inputs.
const OUT_OF_STEP: &str = "out of step: ";
const RULE: &str = "it has to answer each line with a line, and flush its output";

static WARM: Mutex<Option<Warm>> = Mutex::new(None);

fn warm() -> MutexGuard<'static, Option<Warm>> {
    WARM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mark in front of a command's arguments: each line begins with a number and a tab, and its answer has to do so, too.
/// No argument can equal the mark.
pub const NUMBERED: &[u8] = b"\0numbered";

/// Starts the process that `pipe` asks. The command line uses it as its pool's initializer.
#[task(register = false)]
pub fn pipe_open(argv: Vec<Bytes>) -> Result<(), String> {
    // A signal must not leave a process behind that is half started.
    let _hold = Hold::new();
    let mut opened = Warm::new(argv);
    opened.start()?;
    *warm() = Some(opened);
    Ok(())
}

/// Writes a line to the process and returns its answer. A process that has ended is started again.
#[task(register = false)]
pub fn pipe(line: Bytes) -> Result<Bytes, String> {
    match warm().as_mut() {
        Some(warm) if warm.numbered => warm.call_numbered(line.0).map(Bytes),
        Some(warm) => warm.call(line.0).map(Bytes),
        None => Err("there is no process to ask: `pipe_open` starts it".to_owned()),
    }
}

/// Whether an error of [`pipe`], or its worker's last words on stderr, mean that earlier answers of the
/// same process may belong to other inputs.
#[must_use]
pub fn is_out_of_step(text: &str) -> bool {
    text.lines().any(|line| line.starts_with(OUT_OF_STEP))
}

/// Whether the process can still be used after an error of [`pipe`].
#[must_use]
pub fn is_harmless(text: &str) -> bool {
    text.ends_with(ONE_LINE)
}

/// Ends the process.
pub(super) fn close() {
    let closed = warm().take();
    if let Some(warm) = closed
        && let Some(process) = warm.process
        && process.close()
        && let Some(previous) = warm.previous
    {
        complain_of_more(&previous);
    }
}

/// Reports on stderr that the process has written a line too many. No answer is left that could report it.
fn complain_of_more(previous: &[u8]) {
    use std::io::Write as _;
    let previous = quoted(previous);
    // Without stderr, nobody can be told.
    let _ = writeln!(
        std::io::stderr(),
        "{OUT_OF_STEP}the process wrote another line after its last answer, to {previous}: {RULE}"
    );
}

/// A process that is kept running between calls.
struct Warm {
    argv: Vec<Bytes>,
    /// Whether lines and answers begin with a number.
    numbered: bool,
    process: Option<Process>,
    /// The bytes that the process has written: the answer or a part of it, and maybe more.
    heard: Heard,
    /// The beginning of the input that this process answered last.
    previous: Option<Vec<u8>>,
}

struct Process {
    answers: Answers,
    /// Its stdin. `None` once it was closed.
    stdin: Option<PipeWriter>,
    group: Group,
    /// Whether the last wait was in the range [`WOKEN`].
    awake: Cell<bool>,
    /// The longest wait for an answer.
    longest: Cell<Duration>,
}

/// The buffer for what a process writes.
struct Heard {
    bytes: Vec<u8>,
    /// The room for the next read. It is never cleared, because clearing would take longer than a
    /// short call.
    room: Box<[u8]>,
}

/// The outcome of asking.
enum Asked {
    /// A line, with its newline at this place in the buffer.
    Line(usize),
    /// The process has ended or closed its output.
    End,
    /// The process wrote something before it was asked.
    Unasked,
    /// The process was gone before it was asked.
    Gone,
}

impl Warm {
    fn new(mut argv: Vec<Bytes>) -> Self {
        let numbered = argv.first().is_some_and(|word| word.0 == NUMBERED);
        argv.drain(..usize::from(numbered));
        Warm {
            argv,
            numbered,
            process: None,
            heard: Heard {
                bytes: Vec::new(),
                room: vec![0; CHUNK].into(),
            },
            previous: None,
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let group = start(&self.argv, Streams::Pipes, &[], None)?;
        let process = Process::new(group).map_err(|error| not_started(&self.argv, &error))?;
        self.process = Some(process);
        self.previous = None;
        Ok(())
    }

    fn call(&mut self, mut line: Vec<u8>) -> Result<Vec<u8>, String> {
        if line.contains(&b'\n') {
            return Err(format!("{} has a newline in it: {ONE_LINE}", quoted(&line)));
        }
        line.push(b'\n');
        let hold = Hold::new();
        let mut warm = self.process.is_some();
        loop {
            if self.process.is_none() {
                self.start()?;
            }
            let Some(process) = &self.process else {
                return Err("there is no process to ask".to_owned());
            };
            hold.pass_on_to(process.group.pid());
            self.heard.bytes.clear();
            self.heard.bytes.shrink_to(KEEP);
            let asked = process.ask(&line, &mut self.heard);
            let input = &line[..line.len() - 1];
            match asked {
                Asked::Line(at) if at + 1 == self.heard.bytes.len() => {
                    let previous = self.previous.get_or_insert_default();
                    previous.clear();
                    // A character may take four bytes.
                    previous.extend(input.iter().take(4 * SHOWN + 4));
                    return Ok(self.heard.bytes[..at].to_vec());
                }
                Asked::Line(_) => {
                    self.put_down(&hold, Duration::ZERO);
                    return Err(format!(
                        "{OUT_OF_STEP}the process answered {} with more than one line: it has to answer each \
                         line with one line",
                        quoted(input)
                    ));
                }
                Asked::Unasked => {
                    let previous = self.previous.take();
                    self.put_down(&hold, Duration::ZERO);
                    return Err(unasked(input, previous.as_deref()));
                }
                // The process died between two calls, so it has read nothing of this one. A single second try keeps a
                // process that never reads from being started for ever.
                Asked::Gone if warm && !hold.came() => {
                    self.put_down(&hold, Duration::ZERO);
                    warm = false;
                }
                Asked::Gone | Asked::End => {
                    let ending = self.put_down(&hold, TO_DIE);
                    return self.last_words(ending, input);
                }
            }
        }
    }

    /// Asks with a number in front of the line. The answer has to begin with the same number.
    fn call_numbered(&mut self, line: Vec<u8>) -> Result<Vec<u8>, String> {
        let tab = line.iter().position(|byte| *byte == b'\t');
        let (number, input) = line.split_at(tab.map_or(0, |tab| tab + 1));
        let (number, input) = (number.to_vec(), quoted(input));
        let mut answer = self.call(line)?;
        if answer.starts_with(&number) {
            answer.drain(..number.len());
            return Ok(answer);
        }
        // A process that has answered out of turn can't be trusted with the next line.
        self.put_down(&Hold::new(), Duration::ZERO);
        Err(format!(
            "the process answered {input} with {}, which does not begin with the number {} and a tab",
            quoted(&answer),
            String::from_utf8_lossy(number.trim_ascii_end())
        ))
    }

    /// The answer that a process leaves when it ends.
    fn last_words(&mut self, ending: Option<Ending>, input: &[u8]) -> Result<Vec<u8>, String> {
        let input = quoted(input);
        match ending {
            // A line in the middle of which the process was killed is no answer.
            Some(Ending::Exit(0)) | None if !self.heard.bytes.is_empty() => {
                Ok(std::mem::take(&mut self.heard.bytes))
            }
            Some(Ending::Exit(0)) => Err(format!(
                "the process ended (code 0) without answering to {input}: {RULE}"
            )),
            Some(ending) => Err(format!("{PROCESS}{ending}{INSTEAD}{input}")),
            None => Err(format!(
                "the process closed its stdin or stdout without answering to {input}: {RULE}"
            )),
        }
    }

    /// Waits for the process to end within the limit, and returns its ending. Otherwise kills it and returns `None`.
    fn put_down(&mut self, hold: &Hold, limit: Duration) -> Option<Ending> {
        let mut process = self.process.take()?;
        // SIGTERM is passed on until the process is dead.
        let ended = process.ends_within(limit);
        hold.keep();
        let status = process.group.end().ok()?;
        ended.then(|| Ending::from(status))
    }
}

impl Process {
    fn new(mut group: Group) -> std::io::Result<Self> {
        let pipes = group.take_pipes();
        let (stdin, stdout) = pipes.ok_or(std::io::ErrorKind::BrokenPipe)?;
        // The process's own end is another open file, and still blocks.
        command::set_nonblocking(&stdin)?;
        Ok(Process {
            answers: Answers::new(stdout, group.pidfd()?),
            stdin: Some(stdin),
            group,
            awake: Cell::new(false),
            longest: Cell::new(Duration::ZERO),
        })
    }

    /// Writes a line and reads one. The process may begin its answer before it has read the whole line, so this writes and
    /// reads at the same time.
    fn ask(&self, line: &[u8], heard: &mut Heard) -> Asked {
        if self.answers.is_readable() {
            match self.hear(heard) {
                Moved::Some(_) => return Asked::Unasked,
                Moved::NotNow | Moved::Closed => return Asked::Gone,
            }
        }
        let Some(stdin) = &self.stdin else {
            return Asked::Gone;
        };
        let mut unwritten = line;
        let mut newline = None;
        loop {
            if !unwritten.is_empty() {
                match command::write_now(stdin, unwritten) {
                    Moved::Some(count) => unwritten = &unwritten[count..],
                    Moved::NotNow => {}
                    Moved::Closed if unwritten.len() == line.len() && heard.bytes.is_empty() => {
                        return Asked::Gone;
                    }
                    // The process has closed its stdin, and does not want the rest of the line.
                    Moved::Closed => unwritten = &[],
                }
            }
            if let (Some(at), true) = (newline, unwritten.is_empty()) {
                // If a second line comes late, the next call finds it.
                return Asked::Line(at);
            }
            let searched = heard.bytes.len();
            if unwritten.is_empty() || self.answers.wait_or(stdin.as_fd()) {
                match self.hear(heard) {
                    Moved::Some(_) => {}
                    // The process ended by itself after the last answer, and has read nothing of this line.
                    Moved::NotNow | Moved::Closed
                        if heard.bytes.is_empty() && command::unread(stdin) == Some(line.len()) =>
                    {
                        return Asked::Gone;
                    }
                    // A child of the process may hold its stdout for ever.
                    Moved::NotNow | Moved::Closed => {
                        return newline.map_or(Asked::End, Asked::Line);
                    }
                }
            }
            newline = newline.or_else(|| {
                let at = heard.bytes[searched..]
                    .iter()
                    .position(|byte| *byte == b'\n')?;
                Some(searched + at)
            });
        }
    }

    /// Reads once. It waits for output for as long as the process lives.
    fn hear(&self, heard: &mut Heard) -> Moved {
        let began = Instant::now();
        while self.awake.get() && !self.answers.is_readable() && began.elapsed() < WOKEN.end {
            thread::yield_now();
        }
        let moved = self.answers.read(&mut heard.room);
        let waited = began.elapsed();
        self.awake.set(WOKEN.contains(&waited));
        self.longest.set(self.longest.get().max(waited));
        if let Moved::Some(count) = moved {
            heard.bytes.extend_from_slice(&heard.room[..count]);
        }
        moved
    }

    fn ends_within(&self, limit: Duration) -> bool {
        self.answers.ends_within(limit)
    }

    /// Closes the process's stdin, gives it a while to end, and then kills it. Returns whether it has
    /// written anything that nobody had asked for. If an earlier line was one too many, the answer to the last input
    /// arrives about as soon as answers have usually come.
    fn close(mut self) -> bool {
        let patience = (2 * self.longest.get()).clamp(PATIENCE.start, PATIENCE.end);
        let unasked = self.answers.has_more_within(patience);
        // Its further output answers nothing, but a closed pipe would kill it.
        self.stdin = None;
        self.ends_within(TO_END);
        unasked
    }
}

/// An input as an error shows it.
fn quoted(input: &[u8]) -> String {
    // A character may take four bytes.
    let start = String::from_utf8_lossy(&input[..input.len().min(4 * SHOWN + 4)]);
    let shown: String = start.chars().take(SHOWN).collect();
    // The dots stand outside of the quotes, so that nobody takes them for a part of the input.
    let dots = if shown.len() < input.len() && start.chars().count() > SHOWN {
        "…"
    } else {
        ""
    };
    format!("\"{}\"{dots}", shown.escape_debug())
}

fn unasked(input: &[u8], previous: Option<&[u8]>) -> String {
    let (sign, what) = match previous {
        Some(previous) => (
            OUT_OF_STEP,
            format!("another line after its answer to {}", quoted(previous)),
        ),
        None => ("", "something that nobody had asked for".to_owned()),
    };
    format!(
        "{sign}before it was given {} the process wrote {what}: it has to answer each line with one line",
        quoted(input)
    )
}
