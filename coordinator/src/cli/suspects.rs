//! Finds answers of a `pipe`'s processes that may belong to other inputs.
//!
//! After a line too many, a process answers each input with the answer to the input before. That shows only
//! when a line arrives that nobody has asked for. Then all answers of that process so far are suspect.

use std::collections::HashMap;

use worker::builtin::{is_harmless, is_out_of_step};

use super::outcome::Outcome;
use super::status::Status;

/// A range of inputs by number.
pub(super) type Range = (u64, u64);

/// The inputs that each worker's process has answered.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    answered: HashMap<u32, Vec<Range>>,
}

impl Suspects {
    /// Notes that an attempt has ended. Returns the inputs that are suspect because of it.
    pub(super) fn note(&mut self, outcome: &Outcome) -> Vec<Range> {
        let Some(pid) = outcome.pid else {
            return Vec::new();
        };
        if outcome.status == Status::Ok {
            add(self.answered.entry(pid).or_default(), outcome.seq);
            return Vec::new();
        }
        let why = outcome.error.as_deref().unwrap_or_default();
        if is_harmless(why) {
            return Vec::new();
        }
        // The worker starts a new process in any case.
        let answered = self.answered.remove(&pid).unwrap_or_default();
        match is_out_of_step(why) {
            true => answered,
            false => Vec::new(),
        }
    }

    /// Notes the last words of a worker on stderr. Returns the inputs that are suspect because of them.
    pub(super) fn note_end(&mut self, pid: u32, said: &str) -> Vec<Range> {
        match is_out_of_step(said) {
            true => self.answered.remove(&pid).unwrap_or_default(),
            false => Vec::new(),
        }
    }
}

fn add(ranges: &mut Vec<Range>, seq: u64) {
    match ranges.last_mut() {
        Some((_, last)) if *last + 1 == seq => *last = seq,
        _ => ranges.push((seq, seq)),
    }
}

/// The number of inputs in these ranges.
pub(super) fn count(ranges: &[Range]) -> u64 {
    ranges.iter().map(|(first, last)| last - first + 1).sum()
}

/// The ranges as a person reads them: `1 to 5, 8`. A long list is cut.
pub(super) fn shown(ranges: &[Range]) -> String {
    const SHOWN: usize = 10;
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let one = |(first, last): &Range| match last - first {
        0 => first.to_string(),
        _ => format!("{first} to {last}"),
    };
    let shown: Vec<_> = sorted.iter().take(SHOWN).map(one).collect();
    let more = match ranges.len() > SHOWN {
        true => ", and others",
        false => "",
    };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_gathered_and_shown() {
        let mut ranges = Vec::new();
        [8, 1, 2, 3].iter().for_each(|seq| add(&mut ranges, *seq));
        assert_eq!(ranges, [(8, 8), (1, 3)]);
        assert_eq!(count(&ranges), 4);
        assert_eq!(shown(&ranges), "1 to 3, 8");
    }
}
