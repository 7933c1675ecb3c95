//! How much the worker's calls have printed.

use std::io::Write;

use crate::os::{self, Tail};

/// How long the files behind stdout and stderr are, in bytes; 0 for what is no file (a terminal,
/// when the worker was started by hand).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

/// Watches the files behind stdout and stderr grow.
#[derive(Debug)]
pub(crate) struct Watch {
    stdout: Tail,
    stderr: Tail,
    /// Something was ever printed.
    has_printed: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Watch {
            stdout: Tail::new(std::io::stdout()),
            stderr: Tail::new(std::io::stderr()),
            has_printed: false,
        }
    }

    /// How long the files are, if a call has printed anything since the last time. Brings what was
    /// printed into the files first, whoever printed it.
    ///
    /// With `in_passing` it leaves in Rust's buffer what has not come to the end of a line: looking there
    /// takes a lock, which costs as much as a very short call. Then the part of a line is found with a
    /// later call, after which nothing is done in passing any more.
    #[inline]
    pub(crate) fn look(&mut self, in_passing: bool) -> Option<Printed> {
        if !in_passing || self.has_printed {
            flush();
        } else {
            os::flush_c_stdout();
        }
        if !self.stdout.has_grown() && !self.stderr.has_grown() {
            return None;
        }
        Some(self.look_at_growth())
    }

    #[cold]
    fn look_at_growth(&mut self) -> Printed {
        flush();
        self.has_printed = true;
        self.measure()
    }

    /// As [`look`](Self::look), and sees everything, where a look may miss output that begins with
    /// zeros, and what C code writes by streams of its own.
    pub(crate) fn look_closely(&mut self) -> Option<Printed> {
        flush();
        os::flush_c_streams();
        let before = (self.stdout.len(), self.stderr.len());
        let now = self.measure();
        let grown = before != (now.stdout, now.stderr);
        self.has_printed |= grown;
        grown.then_some(now)
    }

    /// How long the files are.
    pub(crate) fn measure(&mut self) -> Printed {
        Printed {
            stdout: self.stdout.measure(),
            stderr: self.stderr.measure(),
        }
    }
}

pub(crate) fn flush() {
    // A failing flush (a full disk) has no one to report to that would not print, too.
    let _ = std::io::stdout().flush();
    os::flush_c_stdout();
}
