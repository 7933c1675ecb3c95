//! Forwards what calls have printed to this program's own stdout and stderr, in whole lines.

use std::io::{self, Write};

use worker::private::patient::Patient;

use super::printed::{Captured, Printed};

/// A line that is longer than this is passed on in parts, in bytes.
const LONGEST: usize = 1 << 20;

/// Forwards what the calls of one map have printed, in the order in which it is given, in whole
/// lines: the beginning of a line waits for its end, which may come with a later call.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    stdout: Lines,
    stderr: Lines,
}

impl Forwarder {
    pub(crate) fn forward(&mut self, printed: &Printed) {
        self.stdout
            .forward(&printed.stdout, &mut Patient(io::stdout()));
        self.stderr
            .forward(&printed.stderr, &mut Patient(io::stderr()));
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stdout.finish(&mut Patient(io::stdout()));
        self.stderr.finish(&mut Patient(io::stderr()));
    }
}

#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn forward(&mut self, captured: &Captured, to: &mut dyn Write) {
        if captured.is_empty() {
            return;
        }
        let mut splitter = Splitter {
            begun: &mut self.begun,
            to,
        };
        if let Err(error) = captured.copy_to(&mut splitter).and_then(|()| to.flush()) {
            log::warn!("what a task has printed could not be forwarded: {error}");
        }
    }

    fn finish(&mut self, to: &mut dyn Write) {
        if !self.begun.is_empty() {
            // Whoever closed our stdout does not want it.
            let _ = to
                .write_all(&std::mem::take(&mut self.begun))
                .and_then(|()| to.flush());
        }
    }
}

/// Passes whole lines on, each piece in one write, and keeps what is behind the last of them.
struct Splitter<'l> {
    begun: &'l mut Vec<u8>,
    to: &'l mut dyn Write,
}

impl Write for Splitter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                self.begun.extend(&bytes[..=last]);
                self.to.write_all(self.begun)?;
                self.begun.clear();
                self.begun.extend(&bytes[last + 1..]);
            }
            None => self.begun.extend(bytes),
        }
        // Whoever writes lines of any length must not have us keep them.
        if self.begun.len() > LONGEST {
            self.to.write_all(self.begun)?;
            self.begun.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
