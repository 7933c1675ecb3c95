//! The sources of a run's inputs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{FileType, Stat};
use worker::builtin::Patient;

use super::args::{self, Options};
use super::{Trouble, complain};

/// Inputs as bytes, one after another. Nothing is read before it is asked for.
pub(super) enum Source {
    Words(std::vec::IntoIter<OsString>),
    Lines {
        reader: BufReader<Box<dyn Read + Send>>,
        end: u8,
        name: String,
        /// Whether reading has failed.
        broken: bool,
    },
}

impl Source {
    /// The inputs that the command line names.
    pub(super) fn new(options: &Options, words: Option<Vec<OsString>>) -> Result<Self, Trouble> {
        if let Some(words) = words {
            return Ok(Source::Words(words.into_iter()));
        }
        let end = if options.null { 0 } else { b'\n' };
        let file = options
            .input
            .as_deref()
            .filter(|path| *path != Path::new("-"));
        if let Some(path) = file {
            let name = path.display().to_string();
            let unreadable =
                |error| Trouble::Usage(format!("the inputs in {name} can't be read: {error}"));
            let file = File::open(path).map_err(unreadable)?;
            if file.metadata().map_err(unreadable)?.is_dir() {
                return Err(unreadable(io::ErrorKind::IsADirectory.into()));
            }
            return Ok(Source::Lines {
                reader: BufReader::new(Box::new(file)),
                end,
                name,
                broken: false,
            });
        }
        if io::stdin().is_terminal() && options.input.is_none() {
            return Err(Trouble::Usage(args::no_inputs()));
        }
        let is_directory = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        if rustix::fs::fstat(io::stdin()).is_ok_and(is_directory) {
            return Err(Trouble::Usage(
                "stdin is a directory, and has no inputs: list what is in it, as with find"
                    .to_owned(),
            ));
        }
        let reader = BufReader::new(Box::new(Patient(io::stdin())) as Box<_>);
        Ok(Source::Lines {
            reader,
            end,
            name: "stdin".to_owned(),
            broken: false,
        })
    }
}

impl Source {
    /// The inputs from the command line, which are known before anything runs. `None` for inputs from a stream.
    pub(super) fn known(&self) -> impl Iterator<Item = Vec<u8>> {
        let words = match self {
            Source::Words(words) => words.as_slice(),
            Source::Lines { .. } => &[],
        };
        words.iter().map(|word| word.as_bytes().to_vec())
    }

    /// Whether reading failed before the end of the inputs.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Source::Lines { broken: true, .. })
    }

    /// Whether the next input is here already, so that taking it does not block.
    pub(super) fn is_at_hand(&self) -> bool {
        match self {
            Source::Words(words) => words.len() > 0,
            Source::Lines { reader, end, .. } => reader.buffer().contains(end),
        }
    }
}

impl Iterator for Source {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Source::Words(words) => words.next().map(OsString::into_vec),
            Source::Lines {
                reader,
                end,
                name,
                broken,
            } => {
                let mut line = Vec::new();
                match reader.read_until(*end, &mut line) {
                    Ok(0) => None,
                    Ok(_) => {
                        // The last line may have no newline.
                        if line.last() == Some(end) {
                            line.pop();
                        }
                        Some(line)
                    }
                    Err(error) => {
                        *broken = true;
                        complain(&format!(
                            "reading the inputs from {name} ended early: {error}"
                        ));
                        None
                    }
                }
            }
        }
    }
}
