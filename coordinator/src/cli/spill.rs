//! Keeps the results of calls that can't be printed yet, because calls before them still run: in memory, and beyond a
//! limit in a file without a name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::outcome::Outcome;

/// The most bytes of results that wait in memory.
const HELD: usize = 16 << 20;

/// A call that has ended and is not printed yet.
pub(super) enum Waiting {
    /// There is nothing to print.
    Nothing,
    Outcome(Box<Outcome>),
    /// A call whose result is in the file.
    Spilled(Box<Outcome>, Place),
}

/// The file with results that are too many for memory.
#[derive(Default)]
pub(super) struct Spill {
    held: usize,
    file: Option<File>,
    /// The length of the file, and how many of its results are still wanted.
    end: u64,
    wanted: u64,
}

/// A place in the file.
pub(super) struct Place {
    start: u64,
    len: usize,
}

impl Spill {
    /// Keeps an ended call until the calls before it are printed.
    pub(super) fn hold(&mut self, outcome: Outcome) -> io::Result<Waiting> {
        self.try_hold(outcome).map_err(|error| {
            io::Error::other(format!(
                "results that wait for others can't be kept in a temporary file: {error}"
            ))
        })
    }

    fn try_hold(&mut self, mut outcome: Outcome) -> io::Result<Waiting> {
        let len = outcome.value.len();
        if self.held + len <= HELD {
            self.held += len;
            return Ok(Waiting::Outcome(Box::new(outcome)));
        }
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.seek(SeekFrom::Start(self.end))?;
        file.write_all(&std::mem::take(&mut outcome.value))?;
        let start = self.end;
        self.end += len as u64;
        self.wanted += 1;
        Ok(Waiting::Spilled(Box::new(outcome), Place { start, len }))
    }

    /// Returns a kept call.
    pub(super) fn release(&mut self, waiting: Waiting) -> io::Result<Option<Outcome>> {
        let (mut outcome, place) = match waiting {
            Waiting::Nothing => return Ok(None),
            Waiting::Outcome(outcome) => {
                self.held -= outcome.value.len();
                return Ok(Some(*outcome));
            }
            Waiting::Spilled(outcome, place) => (outcome, place),
        };
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        outcome.value.resize(place.len, 0);
        file.seek(SeekFrom::Start(place.start))?;
        file.read_exact(&mut outcome.value)?;
        self.wanted -= 1;
        if self.wanted == 0 {
            // No result in the file is wanted any more, so its space is freed.
            file.set_len(0)?;
            self.end = 0;
        }
        Ok(Some(*outcome))
    }
}
