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
}

impl Watch {
    pub(crate) fn new() -> Self {
        Watch {
            stdout: Tail::new(std::io::stdout()),
            stderr: Tail::new(std::io::stderr()),
        }
    }

    /// How long the files are, if a call has printed anything since the last time. Brings what was
    /// printed into the files first, whoever printed it.
    pub(crate) fn look(&mut self) -> Option<Printed> {
        flush();
        (self.stdout.has_grown() || self.stderr.has_grown()).then(|| self.measure())
    }

    /// As [`look`](Self::look), and sees everything, where a look may miss output that begins with
    /// zeros, and what C code writes by streams of its own.
    pub(crate) fn look_closely(&mut self) -> Option<Printed> {
        flush();
        os::flush_c_streams();
        let before = (self.stdout.len(), self.stderr.len());
        let now = self.measure();
        (before != (now.stdout, now.stderr)).then_some(now)
    }

    /// How long the files are.
    pub(crate) fn measure(&mut self) -> Printed {
        Printed {
            stdout: self.stdout.measure(),
            stderr: self.stderr.measure(),
        }
    }
}

fn flush() {
    // A failing flush (a full disk) has no one to report to that would not print, too.
    let _ = std::io::stdout().flush();
    os::flush_c_stdout();
}
