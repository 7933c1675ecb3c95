//! Finds out how much the worker's calls have printed.

use std::io::Write;

use crate::os::{self, Tail};

/// The lengths of the files behind stdout and stderr, in bytes. A stream that is no file (a terminal,
/// when the worker was started by hand) has 0.
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
    /// Whether anything was ever printed.
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

    /// The files' lengths, if a call has printed anything since the last look. It first flushes all buffered output into
    /// the files.
    ///
    /// With `in_passing` it leaves the beginning of a line in Rust's buffer: looking there
    /// takes a lock, which costs as much as a very short call. A later look then finds that part of a line, and from
    /// then on no look is in passing.
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
        for stream in [&mut self.stdout, &mut self.stderr] {
            if stream.has_grown() {
                stream.measure();
            }
        }
        self.seen()
    }

    /// Looks as [`look`](Self::look) does, and misses nothing. A plain look may miss output that begins with
    /// zeros, and output in buffers of C code.
    pub(crate) fn look_closely(&mut self) -> Option<Printed> {
        flush();
        os::flush_c_streams();
        let before = self.seen();
        let now = self.measure();
        let grown = before != now;
        self.has_printed |= grown;
        grown.then_some(now)
    }

    /// The lengths of the files when they were last measured.
    pub(crate) fn seen(&self) -> Printed {
        Printed {
            stdout: self.stdout.len(),
            stderr: self.stderr.len(),
        }
    }

    /// The lengths of the files.
    fn measure(&mut self) -> Printed {
        Printed {
            stdout: self.stdout.measure(),
            stderr: self.stderr.measure(),
        }
    }
}

pub(crate) fn flush() {
    // A failing flush (as on a full disk) can't be reported, because a report would have to print, too.
    let _ = std::io::stdout().flush();
    os::flush_c_stdout();
}
