//! Reads what calls have printed, several calls at once.

use std::io::{self, Write};
use std::sync::{Arc, Weak};

use super::printed::{Captured, OutputFile};

/// How much is read at once, in bytes. A call that has printed more is read by itself.
const AHEAD: usize = 4 << 10;

/// What was read of a worker's file, and may be of its next calls, too: the file only grows.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    of: Weak<OutputFile>,
    /// Where it begins in the file.
    from: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Copies what a call has printed.
    pub(super) fn copy(&mut self, captured: &Captured, to: &mut dyn Write) -> io::Result<()> {
        let Some((file, range)) = captured.place() else {
            return captured.copy_to(to);
        };
        let Ok(len @ ..=AHEAD) = usize::try_from(range.end - range.start) else {
            return captured.copy_to(to);
        };
        if let Some(bytes) = self.find(file, range.start, len) {
            return to.write_all(bytes);
        }
        self.of = Weak::new();
        self.bytes.resize(AHEAD, 0);
        let read = file.read_at(&mut self.bytes, range.start)?;
        self.bytes.truncate(read);
        (self.of, self.from) = (Arc::downgrade(file), range.start);
        match self.find(file, range.start, len) {
            Some(bytes) => to.write_all(bytes),
            // A worker that claimed more than there is, or a read that a signal has cut short.
            None => captured.copy_to(to),
        }
    }

    fn find(&self, file: &Arc<OutputFile>, at: u64, len: usize) -> Option<&[u8]> {
        if !std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(file)) {
            return None;
        }
        let skip = usize::try_from(at.checked_sub(self.from)?).ok()?;
        self.bytes.get(skip..)?.get(..len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::super::printed::OutputFiles;
    use super::*;

    #[test]
    fn each_call_gets_its_own_whoever_printed_before() {
        let (one, other) = (OutputFiles::new().unwrap(), OutputFiles::new().unwrap());
        let mut ahead = Ahead::default();
        let mut calls = Vec::new();
        for call in 0..3000_usize {
            let files = if call % 7 < 4 { &one } else { &other };
            let text = format!("{call}{}", "x".repeat(call * call % 9000));
            let (file, _) = OutputFiles::streams(Some(files)).unwrap();
            (&file).write_all(text.as_bytes()).unwrap();
            calls.push((files.rest().stdout, text));
            // Some are read as soon as they are there, and others when more is behind them.
            if call % 5 == 0 {
                for (captured, text) in calls.drain(..) {
                    let mut read = Vec::new();
                    ahead.copy(&captured, &mut read).unwrap();
                    assert!(read == text.as_bytes(), "of call {call}");
                }
            }
        }
    }
}
