//! The summary of a run, in a few lines on stderr.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::{self, Options};
use super::outcome::{Outcome, millis, shown};
use super::status::Status;
use super::suspects::{self, Range};
use super::template::quoted;
use super::{complain, complain_in_red};

/// The longest command line that the summary suggests, in bytes.
const REPEATABLE: usize = 4096;
/// The most failed inputs that are named.
const NAMED: usize = 10;
/// The most different reasons that are counted.
const REASONS: usize = 1000;
/// The most reasons that are shown with their counts.
const SHOWN_REASONS: usize = 5;
/// The most characters that are shown of the last line of stderr.
const LONGEST_LINE: usize = 200;

/// The counts of a run.
#[derive(Debug)]
pub(super) struct Summary {
    began: Instant,
    ok: u64,
    pub(super) failed: u64,
    /// How many attempts were followed by a retry.
    again: u64,
    /// How many calls succeeded after a retry.
    mended: u64,
    pub(super) skipped: u64,
    /// The inputs whose answers may belong to other inputs.
    suspects: Vec<Range>,
    /// How many calls never began, because the run was stopped.
    pub(super) not_run: u64,
    /// The first failures in input order: input and reason by the input's number. Failures arrive in any order.
    named: BTreeMap<u64, (Vec<u8>, String)>,
    /// How often each reason occurred.
    reasons: HashMap<String, u64>,
    /// The inputs of all failed calls, by the calls' numbers, as long as a command line could hold them.
    rest: BTreeMap<u64, Vec<u8>>,
    /// The total length of these inputs, in bytes.
    rest_len: usize,
    /// How many calls each machine has ended, if there are several; `None` is this one.
    machines: BTreeMap<Option<Arc<str>>, u64>,
    /// How many inputs a call takes.
    many: usize,
    colour: bool,
}

impl Summary {
    pub(super) fn new(many: usize, colour: bool, began: Instant) -> Self {
        Summary {
            began,
            ok: 0,
            failed: 0,
            again: 0,
            mended: 0,
            skipped: 0,
            suspects: Vec::new(),
            not_run: 0,
            named: BTreeMap::new(),
            reasons: HashMap::new(),
            rest: BTreeMap::new(),
            rest_len: 0,
            machines: BTreeMap::new(),
            many,
            colour,
        }
    }

    pub(super) fn count(&mut self, outcome: &Outcome) {
        if !outcome.again && outcome.slot.is_some() {
            *self.machines.entry(outcome.machine.clone()).or_default() += 1;
        }
        if outcome.again {
            self.again += 1;
        } else if outcome.status == Status::Ok {
            self.ok += 1;
            self.mended += u64::from(outcome.attempts > 1);
        } else {
            self.failed += 1;
            self.name(outcome);
            self.rest_len += outcome.input.len() + 1;
            if self.rest_len <= REPEATABLE {
                self.rest.insert(outcome.seq, outcome.input.clone());
            }
        }
    }

    /// Notes that some inputs may not be done, although they counted as done.
    pub(super) fn suspect(&mut self, ranges: &[Range]) {
        self.ok = self.ok.saturating_sub(suspects::count(ranges));
        self.suspects.extend(ranges);
    }

    /// Whether every input is done.
    pub(super) fn is_well(&self) -> bool {
        self.failed == 0 && self.not_run == 0 && self.suspects.is_empty()
    }

    fn name(&mut self, outcome: &Outcome) {
        let mut why = outcome.error.clone().unwrap_or_default();
        if let Some(line) = last_line(outcome).filter(|line| !why.contains(line)) {
            why = format!("{why}: {line}");
        }
        let is_known = self.reasons.contains_key(&why);
        if is_known || self.reasons.len() < REASONS {
            *self.reasons.entry(why.clone()).or_default() += 1;
        }
        let last = self.named.last_key_value().map(|(&seq, _)| seq);
        if self.named.len() == NAMED && last.is_some_and(|last| last < outcome.seq) {
            return;
        }
        if outcome.attempts > 1 && !why.contains("attempt") {
            why = format!("{why} (attempt {})", outcome.attempts);
        }
        self.named.insert(outcome.seq, (outcome.input.clone(), why));
        if self.named.len() > NAMED {
            self.named.pop_last();
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.ok + self.failed + suspects::count(&self.suspects)
    }

    /// The object that `--json` prints last.
    pub(super) fn json(&self, interrupted: bool) -> Value {
        json!({
            "v": 1, "summary": true, "ok": self.ok, "failed": self.failed, "retried": self.again,
            "skipped": self.skipped, "not_run": self.not_run, "suspect": suspects::count(&self.suspects),
            "interrupted": interrupted,
            "ms": millis(self.began.elapsed()),
        })
    }

    /// Prints the summary. A run without failures gets one only on a terminal.
    pub(super) fn say(&self, options: &Options, stopped: bool) {
        let went_well = self.is_well() && !stopped;
        let is_news = !went_well
            || self.again > 0
            || self.skipped > 0
            || self.machines.keys().any(Option::is_some)
            || io::stderr().is_terminal();
        if !is_news || (went_well && options.quiet) {
            return;
        }
        for (input, why) in self.named.values() {
            complain_in_red(&format!("input {}: {why}", shown(input)), self.colour);
        }
        let more = self.failed.saturating_sub(self.named.len() as u64);
        if more > 0 {
            complain(&format!("and {more} more that did not succeed"));
            self.say_reasons();
        }
        if !self.suspects.is_empty() {
            let ranges = suspects::shown(&self.suspects);
            let what = format!(
                "what was answered to inputs {ranges} may belong to other inputs, because the process wrote a line too \
                 many: these do not count as done (with --numbered, no answer can be taken for another's)"
            );
            complain_in_red(&what, self.colour);
        }
        complain(&self.line(stopped));
        if !went_well {
            complain(&self.rerun(options, stopped));
        }
        if let Some(log) = options.log.as_ref().filter(|_| !options.quiet) {
            let log = quoted([log.as_os_str().as_bytes()]);
            complain(&format!("to look at the run: coordinator report {log}"));
        }
    }

    /// Prints the most frequent reasons.
    fn say_reasons(&self) {
        let mut reasons: Vec<_> = self
            .reasons
            .iter()
            .filter(|(_, count)| **count > 1)
            .collect();
        reasons.sort_by_key(|(why, count)| (Reverse(**count), *why));
        for (why, count) in reasons.into_iter().take(SHOWN_REASONS) {
            complain(&format!("{count} × {why}"));
        }
    }

    fn line(&self, stopped: bool) -> String {
        let calls = |number: u64| match number {
            1 => "1 call".to_owned(),
            number => format!("{number} calls"),
        };
        let mut parts = Vec::new();
        if self.failed > 0 {
            parts.push(format!(
                "{} of {} did not succeed",
                self.failed,
                calls(self.done())
            ));
        } else {
            let were = if self.done() == 1 { "was" } else { "were" };
            parts.push(format!("{} {were} done", calls(self.done())));
        }
        if !self.suspects.is_empty() {
            parts.push(format!("{} suspect", suspects::count(&self.suspects)));
        }
        if self.again > 0 {
            parts.push(format!(
                "{} retried, {} of them with success",
                self.again, self.mended
            ));
        }
        if self.skipped > 0 {
            parts.push(format!("{} skipped", self.skipped));
        }
        if self.not_run > 0 || stopped {
            parts.push("the rest did not run".to_owned());
        }
        let machines = self.by_machine();
        parts.push(format!("it took {:.1?}{machines}", self.began.elapsed()));
        parts.join("; ")
    }

    /// How many calls each machine has ended, if others took part.
    fn by_machine(&self) -> String {
        if self.machines.keys().all(Option::is_none) {
            return String::new();
        }
        let parts = self.machines.iter().map(|(machine, calls)| {
            let machine = machine.as_deref().unwrap_or("here");
            format!("{machine} {calls}")
        });
        format!(" ({})", parts.collect::<Vec<_>>().join(" · "))
    }

    /// The command line that runs what is left.
    fn rerun(&self, options: &Options, stopped: bool) -> String {
        let mut words: Vec<OsString> = std::env::args_os().collect();
        let line = |words: &[OsString]| quoted(words.iter().map(|word| word.as_bytes()));
        if options.log.is_some() {
            if !options.resume {
                // The option stands behind the subcommand, where it can't be taken for a word of a command.
                words.insert(2.min(words.len()), "--resume".into());
            }
            let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
            let stdin = options.input.as_ref().is_none_or(is_stdin)
                && !words.iter().any(|word| word == ":::");
            let same = if stdin {
                ", with the same inputs on stdin"
            } else {
                ""
            };
            return format!("to run the rest{same}: {}", line(&words));
        }
        let all_known = self.rest.len() as u64 == self.failed
            && self.not_run == 0
            && self.suspects.is_empty()
            && !stopped;
        let words = all_known.then(|| args::with_inputs(words, &self.rest_inputs()?));
        match words.flatten().map(|words| line(&words)) {
            Some(line) if line.len() <= REPEATABLE => format!("to run the rest: {line}"),
            _ => "with --log FILE, such a run can be taken up again by the same command and --resume, \
                  which runs only the rest"
                .to_owned(),
        }
    }

    /// The inputs of all failed calls. `None` if one of them can't be an argument. Several inputs of one call stand with
    /// zero bytes between them.
    fn rest_inputs(&self) -> Option<Vec<OsString>> {
        let inputs = self.rest.values();
        let inputs: Vec<_> = match self.many {
            1 => inputs.map(Vec::as_slice).collect(),
            _ => inputs
                .flat_map(|inputs| inputs.split(|byte| *byte == 0))
                .collect(),
        };
        let words = inputs
            .iter()
            .map(|input| OsStr::from_bytes(input).to_owned());
        let are_words = inputs.iter().all(|input| !input.contains(&0));
        are_words.then(|| words.collect())
    }
}

/// The last line that a call wrote to stderr.
fn last_line(outcome: &Outcome) -> Option<String> {
    let said = outcome.last_words()?;
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(LONGEST_LINE).collect())
}
