//! What calls print: kept in files, attributed to calls, and forwarded in input order.
//!
//! A worker's stdout and stderr are a file each, without a name, that it appends to. Nothing the
//! worker runs can block on them, C code and child processes write to them like Rust code, and what
//! was written survives the writer. Each reply says how long the files have become, so each call
//! owns a range of them. A range stays in the file until it has been used; then its space is given
//! back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
const CHUNK: usize = 64 << 10;
/// How much of a call's stderr goes into its error.
pub(crate) const TAIL: u64 = 4 << 10;

/// The two files of one worker, and how far its calls have been told from each other.
#[derive(Debug)]
pub(crate) struct OutputFiles {
    stdout: Arc<OutputFile>,
    stderr: Arc<OutputFile>,
    seen: Arc<[AtomicU64; 2]>,
}

/// What a worker's calls print, for those who look on.
#[derive(Debug, Clone)]
pub(crate) struct LiveOutput {
    stdout: Arc<OutputFile>,
    stderr: Arc<OutputFile>,
    seen: Arc<[AtomicU64; 2]>,
}

impl LiveOutput {
    /// What has been printed since the last call that was heard of. It is not kept from being given back.
    pub(crate) fn printed(&self) -> Printed {
        let since = |file: &Arc<OutputFile>, seen: &AtomicU64| {
            let seen = seen.load(Ordering::Acquire);
            Captured::glance(file, seen..file.len().max(seen))
        };
        let [seen_out, seen_err] = &*self.seen;
        Printed {
            stdout: since(&self.stdout, seen_out),
            stderr: since(&self.stderr, seen_err),
        }
    }
}

impl OutputFiles {
    pub(crate) fn new() -> io::Result<Self> {
        let stdout = Arc::new(OutputFile::new()?);
        let stderr = Arc::new(OutputFile::new()?);
        Ok(OutputFiles {
            stdout,
            stderr,
            seen: Arc::new([const { AtomicU64::new(os::EMPTY_FILE) }; 2]),
        })
    }

    /// For those who look on.
    pub(crate) fn live(&self) -> LiveOutput {
        LiveOutput {
            stdout: Arc::clone(&self.stdout),
            stderr: Arc::clone(&self.stderr),
            seen: Arc::clone(&self.seen),
        }
    }

    /// Lets a process that is about to be started write into the files.
    pub(crate) fn attach(files: Option<&Self>, command: &mut Command) -> io::Result<()> {
        command.stdout(os::stdio_to(files.map(|files| &files.stdout.file))?);
        command.stderr(os::stdio_to(files.map(|files| &files.stderr.file))?);
        Ok(())
    }

    /// What has been printed since the last time, where the files are this long now.
    pub(crate) fn advance(&mut self, stdout: u64, stderr: u64) -> Printed {
        let advance = |file: &Arc<OutputFile>, seen: &AtomicU64, now: u64| {
            let start = seen.load(Ordering::Relaxed);
            let range = start..now.max(start);
            seen.store(range.end, Ordering::Release);
            Captured::new(file, range)
        };
        let [seen_out, seen_err] = &*self.seen;
        Printed {
            stdout: advance(&self.stdout, seen_out, stdout),
            stderr: advance(&self.stderr, seen_err, stderr),
        }
    }

    /// What has been printed since the last time by a worker that will say no more.
    pub(crate) fn rest(&mut self) -> Printed {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        self.advance(stdout, stderr)
    }
}

/// What one attempt has printed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Printed {
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

#[derive(Debug)]
struct OutputFile {
    file: File,
    ranges: Mutex<Ranges>,
}

/// Which ranges are still in use.
#[derive(Debug, Default)]
struct Ranges {
    starts: BTreeSet<u64>,
    /// Where the last range ends.
    end: u64,
    /// What lies before this has been given back.
    given_back: u64,
}

impl OutputFile {
    fn new() -> io::Result<Self> {
        Ok(OutputFile {
            file: os::append_only_file()?,
            ranges: Mutex::default(),
        })
    }

    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn hold(&self, range: &Range<u64>) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.starts.insert(range.start);
        ranges.end = ranges.end.max(range.end);
    }

    fn release(&self, range: &Range<u64>) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.starts.remove(&range.start);
        let unused_until = ranges.starts.first().copied().unwrap_or(ranges.end);
        if unused_until - ranges.given_back >= GIVE_BACK {
            os::give_back(&self.file, ranges.given_back, unused_until);
            ranges.given_back = unused_until;
        }
    }
}

/// What one call has written to one of its standard streams.
///
/// It stays in a file until it is dropped, however large it is.
#[derive(Debug, Default, Clone)]
pub struct Captured {
    range: Option<Arc<HeldRange>>,
}

#[derive(Debug)]
struct HeldRange {
    file: Arc<OutputFile>,
    range: Range<u64>,
    /// Its space is not given back before this is dropped.
    is_kept: bool,
}

impl Drop for HeldRange {
    fn drop(&mut self) {
        if self.is_kept {
            self.file.release(&self.range);
        }
    }
}

impl Captured {
    fn new(file: &Arc<OutputFile>, range: Range<u64>) -> Self {
        if range.is_empty() {
            return Captured { range: None };
        }
        file.hold(&range);
        Captured::of(file, range, true)
    }

    /// What stands in a file now.
    fn glance(file: &Arc<OutputFile>, range: Range<u64>) -> Self {
        match range.is_empty() {
            true => Captured { range: None },
            false => Captured::of(file, range, false),
        }
    }

    fn of(file: &Arc<OutputFile>, range: Range<u64>, is_kept: bool) -> Self {
        Captured {
            range: Some(Arc::new(HeldRange {
                file: Arc::clone(file),
                range,
                is_kept,
            })),
        }
    }

    /// How much it is, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.range
            .as_ref()
            .map_or(0, |held| held.range.end - held.range.start)
    }

    /// Whether the call has written nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// What the system says when it can't read the file.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.copy_to(&mut all)?;
        Ok(all)
    }

    /// Copies it, piece by piece, however large it is.
    ///
    /// # Errors
    ///
    /// What the system says when it can't read the file, and what `writer` says.
    pub fn copy_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.copy_from(0, writer)
    }

    /// As [`copy_to`](Self::copy_to), without the first `skip` bytes.
    ///
    /// # Errors
    ///
    /// As [`copy_to`](Self::copy_to).
    pub fn copy_from(&self, skip: u64, writer: &mut dyn Write) -> io::Result<()> {
        let Some(held) = &self.range else {
            return Ok(());
        };
        let mut at = held.range.start + skip;
        let mut chunk = vec![0; CHUNK.min(usize::try_from(self.len()).unwrap_or(CHUNK))];
        while at < held.range.end {
            let want = usize::try_from(held.range.end - at)
                .unwrap_or(CHUNK)
                .min(chunk.len());
            let read = os::read_at(&held.file.file, &mut chunk[..want], at)?;
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

/// Forwards what the calls of one map have printed, in the order in which it is given, in whole
/// lines: the beginning of a line waits for its end, which may come with a later call.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    stdout: Lines,
    stderr: Lines,
}

impl Forwarder {
    pub(crate) fn forward(&mut self, printed: &Printed) {
        self.stdout.forward(&printed.stdout, &mut io::stdout());
        self.stderr.forward(&printed.stderr, &mut io::stderr());
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stdout.finish(&mut io::stdout());
        self.stderr.finish(&mut io::stderr());
    }
}

#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn forward(&mut self, captured: &Captured, to: &mut dyn Write) {
        if captured.is_empty() {
            return;
        }
        let mut splitter = Splitter {
            begun: &mut self.begun,
            to,
        };
        if let Err(error) = captured.copy_to(&mut splitter).and_then(|()| to.flush()) {
            log::warn!("what a task has printed could not be forwarded: {error}");
        }
    }

    fn finish(&mut self, to: &mut dyn Write) {
        if !self.begun.is_empty() {
            // Whoever closed our stdout does not want it.
            let _ = to
                .write_all(&std::mem::take(&mut self.begun))
                .and_then(|()| to.flush());
        }
    }
}

/// Passes whole lines on, each piece in one write, and keeps what is behind the last of them.
struct Splitter<'l> {
    begun: &'l mut Vec<u8>,
    to: &'l mut dyn Write,
}

impl Write for Splitter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                self.begun.extend(&bytes[..=last]);
                self.to.write_all(self.begun)?;
                self.begun.clear();
                self.begun.extend(&bytes[last + 1..]);
            }
            None => self.begun.extend(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
