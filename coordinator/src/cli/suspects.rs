//! Which answers of a pipe's processes may belong to other inputs.
//!
//! A process that has written a line too many answers each input with what was meant for the one before. That shows only
//! when a line is there that nobody has asked for: then all that the process has answered so far is suspect.

use std::collections::HashMap;

use worker::builtin::{is_harmless, is_out_of_step};

use super::outcome::Outcome;
use super::status::Status;

/// Inputs by number, from one to another.
pub(super) type Range = (u64, u64);

/// What each worker's process has answered.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    answered: HashMap<u32, Vec<Range>>,
}

impl Suspects {
    /// An attempt has ended. Returns what is suspect because of it.
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
        // Another process comes in any case.
        let answered = self.answered.remove(&pid).unwrap_or_default();
        match is_out_of_step(why) {
            true => answered,
            false => Vec::new(),
        }
    }

    /// What a worker has said at its end.
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

/// How many inputs these are.
pub(super) fn count(ranges: &[Range]) -> u64 {
    ranges.iter().map(|(first, last)| last - first + 1).sum()
}

/// As a person reads them: `1 to 5, 8`. No more than some of them.
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
