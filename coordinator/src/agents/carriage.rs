//! What travels with a lease: inputs, and the values that they refer to; and what comes back in a report.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use protocol::agent::{self, Ending, Values};
use protocol::parcel::{Owned, Parcel};

use super::bulk::{Content, Fetched};
use crate::error::{Death, Why};
use crate::payload::printed::{Captured, Printed};
use crate::payload::spool::Spool;
use crate::payload::{self, EncodedInputs, Payload};
use crate::scheduler::Part;

/// The inputs of a lease, one behind the other, where they are.
pub(crate) struct Inputs(pub(crate) Vec<Part<EncodedInputs>>);

impl Inputs {
    /// All of them.
    pub(crate) fn join(&self) -> Vec<u8> {
        let pieces = self
            .0
            .iter()
            .map(|part| part.inputs.piece(part.at, part.count));
        pieces.fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(&piece);
            all
        })
    }

    fn size(part: &Part<EncodedInputs>) -> u64 {
        part.inputs.piece(part.at, part.count).len() as u64
    }
}

impl Content for Inputs {
    fn len(&self) -> u64 {
        self.0.iter().map(Self::size).sum()
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        let mut begins = 0;
        for part in &self.0 {
            let size = Self::size(part);
            let wanted = at + bytes.len() as u64;
            if bytes.len() < len && (begins..begins + size).contains(&wanted) {
                let piece = part.inputs.piece(part.at, part.count);
                // An input is in memory, so its length fits.
                let from = (wanted - begins) as usize;
                let to = piece.len().min(from + len - bytes.len());
                bytes.extend_from_slice(&piece[from..to]);
            }
            begins += size;
        }
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// What one call has returned and printed, one behind the other.
pub(crate) struct Told<V> {
    pub(crate) value: V,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

impl<V: Deref<Target = [u8]> + Send + Sync> Content for Told<V> {
    fn len(&self) -> u64 {
        self.value.len() as u64 + self.stdout.len() + self.stderr.len()
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let value = self.value.len() as u64;
        let mut bytes = Vec::with_capacity(len);
        if at < value {
            let from = at as usize;
            let to = self.value.len().min(from + len);
            bytes.extend_from_slice(&self.value[from..to]);
        }
        for (begins, captured) in [
            (value, &self.stdout),
            (value + self.stdout.len(), &self.stderr),
        ] {
            let wanted = at + bytes.len() as u64;
            let missing = (len - bytes.len()) as u64;
            if missing > 0 && (begins..begins + captured.len()).contains(&wanted) {
                bytes.extend(captured.part(wanted - begins, missing)?);
            }
        }
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// How much of what a call says of its end goes along with that, in bytes: of each text, so that all of them fit into a message.
const MOST_TEXT: usize = 48 << 10;

/// A text as it travels: one that is long is cut off.
fn text(mut text: String) -> String {
    if text.len() <= MOST_TEXT {
        return text;
    }
    let end = (0..=MOST_TEXT).rev().find(|at| text.is_char_boundary(*at));
    let end = end.unwrap_or(0);
    let left = text.len() - end;
    text.truncate(end);
    text.push_str(&format!(" … and {left} bytes more"));
    text
}

/// How a call ended, as agents say it.
pub(crate) fn ending(result: Result<(), Why>) -> Ending {
    match result {
        Ok(()) => Ending::Value,
        Err(Why::Failed(why)) => Ending::Failed(text(why)),
        Err(Why::Panicked {
            message,
            location,
            backtrace,
        }) => Ending::Panicked(protocol::message::Panic {
            message: text(message),
            location: text(location),
            backtrace: text(backtrace),
        }),
        Err(Why::Died(Death::Exit(code))) => Ending::Exited(code),
        Err(Why::Died(Death::Signal(number))) => Ending::Killed(number),
        Err(Why::Died(Death::Unknown | Death::Machine)) => Ending::Vanished,
        Err(Why::TimedOut(limit)) => Ending::TimedOut(nanos(limit)),
        Err(Why::OutOfMemory { limit }) => Ending::OutOfMemory(limit),
        Err(Why::Cancelled) => Ending::Cancelled,
        Err(Why::Undecodable(why)) => Ending::Undecodable(text(why)),
    }
}

/// The same, as callers hear it.
pub(crate) fn result(ending: Ending) -> Result<(), Why> {
    Err(match ending {
        Ending::Value => return Ok(()),
        Ending::Failed(text) => Why::Failed(text),
        Ending::Panicked(panic) => Why::Panicked {
            message: panic.message,
            location: panic.location,
            backtrace: panic.backtrace,
        },
        Ending::Undecodable(text) => Why::Undecodable(text),
        Ending::Exited(code) => Why::Died(Death::Exit(code)),
        Ending::Killed(number) => Why::Died(Death::Signal(number)),
        Ending::Vanished => Why::Died(Death::Unknown),
        Ending::TimedOut(limit) => Why::TimedOut(std::time::Duration::from_nanos(limit)),
        Ending::OutOfMemory(limit) => Why::OutOfMemory { limit },
        Ending::Cancelled => Why::Cancelled,
    })
}

/// The payload of a report, taken apart into output, stdout and stderr. Fails if the lengths make no sense.
pub(crate) fn take_apart(
    spool: &mut Spool,
    fetched: Fetched,
    stdout: u64,
    stderr: u64,
) -> Result<(Payload, Printed), String> {
    let wrong = || "lengths that do not add up".to_owned();
    let cannot = |error: io::Error| format!("what was printed can't be kept: {error}");
    let printed = stdout.checked_add(stderr).ok_or_else(wrong)?;
    match fetched {
        Fetched::Memory(mut bytes) => {
            let printed = usize::try_from(printed).map_err(|_| wrong())?;
            let value = bytes.len().checked_sub(printed).ok_or_else(wrong)?;
            let both = bytes.split_off(value);
            // No longer than both together.
            let (stdout, stderr) = both.split_at(stdout as usize);
            let printed = Printed {
                stdout: spool.keep(stdout).map_err(cannot)?,
                stderr: spool.keep(stderr).map_err(cannot)?,
            };
            Ok((whole(bytes), printed))
        }
        Fetched::Named(_) => Err("it was put somewhere else".to_owned()),
        Fetched::File(file, len) => {
            let value = len.checked_sub(printed).ok_or_else(wrong)?;
            let bytes = beginning(&file, value).map_err(|error| {
                format!("an output of {value} bytes can't be kept in memory: {error}")
            })?;
            let between = value + stdout;
            let both = spool.keep_both(file, value..between, between..len);
            let (stdout, stderr) = both.map_err(cannot)?;
            Ok((whole(bytes), Printed { stdout, stderr }))
        }
    }
}

fn whole(bytes: Vec<u8>) -> Payload {
    Payload::from(Parcel::Whole(Owned::new(bytes)))
}

fn beginning(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The most calls that one lease may have.
pub(crate) const MOST_CALLS: u64 = 1 << 18;

/// The outputs of a report, for each of its parts. Fails if the lengths make no sense, or if they are of more calls than `most`:
/// it costs an agent nothing to claim a great many.
pub(crate) fn values(
    parts: Vec<Values>,
    payload: &[u8],
    most: u64,
) -> Result<Vec<(Values, Arc<payload::Values>)>, String> {
    let wrong = || "lengths that do not add up".to_owned();
    let mut rest = payload;
    let mut all = Vec::new();
    let counts = parts.iter().map(|part| part.lens.count());
    if counts.fold(0, u64::saturating_add) > most {
        return Err(format!(
            "values of more calls than its lease has, which are {most}"
        ));
    }
    for part in parts {
        let count = part.lens.count();
        if count == 0 || count != part.nanos.count() {
            return Err(wrong());
        }
        let len = usize::try_from(part.lens.sum()).map_err(|_| wrong())?;
        let (ours, others) = rest.split_at_checked(len).ok_or_else(wrong)?;
        rest = others;
        let (lens, nanos) = (part.lens.to_vec(), part.nanos.to_vec());
        let values = payload::Values::new(part.first, lens, nanos, whole(ours.to_vec()))?;
        all.push((part, Arc::new(values)));
    }
    match rest.is_empty() {
        true => Ok(all),
        false => Err(wrong()),
    }
}

/// The largest payload that a message carries itself.
pub(crate) fn fits(len: u64) -> bool {
    len <= agent::MOST_PAYLOAD as u64
}

/// A duration as messages have it.
pub(crate) fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use protocol::message::Runs;

    use super::*;

    fn part(first: u64, lens: &[u32]) -> Values {
        Values {
            first,
            lens: lens.iter().copied().collect(),
            nanos: lens.iter().map(|_| 1).collect(),
            slot: 1,
            worker: 1,
        }
    }

    #[test]
    fn values_are_of_no_more_calls_than_a_lease_has() {
        let parts = || vec![part(0, &[1, 2]), part(5, &[0])];
        assert_eq!(values(parts(), b"abc", 3).unwrap().len(), 2);
        assert!(values(parts(), b"abc", 2).is_err());
        assert!(values(parts(), b"abcd", 3).is_err());
        // A message of half a megabyte may claim this.
        let many: Runs = std::iter::repeat_n(0, 1 << 18).collect();
        let claim = Values {
            lens: many.clone(),
            nanos: many,
            ..part(0, &[])
        };
        assert!(values(vec![claim; 25_000], b"", MOST_CALLS).is_err());
    }

    #[test]
    fn what_a_call_says_of_its_end_fits_into_a_message() {
        let long = |of: &str| of.repeat(1 << 20);
        let ends = [
            Why::Failed(long("x")),
            Why::Undecodable(long("ü")),
            Why::Panicked {
                message: long("aü"),
                location: long("€"),
                backtrace: long("b"),
            },
        ];
        for why in ends {
            let ending = ending(Err(why));
            assert!(agent::fits(&ending, agent::MOST_PAYLOAD as u64));
            assert!(format!("{ending:?}").contains("bytes more"));
        }
        let short = Err(Why::Failed("no".to_owned()));
        assert_eq!(ending(short), Ending::Failed("no".to_owned()));
    }
}
