//! Prints what calls write and return, to stdout and stderr, in input order or as it comes.
//!
//! In input order, the first call that has not been printed may stream: its output is printed while it
//! runs. The output of later calls waits in the unlinked files that their workers write to. What those calls return waits
//! in memory, and beyond a limit in a file without a name.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use coordinator::{Captured, RunningCall, Stray, StraySource};
use serde_json::json;
use worker::builtin::Patient;

use super::args::Options;
use super::check_stdout;
use super::feed::InputFeed;
use super::outcome::{Outcome, PRINTED};
use super::progress::Progress;
use super::spill::{Spill, Waiting};
use super::status::Status;
use super::terminal::visible;
use super::work::Work;

/// The order in which output is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As calls end, or while they run if output is live.
    Any { live: bool },
    /// As if the calls had run one after another. The first may stream, if it is tried only once.
    Ordered { streams: bool },
}

/// How much of a running call's output has been printed.
#[derive(Debug, Default, Clone, Copy)]
struct Streamed {
    attempt: u32,
    stdout: u64,
    stderr: u64,
    /// Whether that ended in the middle of a line.
    torn: bool,
}

/// Stdout, which may be the terminal that shows the progress bar.
struct Out {
    stdout: Patient<Stdout>,
    is_terminal: bool,
    /// The beginning of a line, which waits for the line's end while there is a bar: otherwise the bar would stand behind it.
    begun: Vec<u8>,
    /// Whether anything was written since the last flush. Each flush draws the bar anew.
    unflushed: bool,
}

/// The longest beginning of a line that waits, in bytes.
const BEGUN: usize = 64 << 10;

impl Out {
    fn new() -> Self {
        let stdout = Patient(io::stdout());
        let is_terminal = stdout.0.is_terminal();
        Out {
            stdout,
            is_terminal,
            begun: Vec::new(),
            unflushed: false,
        }
    }

    /// Writes the beginning that waits, because the bar has gone.
    fn end(&mut self) -> io::Result<()> {
        self.stdout.write_all(&std::mem::take(&mut self.begun))?;
        self.stdout.flush()
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // A run that ends before this has already said why.
        let _ = self.end();
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        check_stdout()?;
        if !self.is_terminal {
            return self.stdout.write(bytes);
        }
        self.begun.extend_from_slice(bytes);
        let line_end = self.begun.iter().rposition(|byte| *byte == b'\n');
        let whole = match line_end {
            _ if self.begun.len() > BEGUN || !Progress::is_shown() => self.begun.len(),
            Some(at) => at + 1,
            None => 0,
        };
        if whole > 0 {
            let rest = self.begun.split_off(whole);
            let lines = std::mem::replace(&mut self.begun, rest);
            self.unflushed = true;
            Progress::aside(|| self.stdout.write_all(&lines))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.is_terminal {
            return self.stdout.flush();
        }
        match std::mem::take(&mut self.unflushed) {
            true => Progress::aside(|| self.stdout.flush()),
            false => Ok(()),
        }
    }
}

/// The most bytes that are written to stderr at once.
const PIECE: usize = 64 << 10;
/// A line longer than this many bytes is passed on in parts.
const LONGEST: usize = 1 << 20;

/// Prints outcomes.
pub(super) struct Printer {
    stdout: BufWriter<Out>,
    work: Work,
    mode: Mode,
    json: bool,
    tag: bool,
    /// Whether other machines take part.
    has_machines: bool,
    /// Whether stdout or stderr is a terminal, where tags must not contain control characters.
    is_seen: bool,
    /// The index of the first call that has not been printed, in input order.
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    streamed: BTreeMap<u64, Streamed>,
    spill: Spill,
    printed: u64,
}

impl Printer {
    pub(super) fn new(work: &Work, options: &Options) -> Self {
        let any = options.unordered || options.live;
        Printer {
            stdout: BufWriter::with_capacity(64 << 10, Out::new()),
            work: work.clone(),
            mode: match any {
                true => Mode::Any { live: options.live },
                false => Mode::Ordered {
                    streams: options.limits.retries.unwrap_or(0) == 0 && !options.json,
                },
            },
            json: options.json,
            tag: options.tag,
            has_machines: options.machines.are_wanted(),
            is_seen: io::stdout().is_terminal() || io::stderr().is_terminal(),
            next: 0,
            waiting: BTreeMap::new(),
            streamed: BTreeMap::new(),
            spill: Spill::default(),
            printed: 0,
        }
    }

    /// How many calls have been printed.
    pub(super) fn printed(&self) -> u64 {
        self.printed
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    /// Prints what is left. Nothing more will come, and the progress bar has gone.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stdout.get_mut().end()
    }

    /// Takes a call that has ended, or without an outcome one that never began.
    pub(super) fn take(&mut self, index: u64, outcome: Option<Outcome>) -> io::Result<()> {
        if let Mode::Any { .. } = self.mode {
            self.printed += 1;
            return outcome.map_or(Ok(()), |outcome| self.print(index, &outcome));
        }
        if index != self.next {
            let waiting = match outcome {
                None => Waiting::Nothing,
                Some(outcome) => self.spill.hold(outcome)?,
            };
            self.waiting.insert(index, waiting);
            return Ok(());
        }
        if let Some(outcome) = outcome {
            self.print(index, &outcome)?;
        }
        self.next += 1;
        while let Some(waiting) = self.waiting.remove(&self.next) {
            if let Some(outcome) = self.spill.release(waiting)? {
                self.print(self.next, &outcome)?;
            }
            self.next += 1;
        }
        self.printed = self.next;
        Ok(())
    }

    /// Whether output of running calls is printed.
    pub(super) fn streams(&self) -> bool {
        matches!(
            self.mode,
            Mode::Any { live: true } | Mode::Ordered { streams: true }
        )
    }

    /// Prints the new output of running calls.
    pub(super) fn stream(&mut self, calls: &[RunningCall], feed: &InputFeed) -> io::Result<()> {
        for call in calls {
            let wanted = match self.mode {
                Mode::Any { live } => live,
                Mode::Ordered { streams } => streams && call.index == self.next,
            };
            if !wanted || (call.stdout.is_empty() && call.stderr.is_empty()) {
                continue;
            }
            let tag = self.tag(call.machine.as_deref(), || feed.item(call.index).input);
            let mut streamed = self.streamed.get(&call.index).copied().unwrap_or_default();
            if streamed.attempt != call.attempt {
                streamed = Streamed {
                    attempt: call.attempt,
                    ..Streamed::default()
                };
            }
            let part = match self.whole_lines() {
                true => Part::WholeLines,
                false => Part::SoFar,
            };
            self.pass_on(
                &call.stdout,
                &call.stderr,
                &mut streamed,
                tag.as_deref(),
                part,
            )?;
            self.streamed.insert(call.index, streamed);
        }
        self.stdout.flush()
    }

    /// The tag in front of each line, if there is one: the input, and the machine, if others take part.
    fn tag(&self, machine: Option<&str>, input: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        let input = self.tag.then(input)?;
        let mut tag = match self.is_seen {
            true => visible(&String::from_utf8_lossy(&input)).into_bytes(),
            false => input,
        };
        if self.has_machines {
            tag.push(b'\t');
            tag.extend_from_slice(machine.unwrap_or("here").as_bytes());
        }
        Some(tag)
    }

    /// Whether output has to come in whole lines, because of tags or because other calls' lines stand between.
    fn whole_lines(&self) -> bool {
        self.tag || matches!(self.mode, Mode::Any { .. })
    }

    fn print(&mut self, index: u64, outcome: &Outcome) -> io::Result<()> {
        let streamed = self.streamed.remove(&index).unwrap_or_default();
        if self.json {
            let object = outcome.json(&self.work)?;
            serde_json::to_writer(&mut self.stdout, &object)?;
            return self.stdout.write_all(b"\n");
        }
        let mut streamed = match streamed.attempt == outcome.attempts {
            true => streamed,
            // The part that was streamed belongs to an earlier attempt.
            false => Streamed::default(),
        };
        let tag = self.tag(outcome.machine.as_deref(), || outcome.input.clone());
        let tag = tag.as_deref();
        self.pass_on(
            &outcome.stdout,
            &outcome.stderr,
            &mut streamed,
            tag,
            Part::All,
        )?;
        // A command's output is its result, and stays as it is unless tags make lines of it. What a task prints are lines
        // before its result.
        let is_command = matches!(self.work, Work::Exec { .. });
        if streamed.torn && (!is_command || self.tag) {
            self.stdout.write_all(b"\n")?;
        }
        if outcome.status == Status::Ok
            && let Some(result) = self.work.result(&outcome.value)
        {
            if let Some(tag) = tag {
                write_tag(&mut self.stdout, tag)?;
            }
            self.stdout.write_all(&result)?;
            self.stdout.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Prints the part of a call's output that has not been printed yet.
    fn pass_on(
        &mut self,
        stdout: &Captured,
        stderr: &Captured,
        streamed: &mut Streamed,
        tag: Option<&[u8]>,
        part: Part,
    ) -> io::Result<()> {
        let whole_lines = part == Part::WholeLines;
        let is_all = part == Part::All;
        if stdout.len() > streamed.stdout {
            let mut lines = Lines::new(&mut self.stdout, tag, whole_lines);
            stdout.copy_from(streamed.stdout, &mut lines)?;
            streamed.stdout += lines.passed;
            streamed.torn = !lines.at_start;
        }
        if stderr.len() > streamed.stderr {
            // On a terminal, a call's stdout is shown before its stderr.
            self.stdout.flush()?;
            // The bar would erase the beginning of a line.
            let whole_lines = whole_lines || (part == Part::SoFar && Progress::is_shown());
            streamed.stderr += Progress::aside(|| {
                let mut error = BufWriter::with_capacity(PIECE, Deaf(Patient(io::stderr())));
                let mut lines = Lines::new(&mut error, tag, whole_lines);
                stderr.copy_from(streamed.stderr, &mut lines)?;
                let (passed, at_start) = (lines.passed, lines.at_start);
                if is_all && !at_start {
                    error.write_all(b"\n")?;
                }
                error.flush().map(|()| passed)
            })?;
        }
        Ok(())
    }

    /// Prints what a worker has written outside of calls.
    pub(super) fn stray(&mut self, stray: &Stray) -> io::Result<()> {
        if self.json {
            let text = |captured: &Captured| -> io::Result<String> {
                let said = captured.read_first(PRINTED)?;
                Ok(String::from_utf8_lossy(&said).into_owned())
            };
            let source = match stray.source {
                StraySource::Initializer => "initializer",
                _ => "exit",
            };
            let object = json!({
                "v": 1, "outside": source, "worker": stray.slot, "pid": stray.worker,
                "stdout": text(&stray.stdout)?, "stderr": text(&stray.stderr)?,
            });
            return self.line(&object.to_string());
        }
        let mut streamed = Streamed::default();
        self.pass_on(&stray.stdout, &stray.stderr, &mut streamed, None, Part::All)?;
        match streamed.torn {
            true => self.stdout.write_all(b"\n"),
            false => Ok(()),
        }
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.write_all(b"\n")
    }
}

fn write_tag(to: &mut impl Write, tag: &[u8]) -> io::Result<()> {
    to.write_all(tag)?;
    to.write_all(b"\t")
}

/// A stream whose errors are ignored: if stderr is gone, nobody is left to tell.
struct Deaf<W>(W);

impl<W: Write> Write for Deaf<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// How much of a call's output is to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All, because the call has ended.
    All,
    /// All that is there. The rest comes later.
    SoFar,
    /// The whole lines of what is there.
    WholeLines,
}

/// Writes lines to a stream, with a tag in front of each if there is one.
struct Lines<'w, W> {
    to: &'w mut W,
    tag: Option<&'w [u8]>,
    /// The beginning of a line that is not whole yet, if only whole lines are wanted.
    begun: Option<Vec<u8>>,
    at_start: bool,
    /// How many bytes have been passed on.
    passed: u64,
}

impl<'w, W: Write> Lines<'w, W> {
    fn new(to: &'w mut W, tag: Option<&'w [u8]>, whole: bool) -> Self {
        Lines {
            to,
            tag,
            begun: whole.then(Vec::new),
            at_start: true,
            passed: 0,
        }
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.passed += bytes.len() as u64;
        let Some(tag) = self.tag else {
            self.at_start = bytes.last().map_or(self.at_start, |last| *last == b'\n');
            return self.to.write_all(bytes);
        };
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_start {
                write_tag(self.to, tag)?;
            }
            self.to.write_all(line)?;
            self.at_start = line.ends_with(b"\n");
        }
        Ok(())
    }
}

impl<W: Write> Write for Lines<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut begun) = self.begun.take() else {
            self.pass(bytes)?;
            return Ok(bytes.len());
        };
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                begun.extend(&bytes[..=last]);
                self.pass(&begun)?;
                begun.clear();
                begun.extend(&bytes[last + 1..]);
            }
            None => begun.extend(bytes),
        }
        // A line of any length must not fill our memory.
        if begun.len() > LONGEST {
            self.pass(&begun)?;
            begun.clear();
        }
        self.begun = Some(begun);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
