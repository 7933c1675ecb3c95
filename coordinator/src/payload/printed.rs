//! What calls print: kept in files, attributed to calls, and forwarded in input order.
//!
//! A worker's stdout and stderr are a file each, without a name, that it appends to. Nothing the
//! worker runs can block on them, C code and child processes write to them like Rust code, and what
//! was written survives the writer. The end of each call that has printed says how long the files have become, so each call
//! owns a range of them. A range stays in the file until it has been used; then its space is given
//! back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::os;

/// What becomes of what the tasks print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Output {
    /// It goes to this program's stdout and stderr, in whole lines and in input order, when the
    /// call's result is taken: as if the calls had run one after another.
    #[default]
    Forward,
    /// It is kept with the call: [`Report::stdout`](crate::Report) and
    /// [`Report::stderr`](crate::Report), and its tail in [`CallError::stderr`](crate::CallError::stderr).
    Capture,
    /// It is thrown away.
    Null,
}

/// How often space is given back: a system call for each line would cost more than it returns.
const GIVE_BACK: u64 = 1 << 20;
pub(super) const CHUNK: usize = 64 << 10;
/// How much of a call's stderr goes into its error.
pub(crate) const TAIL: u64 = 4 << 10;

/// The two files of one worker, and how far its calls have been told from each other. Clones are of
/// the same files.
#[derive(Debug, Clone)]
pub(crate) struct OutputFiles {
    stdout: Arc<OutputFile>,
    stderr: Arc<OutputFile>,
}

impl OutputFiles {
    pub(crate) fn new() -> io::Result<Self> {
        let stdout = Arc::new(OutputFile::new()?);
        let stderr = Arc::new(OutputFile::new()?);
        Ok(OutputFiles { stdout, stderr })
    }

    /// Where a process that is about to be started writes: into the files, or nowhere.
    pub(crate) fn streams(files: Option<&Self>) -> io::Result<(File, File)> {
        let stream = |file: Option<&Arc<OutputFile>>| match file {
            Some(output) => output.file.try_clone(),
            None => os::nowhere(),
        };
        let (stdout, stderr) = (
            files.map(|files| &files.stdout),
            files.map(|files| &files.stderr),
        );
        Ok((stream(stdout)?, stream(stderr)?))
    }

    /// What has been printed since the last time, where the files are this long now.
    pub(crate) fn advance(&self, stdout: u64, stderr: u64) -> Printed {
        let mut ranges = self.ranges();
        Printed {
            stdout: self.stdout.captured(ranges.0.advance(stdout)),
            stderr: self.stderr.captured(ranges.1.advance(stderr)),
        }
    }

    /// What has been printed since the last time by a worker that will say no more.
    pub(crate) fn rest(&self) -> Printed {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        self.advance(stdout, stderr)
    }

    /// What has been printed since the last time, and will be part of what is found the next time.
    pub(crate) fn peek(&self) -> Printed {
        let mut ranges = self.ranges();
        Printed {
            stdout: self.stdout.captured(ranges.0.peek(self.stdout.len())),
            stderr: self.stderr.captured(ranges.1.peek(self.stderr.len())),
        }
    }

    /// Of both files at once: a peek must not see one of them before a call's end and the other behind.
    fn ranges(&self) -> (MutexGuard<'_, Ranges>, MutexGuard<'_, Ranges>) {
        (self.stdout.ranges(), self.stderr.ranges())
    }
}

/// What one attempt has printed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Printed {
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

impl Printed {
    pub(crate) fn is_empty(&self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct OutputFile {
    file: File,
    ranges: Mutex<Ranges>,
}

/// Which ranges are still in use.
#[derive(Debug)]
struct Ranges {
    /// Where they start, and how many start there.
    starts: BTreeMap<u64, usize>,
    /// Where the calls' last range ends, and the next one starts.
    end: u64,
    /// What lies before this has been given back.
    given_back: u64,
}

impl Ranges {
    /// The next call's range, in a file that is this long at its end.
    fn advance(&mut self, len: u64) -> Range<u64> {
        let range = self.peek(len);
        self.end = range.end;
        range
    }

    /// What the call has printed so far. The call still owns this range, even if the range is released before the
    /// call ends.
    fn peek(&mut self, len: u64) -> Range<u64> {
        let range = self.end..len.max(self.end);
        if !range.is_empty() {
            *self.starts.entry(range.start).or_default() += 1;
        }
        range
    }
}

impl OutputFile {
    pub(super) fn new() -> io::Result<Self> {
        Ok(OutputFile {
            file: os::append_only_file()?,
            ranges: Mutex::new(Ranges {
                starts: BTreeMap::new(),
                end: os::EMPTY_FILE,
                given_back: 0,
            }),
        })
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        os::read_at(&self.file, buffer, at)
    }

    pub(super) fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// What a range holds, until it is dropped.
    fn captured(self: &Arc<Self>, range: Range<u64>) -> Captured {
        let held = (!range.is_empty()).then(|| HeldRange {
            file: Arc::clone(self),
            range,
        });
        Captured(held.map_or(Content::Nothing, |held| Content::Here(Arc::new(held))))
    }

    /// What is written now, at the end.
    #[cfg(feature = "agents")]
    pub(super) fn append(
        self: &Arc<Self>,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Captured> {
        write(&self.file)?;
        let range = self.ranges().advance(self.len());
        Ok(self.captured(range))
    }

    fn release(&self, range: &Range<u64>) {
        let mut ranges = self.ranges();
        if let Some(count) = ranges.starts.get_mut(&range.start) {
            *count -= 1;
            if *count == 0 {
                ranges.starts.remove(&range.start);
            }
        }
        let first = ranges.starts.first_key_value().map(|(start, _)| *start);
        let unused_until = first.unwrap_or(ranges.end);
        let unused = ranges.given_back..unused_until;
        if unused.end - unused.start >= GIVE_BACK {
            ranges.given_back = unused.end;
            // The system may take its time. Whoever reports what a call has printed must not wait for it.
            drop(ranges);
            os::give_back(&self.file, unused.start, unused.end);
        }
    }
}

/// What one call has written to one of its standard streams.
///
/// It stays in a file until it is dropped, however large it is.
#[derive(Debug, Default, Clone)]
pub struct Captured(Content);

#[derive(Debug, Default, Clone)]
enum Content {
    #[default]
    Nothing,
    /// In the file of a worker here.
    Here(Arc<HeldRange>),
    /// A call on another machine has written it, and it is not much.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    Elsewhere(Arc<[u8]>),
}

#[derive(Debug)]
struct HeldRange {
    file: Arc<OutputFile>,
    range: Range<u64>,
}

impl Drop for HeldRange {
    fn drop(&mut self) {
        self.file.release(&self.range);
    }
}

impl Captured {
    /// How much it is, in bytes.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// # drop(inputs);
    /// for report in reports {
    ///     println!("call {} has printed {} bytes", report.index, report.stdout.len());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Content::Nothing => 0,
            Content::Here(held) => held.range.end - held.range.start,
            Content::Elsewhere(bytes) => bytes.len() as u64,
        }
    }

    /// Where it stands, if it is in a file.
    pub(super) fn place(&self) -> Option<(&Arc<OutputFile>, Range<u64>)> {
        match &self.0 {
            Content::Here(held) => Some((&held.file, held.range.clone())),
            Content::Nothing | Content::Elsewhere(_) => None,
        }
    }

    /// What stands in a file, in two parts. The file has no name, and nothing else needs it.
    #[cfg(feature = "agents")]
    pub(super) fn both_of(file: File, stdout: Range<u64>, stderr: Range<u64>) -> (Self, Self) {
        let file = Arc::new(OutputFile {
            file,
            ranges: Mutex::new(Ranges {
                starts: BTreeMap::new(),
                end: stderr.end,
                given_back: 0,
            }),
        });
        for range in [&stdout, &stderr] {
            if !range.is_empty() {
                *file.ranges().starts.entry(range.start).or_default() += 1;
            }
        }
        (file.captured(stdout), file.captured(stderr))
    }

    /// What a call on another machine has written, where it is not much.
    #[cfg(feature = "agents")]
    pub(super) fn little(bytes: &[u8]) -> Self {
        Captured(match bytes.is_empty() {
            true => Content::Nothing,
            false => Content::Elsewhere(bytes.into()),
        })
    }

    /// Some bytes of it.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    pub(crate) fn part(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(at, len, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether the call has written nothing.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// # drop(inputs);
    /// for report in reports {
    ///     assert!(report.stderr.is_empty());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// What the system says when it can't read the file, or [`io::ErrorKind::OutOfMemory`]: a task may write more than
    /// there is memory for.
    ///
    /// ```no_run
    /// # use coordinator::{Output, Pool, task};
    /// # #[task] fn greet(name: String) { println!("Hello, {name}!") }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder().output(Output::Capture).build()?;
    /// let (inputs, reports) = pool.with().open(greet);
    /// if let Some(inputs) = inputs {
    ///     inputs.send("you".to_owned())?;
    /// }
    /// for report in reports {
    ///     assert_eq!(report.stdout.read()?, b"Hello, you!\n");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn read(&self) -> io::Result<Vec<u8>> {
        self.read_first(u64::MAX)
    }

    /// Reads its beginning, at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// # drop(inputs);
    /// for report in reports {
    ///     println!("{}", String::from_utf8_lossy(&report.stdout.read_first(80)?));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn read_first(&self, limit: u64) -> io::Result<Vec<u8>> {
        let count = self.len().min(limit);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(count).unwrap_or(usize::MAX))?;
        self.copy(0, count, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies it, piece by piece, however large it is.
    ///
    /// # Errors
    ///
    /// What the system says when it can't read the file, and what `writer` says.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// # drop(inputs);
    /// for report in reports {
    ///     report.stdout.copy_to(&mut std::io::stdout())?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn copy_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.copy_from(0, writer)
    }

    /// As [`copy_to`](Self::copy_to), without the first `skip` bytes.
    ///
    /// # Errors
    ///
    /// As [`copy_to`](Self::copy_to).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// # drop(inputs);
    /// for report in reports {
    ///     report.stdout.copy_from(80, &mut std::io::stdout())?; // what 80 bytes were shown of already
    /// }
    /// # Ok(()) }
    /// ```
    pub fn copy_from(&self, skip: u64, writer: &mut dyn Write) -> io::Result<()> {
        self.copy(skip, u64::MAX, writer)
    }

    fn copy(&self, skip: u64, limit: u64, writer: &mut dyn Write) -> io::Result<()> {
        let held = match &self.0 {
            Content::Nothing => return Ok(()),
            Content::Here(held) => held,
            Content::Elsewhere(bytes) => {
                let from = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                let most = usize::try_from(limit).unwrap_or(usize::MAX);
                let rest = &bytes[from..];
                return writer.write_all(&rest[..rest.len().min(most)]);
            }
        };
        let mut at = held.range.start.saturating_add(skip);
        let end = at.saturating_add(limit).min(held.range.end);
        let mut chunk = vec![0; CHUNK.min(usize::try_from(self.len()).unwrap_or(CHUNK))];
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(chunk.len());
            let read = held.file.read_at(&mut chunk[..want], at)?;
            if read == 0 {
                break; // a worker that claimed more than there is
            }
            writer.write_all(&chunk[..read])?;
            at += read as u64;
        }
        Ok(())
    }

    /// The last lines, for an error message.
    pub(crate) fn tail(&self, limit: u64) -> String {
        let mut bytes = Vec::new();
        let skip = self.len().saturating_sub(limit);
        // A tail that can't be read is no reason to lose the error it belongs to.
        let _ = self.copy_from(skip, &mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        match text.split_once('\n') {
            Some((_cut_off, whole_lines)) if skip > 0 => whole_lines.to_owned(),
            _ => text.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    /// Writes as a worker does; the file's length afterwards.
    fn write(file: &OutputFile, bytes: &[u8]) -> u64 {
        (&file.file).write_all(bytes).unwrap();
        file.len()
    }

    #[test]
    fn a_peek_takes_nothing_away() {
        let files = OutputFiles::new().unwrap();
        assert!(files.peek().stdout.is_empty());
        let len = write(&files.stdout, b"one");
        let call = files.advance(len, 0);
        assert!(files.peek().stdout.is_empty());
        write(&files.stdout, b"tw");
        let (peek, other) = (files.peek(), files.peek());
        assert_eq!(peek.stdout.read().unwrap(), b"tw");
        let len = write(&files.stdout, b"o");
        drop((peek, call));
        let call = files.advance(len, 0);
        assert_eq!(call.stdout.read().unwrap(), b"two");
        assert_eq!(other.stdout.read().unwrap(), b"tw");
        assert!(call.stderr.is_empty());
    }

    #[test]
    fn space_is_given_back_when_nobody_uses_it_any_more() {
        let files = OutputFiles::new().unwrap();
        let much = vec![b'x'; 2 * GIVE_BACK as usize];
        let given_back = || files.stdout.ranges().given_back;
        write(&files.stdout, &much);
        let peek = files.peek();
        // What is still being written belongs to a call, whoever has looked at it.
        drop(files.peek());
        drop(peek.clone());
        assert_eq!(given_back(), 0);
        let call = files.rest();
        drop(call);
        assert_eq!(given_back(), 0);
        assert_eq!(peek.stdout.read().unwrap(), much);
        drop(peek);
        assert_eq!(given_back(), files.stdout.len());
        write(&files.stdout, &much);
        drop(files.peek());
        assert_eq!(files.rest().stdout.read().unwrap(), much);
    }
}
