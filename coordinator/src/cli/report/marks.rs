//! Finds which attempts belong to the same call, and how each call ended. It keeps only a few bytes of each attempt, so a log
//! may have any length.

use std::collections::HashMap;

use crate::cli::status::Status;

/// The part of an attempt that tells which call it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// A hash of its input, in two halves, so that the struct needs no padding.
    input: [u32; 2],
    /// The number of its line in the log.
    line: u32,
    /// Its number in its run, if it has one.
    seq: u32,
    run: Run,
}

/// A run's number, and the attempt's flags in the lowest bits.
#[derive(Debug, Clone, Copy)]
struct Run(u32);

impl Run {
    const OK: u32 = 1;
    const AGAIN: u32 = 2;
    const RESUMED: u32 = 4;
    const NUMBERED: u32 = 8;
    const BITS: u32 = 4;

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

/// An attempt as the log has it, without what does not tell its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) input: u64,
    pub(super) line: u32,
    pub(super) run: usize,
    pub(super) seq: Option<u64>,
    /// Whether its run skipped earlier successes.
    pub(super) resumed: bool,
    pub(super) status: Status,
    /// Whether the call is tried again.
    pub(super) again: bool,
}

impl Mark {
    pub(super) fn new(at: &At) -> Self {
        let bits = [
            (at.status == Status::Ok, Run::OK),
            (at.again, Run::AGAIN),
            (at.resumed, Run::RESUMED),
            (at.seq.is_some(), Run::NUMBERED),
        ];
        let set = bits.iter().filter(|(is_set, _)| *is_set);
        let bits = set.fold(0, |all, (_, bit)| all | bit);
        Mark {
            input: [(at.input >> 32) as u32, at.input as u32],
            line: at.line,
            // Beyond 2³² inputs in a run, calls would be confused. Such a log would have a thousand million kilobytes.
            seq: at.seq.unwrap_or(0) as u32,
            // Of more than 2²⁸ runs likewise.
            run: Run((at.run as u32) << Run::BITS | bits),
        }
    }

    pub(super) fn line(&self) -> u32 {
        self.line
    }
}

/// How the calls ended, by the last attempt at each in the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) total: usize,
    pub(super) ok: usize,
    /// The lines of the last attempts at failed calls, in the order of the log.
    pub(super) failed: Vec<u32>,
    /// How many calls were waiting for a retry when the log ended.
    pub(super) unfinished: usize,
}

impl Calls {
    /// Sorts the marks by input, and follows each input's attempts.
    pub(super) fn new(marks: &mut [Mark]) -> Self {
        let mut calls = Calls::default();
        marks.sort_unstable_by_key(|mark| (mark.input, mark.line));
        for of_input in marks.chunk_by(|one, other| one.input == other.input) {
            match of_input {
                [only] => calls.add(only),
                several => {
                    for last in last_attempts(several) {
                        calls.add(&last);
                    }
                }
            }
        }
        calls.failed.sort_unstable();
        calls
    }

    fn add(&mut self, last: &Mark) {
        self.total += 1;
        if last.run.has(Run::OK) {
            self.ok += 1;
        } else if last.run.has(Run::AGAIN) {
            self.unfinished += 1;
        } else {
            self.failed.push(last.line);
        }
    }
}

/// The last attempt at each call with one input. An input may occur in a run more than once. Its first occurrence is the
/// first call with it, or in a resumed run the first such call that had not succeeded.
fn last_attempts(of_input: &[Mark]) -> Vec<Mark> {
    // For each call the last attempt, and whether the call has succeeded.
    let mut known: Vec<(Mark, bool)> = Vec::new();
    // Which of these calls a number in a run stands for, and how many of them have a number in the current run.
    let mut of_run: HashMap<(u32, u32), usize> = HashMap::new();
    let mut next: HashMap<u32, usize> = HashMap::new();
    for mark in of_input {
        let run = mark.run.0 >> Run::BITS;
        let seq = match mark.run.has(Run::NUMBERED) {
            true => mark.seq,
            false => u32::MAX,
        };
        let place = *of_run.entry((run, seq)).or_insert_with(|| {
            let next = next.entry(run).or_default();
            while mark.run.has(Run::RESUMED) && known.get(*next).is_some_and(|(_, ok)| *ok) {
                *next += 1;
            }
            *next += 1;
            *next - 1
        });
        let ok = mark.run.has(Run::OK);
        match known.get_mut(place) {
            Some((last, was_ok)) => (*last, *was_ok) = (*mark, *was_ok || ok),
            None => known.push((*mark, ok)),
        }
    }
    known.into_iter().map(|(last, _)| last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run, whether it resumes, number, and whether it succeeded.
    fn calls(attempts: &[(usize, bool, u64, bool)]) -> Calls {
        let mark = |(line, (run, resumed, seq, ok)): (usize, &(usize, bool, u64, bool))| {
            Mark::new(&At {
                input: 7,
                line: line as u32,
                run: *run,
                seq: Some(*seq),
                resumed: *resumed,
                status: if *ok { Status::Ok } else { Status::Failed },
                again: false,
            })
        };
        let mut marks: Vec<Mark> = attempts.iter().enumerate().map(mark).collect();
        Calls::new(&mut marks)
    }

    #[test]
    fn a_resumed_call_is_the_same_call() {
        let first = [(1, false, 5, true), (1, false, 6, false)];
        let again = [(2, true, 1, false), (2, true, 1, true)];
        let both = calls(&[&first[..], &again].concat());
        assert_eq!((both.total, both.ok), (2, 2));
        // A third call, where two had succeeded.
        let third = calls(&[&first[..], &again, &[(3, true, 3, false)]].concat());
        assert_eq!((third.total, third.ok), (3, 2));
        assert_eq!(third.failed, [4]);
        // A run from the start repeats each of the calls: the first fails now.
        let anew = [(2, false, 1, false), (2, false, 2, true)];
        let anew = calls(&[&first[..], &anew].concat());
        assert_eq!((anew.total, anew.ok), (2, 1));
        assert_eq!(anew.failed, [2]);
    }
}
