//! Forwards what calls have printed to this program's own stdout and stderr, in whole lines.

use std::io::{self, Write};

use worker::private::patient::Patient;

use super::ahead::Ahead;
use super::printed::{Captured, Printed};

/// A line that is longer than this is passed on in parts, in bytes.
const LONGEST: usize = 1 << 20;
/// How much a [holding](Forwarder::hold) forwarder holds back at most, in bytes.
const HELD: usize = 32 << 10;

/// Forwards what the calls of one map have printed, in the order in which it is given, in whole
/// lines: the beginning of a line waits for its end, which may come with a later call.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    stdout: Lines,
    stderr: Lines,
}

impl Forwarder {
    /// Whether to hold lines back from now on, until it is told to [pass them on](Self::pass_on) or has many.
    pub(crate) fn hold(&mut self, holds: bool) {
        self.stdout.holds = holds;
        self.stderr.holds = holds;
    }

    pub(crate) fn has_held(&self) -> bool {
        self.stdout.whole > 0 || self.stderr.whole > 0
    }

    pub(crate) fn forward(&mut self, printed: &Printed) {
        // Both may be the same terminal, so lines keep their order.
        if !printed.stdout.is_empty() {
            self.stderr.pass_on(&mut stderr());
            self.stdout.forward(&printed.stdout, &mut stdout());
        }
        if !printed.stderr.is_empty() {
            self.stdout.pass_on(&mut stdout());
            self.stderr.forward(&printed.stderr, &mut stderr());
        }
    }

    /// Passes on what was held back.
    pub(crate) fn pass_on(&mut self) {
        self.stdout.pass_on(&mut stdout());
        self.stderr.pass_on(&mut stderr());
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stdout.finish(&mut stdout());
        self.stderr.finish(&mut stderr());
    }
}

fn stdout() -> impl Write {
    Patient(io::stdout())
}

fn stderr() -> impl Write {
    Patient(io::stderr())
}

#[derive(Debug, Default)]
struct Lines {
    /// Whole lines, and the beginning of one.
    text: Vec<u8>,
    /// How much of that is whole lines, in bytes.
    whole: usize,
    holds: bool,
    ahead: Ahead,
}

impl Lines {
    fn forward(&mut self, captured: &Captured, to: &mut impl Write) {
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut passing = Passing { lines: self, to };
        let copied = ahead.copy(captured, &mut passing);
        self.ahead = ahead;
        tell(copied);
        if !self.holds {
            self.pass_on(to);
        }
    }

    /// Takes some text, and passes on what is too much to be kept.
    fn take(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            self.whole = self.text.len() + last + 1;
        }
        self.text.extend(bytes);
        // Whoever writes lines of any length must not have us keep them.
        if self.text.len() - self.whole > LONGEST {
            self.whole = self.text.len();
        }
        match self.whole >= HELD {
            true => self.write(to),
            false => Ok(()),
        }
    }

    fn pass_on(&mut self, to: &mut impl Write) {
        if self.whole > 0 {
            tell(self.write(to).and_then(|()| to.flush()));
        }
    }

    /// Writes the whole lines. They are gone also if that fails.
    fn write(&mut self, to: &mut impl Write) -> io::Result<()> {
        let written = to.write_all(&self.text[..self.whole]);
        self.text.drain(..self.whole);
        self.whole = 0;
        written
    }

    fn finish(&mut self, to: &mut impl Write) {
        self.whole = self.text.len();
        if self.whole > 0 {
            // Whoever closed our stdout does not want it.
            let _ = self.write(to).and_then(|()| to.flush());
        }
    }
}

fn tell(forwarded: io::Result<()>) {
    if let Err(error) = forwarded {
        log::warn!("what a task has printed could not be forwarded: {error}");
    }
}

/// Text on its way into lines.
struct Passing<'l, W> {
    lines: &'l mut Lines,
    to: &'l mut W,
}

impl<W: Write> Write for Passing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.take(bytes, self.to)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::super::printed::OutputFiles;
    use super::*;

    /// A stream that notes each write.
    #[derive(Default)]
    struct Writes(Vec<String>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(files: &OutputFiles, text: &str) -> Captured {
        let (mut file, _) = OutputFiles::streams(Some(files)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        files.rest().stdout
    }

    #[test]
    fn lines_are_passed_on_whole() {
        let (files, mut lines, mut to) = (
            OutputFiles::new().unwrap(),
            Lines::default(),
            Writes::default(),
        );
        for text in ["one\n", "tw", "o\nthr", "ee", "\n", "end"] {
            lines.forward(&captured(&files, text), &mut to);
        }
        assert_eq!(to.0, ["one\n", "two\n", "three\n"]);
        lines.finish(&mut to);
        assert_eq!(to.0.last().unwrap(), "end");
    }

    #[test]
    fn lines_are_held_back_until_they_are_many_or_wanted() {
        let (files, mut lines, mut to) = (
            OutputFiles::new().unwrap(),
            Lines::default(),
            Writes::default(),
        );
        lines.holds = true;
        for text in ["one\n", "two\nthree"] {
            lines.forward(&captured(&files, text), &mut to);
        }
        assert_eq!(to.0.len(), 0);
        lines.pass_on(&mut to);
        lines.pass_on(&mut to);
        assert_eq!(to.0, ["one\ntwo\n"]);
        lines.forward(&captured(&files, &"x\n".repeat(HELD)), &mut to);
        assert!(to.0.len() > 1);
        lines.forward(&captured(&files, &"x".repeat(LONGEST + 1)), &mut to);
        assert!(lines.text.len() <= LONGEST);
    }
}
