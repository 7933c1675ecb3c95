//! Reads a log: JSON lines, one for each attempt, appended as the attempts end.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::Value;

use super::text;
use crate::cli::lines::{self, Lines};
use crate::cli::outcome::from_base64;
use crate::cli::status::Status;

/// So much of an input or a reason is kept, in characters.
pub(super) const KEPT: usize = 200;

/// One attempt, without what the report does not show.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Its run: an index into the log's runs.
    pub(super) run: usize,
    /// The same for all attempts at one call, in all runs.
    pub(super) call: u64,
    pub(super) seq: Option<u64>,
    /// At most [`KEPT`] characters.
    pub(super) input: String,
    pub(super) number: u32,
    pub(super) again: bool,
    pub(super) status: Status,
    /// Why it did not succeed, at most [`KEPT`] characters.
    pub(super) reason: String,
    /// In seconds since 1970; without it, it never ran.
    pub(super) start: Option<f64>,
    pub(super) ms: f64,
    /// Its worker's number, from 1; 0 if it had none.
    pub(super) worker: u32,
    pub(super) pid: Option<u64>,
}

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) attempts: Vec<Attempt>,
    /// The runs' names and templates, as they appear.
    pub(super) runs: Vec<(String, String)>,
    /// How many lines are no attempts, and the number of the first.
    bad: Option<(usize, usize)>,
    /// The last line is not whole.
    torn: bool,
}

impl Log {
    /// There are lines, and none is an attempt. Without any line it is a log of a run without inputs.
    pub(super) fn is_something_else(&self) -> bool {
        self.attempts.is_empty() && self.bad.is_some()
    }

    /// What was skipped, in one line.
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

/// A line of the log. Any field may be missing, so that a log of another version can still be read.
#[derive(Debug, Deserialize)]
struct Line {
    v: u32,
    run: Option<String>,
    template: Option<String>,
    seq: Option<u64>,
    /// Its run skipped what had succeeded before.
    resumed: Option<bool>,
    input: Option<String>,
    input_b64: Option<String>,
    attempt: Option<u32>,
    again: Option<bool>,
    status: Option<String>,
    exit: Option<i64>,
    /// A number or a name.
    signal: Option<Value>,
    start: Option<f64>,
    ms: Option<f64>,
    worker: Option<u32>,
    pid: Option<u64>,
    error: Option<String>,
}

/// Tells which attempts are at the same call, also in several runs. An input may stand there more than once:
/// the first time it does in a run is the first call with it, or, in a resumed run, the first one that had
/// not succeeded.
#[derive(Default)]
struct Calls {
    /// The calls with an input, and whether they have succeeded.
    known: HashMap<u64, Vec<(u64, bool)>>,
    /// Which of them a number of a run stands for.
    of_run: HashMap<(usize, u64, Option<u64>), usize>,
    /// How far the calls with an input have been assigned in a run.
    next: HashMap<(usize, u64), usize>,
    count: u64,
}

impl Calls {
    fn of(&mut self, run: usize, input: u64, line: &Line, status: Status) -> u64 {
        let known = self.known.entry(input).or_default();
        let place = *self
            .of_run
            .entry((run, input, line.seq))
            .or_insert_with(|| {
                let next = self.next.entry((run, input)).or_default();
                while line.resumed == Some(true) && known.get(*next).is_some_and(|(_, ok)| *ok) {
                    *next += 1;
                }
                *next += 1;
                *next - 1
            });
        if place == known.len() {
            self.count += 1;
            known.push((self.count, false));
        }
        let (call, ok) = &mut known[place];
        *ok |= status == Status::Ok;
        *call
    }
}

/// Reads all of it. Lines that make no sense are counted, and do not hide the others.
pub(super) fn read(from: impl BufRead) -> io::Result<Log> {
    let mut log = Log::default();
    let (mut runs, mut calls) = (HashMap::new(), Calls::default());
    let mut lines = Lines::new(from);
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let bytes = match line {
            lines::Line::Whole(bytes) => bytes,
            lines::Line::TooLong => {
                log.bad.get_or_insert((0, number)).0 += 1;
                continue;
            }
        };
        let line: Option<Line> = serde_json::from_slice(bytes).ok();
        match line.filter(|line| line.v == 1) {
            Some(line) => log.add(line, number, &mut runs, &mut calls),
            None if bytes.trim_ascii().is_empty() => {}
            None if bytes.last() != Some(&b'\n') => log.torn = true,
            None => log.bad.get_or_insert((0, number)).0 += 1,
        }
    }
    Ok(log)
}

impl Log {
    fn add(
        &mut self,
        line: Line,
        number: usize,
        runs: &mut HashMap<String, usize>,
        calls: &mut Calls,
    ) {
        let template = line.template.as_deref().unwrap_or_default();
        let id = line.run.as_deref().unwrap_or_default();
        let run = *runs.entry(id.to_owned()).or_insert_with(|| {
            self.runs.push((id.to_owned(), template.to_owned()));
            self.runs.len() - 1
        });
        let input = match (&line.input, &line.input_b64) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(encoded)) => {
                Some(from_base64(encoded).map_or_else(|| encoded.clone(), |raw| text::lossy(&raw)))
            }
            (None, None) => None,
        };
        let mut hasher = DefaultHasher::new();
        match (&line.input, &line.input_b64, line.seq) {
            // A resumed run may number its calls anew, so these tell which call it is.
            (None, None, Some(seq)) => (0, id, seq).hash(&mut hasher),
            (None, None, None) => (1, number).hash(&mut hasher),
            (text, encoded, _) => (2, template, text, encoded).hash(&mut hasher),
        }
        let status = Status::of(line.status.as_deref());
        let call = calls.of(run, hasher.finish(), &line, status);
        self.attempts.push(Attempt {
            run,
            call,
            seq: line.seq,
            input: text::shorten(&input.unwrap_or_default(), KEPT),
            number: line.attempt.unwrap_or(1),
            again: line.again.unwrap_or(false),
            status,
            reason: text::shorten(&line.reason(status), KEPT),
            start: line.start,
            ms: line.ms.unwrap_or(0.0).max(0.0),
            worker: line.worker.unwrap_or(0),
            pid: line.pid,
        });
    }

    /// The workers' numbers, in order, of those attempts that ran.
    pub(super) fn workers(&self) -> BTreeSet<u32> {
        let ran = self.attempts.iter().filter(|a| a.start.is_some());
        ran.map(|attempt| attempt.worker).collect()
    }
}

impl Line {
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
        parts.extend(self.error.clone().filter(|error| !error.is_empty()));
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
        let log = read(log.as_bytes()).unwrap();
        assert_eq!(log.attempts.len(), 2);
        assert_eq!(log.attempts[1].reason, "signal 9");
        assert_eq!(
            log.warning().as_deref(),
            Some(
                "skipped 3 lines that are no attempts, first line 2; and the last line, which is cut off"
            )
        );
        let whole = read(&b"{\"v\":1}"[..]).unwrap();
        assert_eq!((whole.attempts.len(), whole.warning()), (1, None));
    }

    #[test]
    fn bytes_and_strange_values_do_no_harm() {
        let log = b"{\"v\":1,\"input\":\"\xff\"}\n{\"v\":1,\"input_b64\":\"Yf9i\",\"ms\":-5}\n\
                    {\"v\":1,\"ms\":1e999}\n{\"v\":1,\"input_b64\":\"*\",\"status\":\"odd\",\"signal\":\"SIGHUP\"}\n";
        let log = read(&log[..]).unwrap();
        assert_eq!(log.bad, Some((2, 1)));
        assert_eq!(log.attempts[0].input, "a\u{fffd}b");
        assert!(log.attempts[0].ms.abs() < f64::EPSILON);
        assert_eq!(log.attempts[1].reason, "status odd: SIGHUP");
    }

    #[test]
    fn a_resumed_call_is_the_same_call() {
        let line = |run: u32, resumed: bool, seq: u32, status: &str| {
            format!(
                "{{\"v\":1,\"run\":\"{run}\",\"resumed\":{resumed},\"seq\":{seq},\"input\":\"a\",\
                 \"status\":\"{status}\"}}\n"
            )
        };
        let calls = |lines: &[String]| -> Vec<u64> {
            let log = read(lines.concat().as_bytes()).unwrap();
            log.attempts.iter().map(|attempt| attempt.call).collect()
        };
        let first = [line(1, false, 5, "ok"), line(1, false, 6, "failed")];
        let again = [line(2, true, 1, "failed"), line(2, true, 1, "ok")];
        assert_eq!(calls(&[&first[..], &again].concat()), [1, 2, 2, 2]);
        // A third one, where two had succeeded.
        let third = [line(3, true, 3, "ok")];
        assert_eq!(
            calls(&[&first[..], &again, &third].concat()),
            [1, 2, 2, 2, 3]
        );
        // From the start it is each of them once more.
        let anew = [line(2, false, 1, "ok"), line(2, false, 2, "ok")];
        assert_eq!(calls(&[&first[..], &anew].concat()), [1, 2, 1, 2]);
    }
}
