//! Reads the lines of a file that others wrote. A line may have any length.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use super::complain;

/// The longest line that is kept, in bytes. Longer lines are skipped.
const LONGEST: u64 = 64 << 20;

/// How long reading may take before a message says so. The next message comes after twice as long.
const SILENT: Duration = Duration::from_secs(2);

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RawLine<'l> {
    /// A line with its newline, which only the last line may lack.
    Whole(&'l [u8]),
    TooLong,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    longest: u64,
    /// How many bytes of the file have been read.
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
        // The beginning of a line too long is of no use, so its memory is freed.
        self.line = Vec::new();
        Ok(Some(RawLine::TooLong))
    }

    pub(super) fn read(&self) -> u64 {
        self.read
    }
}

/// Reports how far a file has been read, if that takes long.
#[derive(Debug)]
pub(super) struct ReadingTime<'p> {
    path: &'p Path,
    size: u64,
    began: Instant,
    /// When the next message comes, counted from the beginning.
    silent: Duration,
}

impl<'p> ReadingTime<'p> {
    /// Begins to measure the time of reading.
    pub(super) fn new(path: &'p Path, size: u64) -> Self {
        ReadingTime {
            path,
            size,
            began: Instant::now(),
            silent: SILENT,
        }
    }

    /// Notes how many bytes have been read, and reports it if it is time.
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
