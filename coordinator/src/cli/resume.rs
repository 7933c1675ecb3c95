//! Reads from a log how often each input has succeeded, for a run that resumes.
//!
//! A log may have millions of lines. Of each input only 128 bits of a hash are kept, whose key nobody knows. The
//! probability that two of ten million inputs have the same hash is less than 10⁻²⁴.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use memchr::memmem::Finder;

use super::lines::{Lines, RawLine, ReadingTime};
use super::log_line::{BEGINNING, Entry, Machines, SUSPECTS};
use super::suspects::Range;
use super::{Trouble, complain};

/// How many bytes of a log are read at once.
const BLOCK: usize = 1 << 20;

/// The hash of an input.
type Key = u128;

/// How often each input has succeeded by the log.
#[derive(Debug, Default)]
pub(super) struct Succeeded {
    hash: Hash,
    /// The inputs' hashes, sorted.
    keys: Vec<Key>,
    /// How often each input may still be skipped.
    times: Vec<u32>,
    /// The last run's machines, if it has not ended what they ran.
    pub(super) left: Option<Left>,
}

/// A run that was killed, and may have left something on other machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// The run, as the machines know it.
    pub(super) run: String,
    pub(super) machines: BTreeSet<String>,
    /// How long each may run calls that nobody ends, if the log says it.
    pub(super) lease: Option<Duration>,
}

#[derive(Debug, Default)]
struct Hash(RandomState, RandomState);

impl Hash {
    fn of(&self, input: &[u8]) -> Key {
        (Key::from(self.0.hash_one(input)) << 64) | Key::from(self.1.hash_one(input))
    }
}

impl Succeeded {
    /// Whether no input has succeeded.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether this input can be skipped. If so, it may be skipped once less from then on.
    pub(super) fn skips(&mut self, input: &[u8]) -> bool {
        let key = self.hash.of(input);
        let Some(place) = self.place(key) else {
            return false;
        };
        let left = &mut self.times[place];
        let skips = *left > 0;
        *left = left.saturating_sub(1);
        skips
    }

    /// Finds a hash by interpolation: hashes are spread evenly, so its value tells about where it stands. Binary search would
    /// touch many times as much memory.
    fn place(&self, key: Key) -> Option<usize> {
        let count = self.keys.len();
        let guess = ((key >> 64) * count as u128) >> 64;
        let guess = usize::try_from(guess).unwrap_or(0).min(count);
        let (mut low, mut high, mut step) = (guess, guess, 16);
        while low > 0 && self.keys[low - 1] >= key {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 16;
        while high < count && self.keys[high] <= key {
            high = (high + step).min(count);
            step *= 2;
        }
        let found = self.keys[low..high].binary_search(&key).ok()?;
        Some(low + found)
    }
}

/// Reads an open log. A file without a single line of a log is refused, because it may be any file.
pub(super) fn read(
    file: &File,
    path: &Path,
    template: &str,
    resumes: bool,
) -> Result<Succeeded, Trouble> {
    let unreadable = |error: io::Error| super::log_line::unreadable(path, &error);
    let mut runs = Runs::default();
    if resumes {
        runs.suspects = suspects(file).map_err(unreadable)?;
    }
    let size = file.metadata().map_or(0, |found| found.len());
    let mut lines = Lines::new(BufReader::with_capacity(BLOCK, file));
    let mut number = 0_u64;
    let mut torn = Torn::default();
    let mut patience = ReadingTime::new(path, size);
    loop {
        // The clock is read once for many lines: reading it costs as much as a short line.
        if number.is_multiple_of(1024) {
            patience.has_read(lines.read());
        }
        let Some(line) = lines.next().map_err(unreadable)? else {
            break;
        };
        number += 1;
        let RawLine::Whole(text) = line else {
            torn.add(number);
            continue;
        };
        match serde_json::from_slice::<Entry<'_>>(text) {
            Ok(entry) if resumes && entry.template != template => {
                return Err(another_command(path, &entry.template, template));
            }
            // A run that does not resume only needs to know that the file is a log.
            Ok(_) if !resumes => return Ok(Succeeded::default()),
            Ok(entry) => runs.add(entry),
            Err(_) if is_unwritten(text) => {}
            Err(_) => torn.add_begun(number, text),
        }
    }
    if torn.is_foreign && runs.run.is_empty() {
        return Err(Trouble::Usage(format!(
            "{} is something else than a log, and is left as it is: name another file",
            path.display()
        )));
    }
    if resumes {
        torn.report(path);
    }
    Ok(runs.finish())
}

/// Whether a line was never written: after a loss of power, unwritten parts of a file are zeros.
fn is_unwritten(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, 0 | b'\n' | b'\r' | b' '))
}

/// The lines that are no whole lines of a log.
#[derive(Debug, Default)]
struct Torn {
    count: u64,
    /// The number of the first such line.
    first: u64,
    /// Whether one of them can't even be the beginning of a line of a log.
    is_foreign: bool,
}

impl Torn {
    fn add(&mut self, number: u64) {
        if self.count == 0 {
            self.first = number;
        }
        self.count += 1;
    }

    /// Adds a line that was being written when the machine or the run ended, or that is not of a log.
    fn add_begun(&mut self, number: u64, text: &[u8]) {
        let begun = text.trim_ascii_end();
        self.is_foreign |= !(begun.starts_with(BEGINNING) || BEGINNING.starts_with(begun));
        self.add(number);
    }

    /// Says on stderr which lines were left out, if any were.
    fn report(&self, path: &Path) {
        let lines = match self.count {
            0 => return,
            1 => "line is",
            _ => "lines are",
        };
        complain(&format!(
            "{} {lines} left out of {}, from line {} on: torn, too long, or not of a log",
            self.count,
            path.display(),
            self.first
        ));
    }
}

fn another_command(path: &Path, theirs: &str, ours: &str) -> Trouble {
    Trouble::Usage(format!(
        "{} is the log of another command, so nothing in it can be skipped: it has `{theirs}`, this is `{ours}`",
        path.display()
    ))
}

/// The successes that were revoked later, by run.
fn suspects(mut file: &File) -> io::Result<HashMap<String, Vec<Range>>> {
    let mut suspects: HashMap<String, Vec<Range>> = HashMap::new();
    let finder = Finder::new(SUSPECTS);
    if contains(file, &finder)? {
        let mut lines = Lines::new(BufReader::with_capacity(BLOCK, file));
        while let Some(line) = lines.next()? {
            if let RawLine::Whole(text) = line
                && finder.find(text).is_some()
                && let Ok(entry) = serde_json::from_slice::<Entry<'_>>(text)
            {
                let run = entry.run.into_owned();
                suspects.entry(run).or_default().extend(entry.suspects);
            }
        }
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(suspects)
}

/// Whether a file contains these bytes. Its position is at the beginning before and after.
fn contains(mut file: &File, finder: &Finder<'_>) -> io::Result<bool> {
    let overlap = finder.needle().len() - 1;
    let mut block = vec![0; BLOCK];
    // The end of the block before is kept, because the bytes may stand across two blocks.
    let mut kept = 0;
    let found = loop {
        let count = match file.read(&mut block[kept..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let end = kept + count;
        if finder.find(&block[..end]).is_some() {
            break true;
        }
        if count == 0 {
            break false;
        }
        kept = overlap.min(end);
        block.copy_within(end - kept..end, 0);
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

/// Adds up the successes of runs, one run after another.
#[derive(Default)]
struct Runs {
    suspects: HashMap<String, Vec<Range>>,
    before: Succeeded,
    run: String,
    resumed: bool,
    /// The successes of this run. An input stands there as often as it has succeeded.
    now: Vec<Key>,
}

impl Runs {
    fn add(&mut self, entry: Entry<'_>) {
        if entry.run != self.run {
            self.close();
            self.run = entry.run.into_owned();
            self.resumed = entry.resumed;
        }
        if let Some(machines) = entry.machines {
            return self.add_machines(machines);
        }
        let is_in = |(first, last): &Range| (*first..=*last).contains(&entry.seq);
        let suspects = self.suspects.get(&self.run);
        if entry.status == "ok"
            && !suspects.is_some_and(|ranges| ranges.iter().any(is_in))
            && let Some(input) = super::log_line::bytes_of(entry.input, entry.input_b64)
        {
            // Several inputs of one command stand with zero bytes between them. No argument of a command has a zero byte.
            for input in input.split(|byte| *byte == 0) {
                self.now.push(self.before.hash.of(input));
            }
        }
    }

    fn add_machines(&mut self, machines: Machines) {
        // A run that was resumed has ended what the one before had left.
        let left = self.before.left.take();
        self.before.left = (!machines.ended).then(|| {
            let mut left = left
                .filter(|left| left.run == machines.run)
                .unwrap_or_default();
            left.run = machines.run;
            left.machines.extend(machines.joined);
            let lease = machines.lease_ms.map(Duration::from_millis);
            left.lease = lease.or(left.lease);
            left
        });
    }

    fn close(&mut self) {
        let mut now = std::mem::take(&mut self.now);
        now.sort_unstable();
        let (mut keys, mut times) = (Vec::new(), Vec::new());
        let mut before = std::mem::take(&mut self.before.keys)
            .into_iter()
            .zip(std::mem::take(&mut self.before.times))
            .peekable();
        if before.peek().is_none() {
            // Mostly this is the only run, so its memory is taken over.
            times = Vec::with_capacity(now.len());
            let mut last = None;
            now.retain(|key| {
                let is_new = last.replace(*key) != Some(*key);
                match times.last_mut() {
                    Some(count) if !is_new => *count += 1,
                    _ => times.push(1),
                }
                is_new
            });
            (self.before.keys, self.before.times) = (now, times);
            return;
        }
        for same in now.chunk_by(|one, other| one == other) {
            let (key, count) = (same[0], u32::try_from(same.len()).unwrap_or(u32::MAX));
            while let Some((earlier, count)) = before.next_if(|(earlier, _)| *earlier < key) {
                keys.push(earlier);
                times.push(count);
            }
            let (_, known) = before
                .next_if(|(known, _)| *known == key)
                .unwrap_or_default();
            keys.push(key);
            times.push(match self.resumed {
                true => known.saturating_add(count),
                // This run did not resume, so it has repeated earlier work.
                false => known.max(count),
            });
        }
        for (key, count) in before {
            keys.push(key);
            times.push(count);
        }
        (self.before.keys, self.before.times) = (keys, times);
    }

    fn finish(mut self) -> Succeeded {
        self.close();
        self.before
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use proptest::prelude::*;

    use super::*;

    fn entry(run: &str, resumed: bool, input: u8) -> Entry<'static> {
        let text = format!(
            r#"{{"v":1,"run":"{run}","resumed":{resumed},"template":"","seq":1,"input":"{input}","status":"ok"}}"#
        );
        serde_json::from_slice(text.leak().as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn runs_add_up_as_in_a_table(
            log in prop::collection::vec((any::<bool>(), prop::collection::vec(0..20_u8, 0..40)), 0..6),
        ) {
            let mut runs = Runs::default();
            let mut table: HashMap<u8, usize> = HashMap::new();
            for (number, (resumed, inputs)) in log.iter().enumerate() {
                for input in inputs {
                    runs.add(entry(&number.to_string(), *resumed, *input));
                }
                for input in 0..20 {
                    let now = inputs.iter().filter(|other| **other == input).count();
                    let before = table.entry(input).or_default();
                    *before = if *resumed { *before + now } else { now.max(*before) };
                }
            }
            let mut succeeded = runs.finish();
            for (input, times) in table {
                let text = input.to_string();
                for _ in 0..times {
                    prop_assert!(succeeded.skips(text.as_bytes()));
                }
                prop_assert!(!succeeded.skips(text.as_bytes()));
            }
            prop_assert!(!succeeded.skips(b"none"));
        }
    }

    #[test]
    fn what_stands_across_two_blocks_is_found() {
        let path = tempfile::NamedTempFile::new().unwrap();
        for at in [
            0,
            BLOCK - SUSPECTS.len() - 1,
            BLOCK - 3,
            BLOCK,
            2 * BLOCK - 5,
        ] {
            let mut bytes = vec![b'x'; at];
            bytes.extend(SUSPECTS);
            std::fs::write(&path, &bytes).unwrap();
            let (file, finder) = (File::open(&path).unwrap(), Finder::new(SUSPECTS));
            assert!(contains(&file, &finder).unwrap(), "{at}");
            std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            let file = File::open(&path).unwrap();
            assert!(!contains(&file, &finder).unwrap(), "{at}");
        }
    }
}
