//! Reads a log: lines of JSON, one for each attempt, in the order in which the attempts ended.
//!
//! The log is read twice. The first pass counts everything, and keeps only a [`Mark`] of each attempt. After it, the report
//! knows which attempts to show one by one. The second pass keeps those: all attempts, unless there are very many.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, BufReader, Read, Seek};

use serde::Deserialize;
use serde_json::Value;

use super::marks::{At, Calls, Mark};
use super::pick::{self, Picked};
use super::text;
use crate::cli::lines::{self, Lines};
use crate::cli::log_line::MACHINES;
use crate::cli::outcome::from_base64;
use crate::cli::status::Status;

/// The most characters of an input or a reason that are kept.
pub(super) const KEPT: usize = 200;
/// The most characters of an attempt's stderr that are kept.
const WORDS: usize = 600;
/// How many bytes of a log are read at once.
const BLOCK: usize = 1 << 20;

/// One attempt, as far as the report shows it.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The number of its line, from 1.
    pub(super) line: u32,
    /// The index of its run among the log's runs.
    pub(super) run: usize,
    pub(super) seq: Option<u64>,
    /// Its input, at most [`KEPT`] characters.
    pub(super) input: String,
    pub(super) number: u32,
    pub(super) again: bool,
    pub(super) status: Status,
    /// The reason why it did not succeed, at most [`KEPT`] characters.
    pub(super) reason: String,
    /// The last [`WORDS`] characters of its stderr, if it did not succeed and the log has them.
    pub(super) words: String,
    /// When it began, in seconds since 1970. `None` if it never ran.
    pub(super) start: Option<f64>,
    pub(super) ms: f64,
    pub(super) lane: Lane,
    pub(super) pid: Option<u64>,
}

/// One run, as the log has it.
#[derive(Debug, Default)]
pub(super) struct RunSums {
    pub(super) id: String,
    pub(super) template: String,
    /// When its first attempt began and its last one ended, in seconds since 1970. `None` if no attempt ran.
    pub(super) ran: Option<(f64, f64)>,
    pub(super) attempts: usize,
    pub(super) succeeded: usize,
    /// Its workers.
    pub(super) workers: BTreeSet<Lane>,
}

/// A worker, which is a row of the chart: those of this machine first, and then those of others, machine by machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Lane {
    /// Which other machine it is on, from 1, or 0 if it is on this one.
    pub(super) machine: u16,
    /// Its number, from 1, or 0 if there was no worker.
    pub(super) worker: u32,
}

/// The other machines of a log, in the order in which they appear.
#[derive(Debug, Default)]
pub(super) struct Machines {
    names: Vec<String>,
    numbers: HashMap<String, u16>,
}

impl Machines {
    fn lane(&mut self, machine: Option<&str>, worker: Option<u32>) -> Lane {
        let worker = worker.unwrap_or(0);
        let Some(name) = machine.filter(|_| worker != 0) else {
            return Lane { machine: 0, worker };
        };
        let machine = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                self.names.push(name.to_owned());
                // Beyond that number, machines can't be distinguished. No run has so many.
                let number = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
                self.numbers.insert(name.to_owned(), number);
                number
            }
        };
        Lane { machine, worker }
    }

    /// A worker, as people see it; empty if there was none.
    pub(super) fn label(&self, lane: Lane) -> String {
        let name = usize::from(lane.machine)
            .checked_sub(1)
            .and_then(|at| self.names.get(at));
        match (name, lane.worker) {
            (_, 0) => String::new(),
            (None, worker) => worker.to_string(),
            (Some(name), worker) => format!("{name} {worker}"),
        }
    }
}

/// The content of a log.
#[derive(Debug, Default)]
pub(super) struct LogSums {
    /// The runs in the order in which they appear.
    pub(super) runs: Vec<RunSums>,
    pub(super) machines: Machines,
    pub(super) calls: Calls,
    /// The number of attempts by how they ended.
    pub(super) statuses: [usize; Status::ALL.len()],
    /// How many attempts were followed by a retry, and how many never ran.
    pub(super) again: usize,
    pub(super) idle: usize,
    /// How long each attempt took that ran, in milliseconds.
    pub(super) times: Vec<f32>,
    pub(super) busy_ms: f64,
    /// The attempts that are shown one by one, in the order of the log.
    pub(super) attempts: Vec<Attempt>,
    pub(super) picked: Picked,
    /// How many lines are no attempts, and the number of the first such line.
    bad: Option<(usize, usize)>,
    /// Whether the last line is torn.
    torn: bool,
}

impl LogSums {
    /// The number of attempts.
    pub(super) fn count(&self) -> usize {
        self.statuses.iter().sum()
    }

    /// Whether the file has lines, but no attempt. A file without lines is the log of a run without inputs.
    pub(super) fn is_something_else(&self) -> bool {
        self.count() == 0 && self.bad.is_some()
    }

    /// One line about the lines that were skipped.
    pub(super) fn warning(&self) -> Option<String> {
        let bad = self.bad.map(|(count, first)| match count {
            1 => format!("skipped line {first}, which is no attempt"),
            _ => format!("skipped {count} lines that are no attempts, first line {first}"),
        });
        match (bad, self.torn) {
            (Some(bad), true) => Some(format!("{bad}; and the last line, which is cut off")),
            (None, true) => Some("skipped the last line, which is cut off".to_owned()),
            (bad, false) => bad,
        }
    }
}

/// A line of the log. Every field may be missing, so that logs of other versions can still be read.
#[derive(Debug, Deserialize)]
struct Line<'l> {
    v: u32,
    #[serde(borrow, default)]
    run: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    template: Option<Cow<'l, str>>,
    seq: Option<u64>,
    /// Its run skipped what had succeeded before.
    resumed: Option<bool>,
    #[serde(borrow, default)]
    input: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    input_b64: Option<Cow<'l, str>>,
    attempt: Option<u32>,
    again: Option<bool>,
    #[serde(borrow, default)]
    status: Option<Cow<'l, str>>,
    exit: Option<i64>,
    /// The worker's number or name.
    signal: Option<Value>,
    start: Option<f64>,
    ms: Option<f64>,
    #[serde(borrow, default)]
    machine: Option<Cow<'l, str>>,
    worker: Option<u32>,
    pid: Option<u64>,
    #[serde(borrow, default)]
    error: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    stderr: Option<Cow<'l, str>>,
}

/// Reads the whole log. Lines that make no sense are counted, and do not hide the others. `said` is told from time to time
/// how many bytes were read.
pub(super) fn read(mut from: impl Read + Seek, mut said: impl FnMut(u64)) -> io::Result<LogSums> {
    let mut reading = Reading::default();
    let mut lines = Lines::new(BufReader::with_capacity(BLOCK, &mut from));
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        reading.hear(line, number);
        // The clock is read once for many lines: reading it costs as much as a short line.
        if number.is_multiple_of(1024) {
            said(lines.read());
        }
    }
    let Reading {
        mut log,
        mut marks,
        slowest,
        runs,
        ..
    } = reading;
    // The marks are still in the order of their lines.
    let picked = pick::lines(&marks, slowest);
    log.calls = Calls::new(&mut marks);
    drop(marks);
    log.picked = picked.with_failed(&log.calls.failed);
    from.rewind()?;
    log.attempts = fetch(from, &log.picked, &runs, &mut log.machines)?;
    Ok(log)
}

/// Reads the attempts that were picked.
fn fetch(
    from: impl Read,
    picked: &Picked,
    runs: &HashMap<String, usize>,
    machines: &mut Machines,
) -> io::Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    let mut lines = Lines::new(BufReader::with_capacity(BLOCK, from));
    let mut number: u32 = 0;
    for wanted in picked.lines() {
        loop {
            number += 1;
            let Some(line) = lines.next()? else {
                return Ok(attempts);
            };
            if number == wanted {
                if let lines::RawLine::Whole(bytes) = line
                    && let Some(line) = parse(bytes)
                {
                    let id = line.run.as_deref().unwrap_or_default();
                    let run = runs.get(id).copied().unwrap_or(0);
                    let lane = machines.lane(line.machine.as_deref(), line.worker);
                    attempts.push(line.attempt(number, run, lane));
                }
                break;
            }
        }
    }
    Ok(attempts)
}

fn parse(bytes: &[u8]) -> Option<Line<'_>> {
    let line: Option<Line<'_>> = serde_json::from_slice(bytes).ok();
    line.filter(|line| line.v == 1)
}

/// The first pass over a log.
#[derive(Default)]
struct Reading {
    log: LogSums,
    marks: Vec<Mark>,
    slowest: pick::Slowest,
    runs: HashMap<String, usize>,
    /// The run of the last line, which is mostly the next line's, too.
    run: usize,
    hash: RandomState,
}

impl Reading {
    fn hear(&mut self, line: lines::RawLine<'_>, number: usize) {
        let lines::RawLine::Whole(bytes) = line else {
            return self.is_bad(number);
        };
        match parse(bytes) {
            // A line that tells of machines is about no attempt.
            Some(line) if line.status.as_deref() == Some(MACHINES) => {}
            Some(line) => self.add(&line, number),
            None if bytes.trim_ascii().is_empty() => {}
            None if bytes.last() != Some(&b'\n') => self.log.torn = true,
            None => self.is_bad(number),
        }
    }

    fn is_bad(&mut self, number: usize) {
        self.log.bad.get_or_insert((0, number)).0 += 1;
    }

    fn add(&mut self, line: &Line<'_>, number: usize) {
        let run = self.run_of(line);
        let status = Status::of(line.status.as_deref());
        let (again, ms) = (line.again.unwrap_or(false), line.took());
        let log = &mut self.log;
        log.statuses[status as usize] += 1;
        log.again += usize::from(again);
        log.busy_ms += ms;
        let of_run = &mut log.runs[run];
        of_run.attempts += 1;
        of_run.succeeded += usize::from(status == Status::Ok);
        // Beyond that number, lines can't be distinguished. No log has so many.
        let at_line = u32::try_from(number).unwrap_or(u32::MAX);
        match line.start {
            None => log.idle += 1,
            Some(start) => {
                let end = start + ms / 1e3;
                let (first, last) = of_run.ran.unwrap_or((start, end));
                of_run.ran = Some((first.min(start), last.max(end)));
                let lane = log.machines.lane(line.machine.as_deref(), line.worker);
                of_run.workers.insert(lane);
                log.times.push(ms as f32);
                self.slowest.add(ms, at_line);
            }
        }
        let mark = Mark::new(&At {
            input: self.input(line, number),
            line: at_line,
            run,
            seq: line.seq,
            resumed: line.resumed == Some(true),
            status,
            again,
        });
        self.marks.push(mark);
    }

    fn run_of(&mut self, line: &Line<'_>) -> usize {
        let id = line.run.as_deref().unwrap_or_default();
        let runs = &mut self.log.runs;
        if runs.get(self.run).is_none_or(|run| run.id != id) {
            self.run = *self.runs.entry(id.to_owned()).or_insert_with(|| {
                runs.push(RunSums {
                    id: id.to_owned(),
                    template: line.template.as_deref().unwrap_or_default().to_owned(),
                    ..RunSums::default()
                });
                runs.len() - 1
            });
        }
        self.run
    }

    /// A hash of the fields that are equal in all attempts at calls with one input.
    fn input(&self, line: &Line<'_>, number: usize) -> u64 {
        let mut hasher = self.hash.build_hasher();
        match (&line.input, &line.input_b64, line.seq) {
            // A resumed run may number its calls anew, so these fields identify the call.
            (None, None, Some(seq)) => (0, line.run.as_deref(), seq).hash(&mut hasher),
            (None, None, None) => (1, number).hash(&mut hasher),
            (text, encoded, _) => {
                (2, line.template.as_deref(), text, encoded).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

impl Line<'_> {
    /// How long the attempt ran, in milliseconds.
    fn took(&self) -> f64 {
        self.ms.unwrap_or(0.0).max(0.0)
    }

    fn attempt(&self, line: u32, run: usize, lane: Lane) -> Attempt {
        let input = match (&self.input, &self.input_b64) {
            (Some(text), _) => text::shorten(text, KEPT),
            (None, Some(encoded)) => match from_base64(encoded) {
                Some(raw) => text::shorten(&text::lossy(&raw), KEPT),
                None => text::shorten(encoded, KEPT),
            },
            (None, None) => String::new(),
        };
        let status = Status::of(self.status.as_deref());
        Attempt {
            line,
            run,
            seq: self.seq,
            input,
            number: self.attempt.unwrap_or(1),
            again: self.again.unwrap_or(false),
            status,
            reason: text::shorten(&self.reason(status), KEPT),
            words: self.words(),
            start: self.start,
            ms: self.took(),
            lane,
            pid: self.pid,
        }
    }

    fn words(&self) -> String {
        let said = self.stderr.as_deref().unwrap_or_default().trim();
        let skipped = said.chars().count().saturating_sub(WORDS);
        said.chars().skip(skipped).collect()
    }

    fn reason(&self, status: Status) -> String {
        if status == Status::Ok {
            return String::new();
        }
        let mut parts = Vec::new();
        if status == Status::Other {
            parts.push(match &self.status {
                Some(word) => format!("status {word}"),
                None => "no status".to_owned(),
            });
        }
        match &self.signal {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => parts.push(name.clone()),
            Some(other) => parts.push(format!("signal {other}")),
        }
        if let Some(exit) = self.exit.filter(|exit| *exit != 0) {
            parts.push(format!("exit {exit}"));
        }
        // The error of a command names its exit code or signal itself.
        if let Some(error) = self.error.as_deref().filter(|error| !error.is_empty()) {
            parts.retain(|part| part.starts_with("status "));
            parts.push(error.to_owned());
        }
        // The last line usually says more than the exit code.
        let last = self
            .stderr
            .as_deref()
            .and_then(|said| said.trim().lines().last());
        if let Some(last) = last
            .map(str::trim)
            .filter(|last| !parts.iter().any(|part| part.contains(last)))
        {
            parts.push(last.to_owned());
        }
        parts.join(": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_and_bad_lines_are_skipped_with_one_warning() {
        let log = "{\"v\":1,\"run\":\"r\",\"input\":\"a\",\"status\":\"ok\"}\nnonsense\n\n{\"v\":2}\n\
                   [1]\n{\"v\":1,\"status\":\"died\",\"signal\":9}\n{\"v\":1,\"inp";
        let log = read(io::Cursor::new(log), |_| ()).unwrap();
        assert_eq!(log.attempts.len(), 2);
        assert_eq!(log.attempts[1].reason, "signal 9");
        assert_eq!(
            log.warning().as_deref(),
            Some(
                "skipped 3 lines that are no attempts, first line 2; and the last line, which is cut off"
            )
        );
        let whole = read(io::Cursor::new("{\"v\":1}"), |_| ()).unwrap();
        assert_eq!((whole.attempts.len(), whole.warning()), (1, None));
    }

    #[test]
    fn bytes_and_strange_values_do_no_harm() {
        let log = b"{\"v\":1,\"input\":\"\xff\"}\n{\"v\":1,\"input_b64\":\"Yf9i\",\"ms\":-5}\n\
                    {\"v\":1,\"ms\":1e999}\n{\"v\":1,\"input_b64\":\"*\",\"status\":\"odd\",\"signal\":\"SIGHUP\"}\n";
        let log = read(io::Cursor::new(log), |_| ()).unwrap();
        assert_eq!(log.bad, Some((2, 1)));
        assert_eq!(log.attempts[0].input, "a\u{fffd}b");
        assert!(log.attempts[0].ms.abs() < f64::EPSILON);
        assert_eq!(log.attempts[1].reason, "status odd: SIGHUP");
    }
}
