//! The lines of a file that others wrote, however long they are.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use super::complain;

/// The longest line that is kept, in bytes. One that is longer is passed over.
const LONGEST: u64 = 64 << 20;

/// How long reading may take before something is said of it, and again after twice as long.
const SILENT: Duration = Duration::from_secs(2);

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RawLine<'l> {
    /// With its newline, unless it is the last and has none.
    Whole(&'l [u8]),
    TooLong,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    longest: u64,
    /// How many bytes of the file were read.
    read: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Lines {
            reader,
            line: Vec::new(),
            longest: LONGEST,
            read: 0,
        }
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.line.clear();
        let mut reader = (&mut self.reader).take(self.longest);
        let count = reader.read_until(b'\n', &mut self.line)?;
        self.read += count as u64;
        if count == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') || (count as u64) < self.longest {
            return Ok(Some(RawLine::Whole(&self.line)));
        }
        self.read += self.reader.skip_until(b'\n')? as u64;
        // What was read of it is of no use, and need not be kept.
        self.line = Vec::new();
        Ok(Some(RawLine::TooLong))
    }

    pub(super) fn read(&self) -> u64 {
        self.read
    }
}

/// Says how far a file has been read, where that takes long.
#[derive(Debug)]
pub(super) struct ReadingTime<'p> {
    path: &'p Path,
    size: u64,
    began: Instant,
    /// After how long something is said next.
    silent: Duration,
}

impl<'p> ReadingTime<'p> {
    /// Reading begins.
    pub(super) fn new(path: &'p Path, size: u64) -> Self {
        ReadingTime {
            path,
            size,
            began: Instant::now(),
            silent: SILENT,
        }
    }

    /// So many bytes have been read.
    pub(super) fn has_read(&mut self, bytes: u64) {
        if self.began.elapsed() > self.silent {
            self.silent *= 2;
            let part = bytes * 100 / self.size.max(1);
            complain(&format!("reading {}: {part} %", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let text = b"ab\n1234567\n12345678\n\nend";
        for capacity in 1..30 {
            let mut lines = Lines::new(io::BufReader::with_capacity(capacity, &text[..]));
            lines.longest = 8;
            assert_eq!(lines.next().unwrap(), Some(RawLine::Whole(b"ab\n")));
            assert_eq!(lines.next().unwrap(), Some(RawLine::Whole(b"1234567\n")));
            assert_eq!(lines.next().unwrap(), Some(RawLine::TooLong));
            assert_eq!(lines.next().unwrap(), Some(RawLine::Whole(b"\n")));
            assert_eq!(lines.next().unwrap(), Some(RawLine::Whole(b"end")));
            assert_eq!(lines.next().unwrap(), None);
            assert_eq!(lines.read(), text.len() as u64);
        }
    }
}
