//! Where what calls on other machines have printed is kept.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use super::printed::{CHUNK, Captured, OutputFile};
use crate::os;

/// How much is written to a file before the next is begun.
const FULL: u64 = 64 << 20;

/// Where what calls on other machines have printed is kept, if it is much. Many calls share a file: a process may have only so
/// many open.
#[derive(Debug, Default)]
pub(crate) struct Spool(Option<Arc<OutputFile>>);

impl Spool {
    /// Keeps what a call has written.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> io::Result<Captured> {
        match bytes.len() {
            0..=CHUNK => Ok(Captured::little(bytes)),
            _ => self.add(|mut file| file.write_all(bytes)),
        }
    }

    /// Keeps what a call has written to stdout and to stderr, which stand in a file that nothing else needs.
    ///
    /// # Errors
    ///
    /// As for [`keep`](Self::keep).
    pub(crate) fn keep_both(
        &mut self,
        file: File,
        stdout: Range<u64>,
        stderr: Range<u64>,
    ) -> io::Result<(Captured, Captured)> {
        if stderr.end - stdout.start > FULL {
            return Ok(Captured::both_of(file, stdout, stderr));
        }
        let mut keep = |range| self.add(|to| copy(&file, range, to));
        Ok((keep(stdout)?, keep(stderr)?))
    }

    /// What is written now, at the end of a file that others have written to.
    fn add(&mut self, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Captured> {
        // If it can't be written as a whole, nobody adds to what is there of it.
        let file = match self.0.take().filter(|file| file.len() < FULL) {
            Some(file) => file,
            None => Arc::new(OutputFile::new()?),
        };
        let captured = file.append(write)?;
        self.0 = Some(file);
        Ok(captured)
    }
}

/// Copies a part of a file to the end of another.
fn copy(from: &File, range: Range<u64>, mut to: &File) -> io::Result<()> {
    let mut at = range.start;
    let mut chunk = vec![0; CHUNK];
    while at < range.end {
        let want = usize::try_from(range.end - at).map_or(CHUNK, |left| left.min(CHUNK));
        let read = os::read_at(from, &mut chunk[..want], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&chunk[..read])?;
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn what_was_written_elsewhere_is_read_like_any_other() {
        let mut spool = Spool::default();
        for len in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let captured = spool.keep(&bytes).unwrap();
            assert_eq!(
                (captured.len(), captured.is_empty()),
                (len as u64, len == 0)
            );
            assert_eq!(captured.read().unwrap(), bytes);
            assert_eq!(captured.read_first(10).unwrap(), bytes[..len.min(10)]);
            let mut rest = Vec::new();
            captured.copy_from(7, &mut rest).unwrap();
            assert_eq!(rest, bytes[len.min(7)..]);
            assert_eq!(
                captured.tail(5).len(),
                len.min(5).min(captured.tail(5).len())
            );
        }
    }

    #[test]
    fn what_many_calls_have_written_elsewhere_needs_few_files() {
        let mut spool = Spool::default();
        let mut kept = Vec::new();
        for call in 0..100 {
            let bytes = vec![call; 2 * CHUNK];
            kept.push((bytes.clone(), spool.keep(&bytes).unwrap()));
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[&[0; 5], &bytes[..], b"stderr"].concat())
                .unwrap();
            let end = 5 + bytes.len() as u64;
            let (stdout, stderr) = spool.keep_both(file, 5..end, end..end + 6).unwrap();
            assert_eq!(stderr.read().unwrap(), b"stderr");
            kept.push((bytes, stdout));
        }
        assert!(
            kept.iter()
                .all(|(bytes, kept)| kept.read().unwrap() == *bytes)
        );
        // All of it stands in one file.
        let file = spool.0.as_ref().unwrap();
        assert!(file.len() > 200 * 2 * CHUNK as u64);
        // What is longer than a file of many is one of its own, and what can't be written spoils nothing.
        let large = tempfile::tempfile().unwrap();
        large.set_len(FULL + 2).unwrap();
        let (stdout, _) = spool
            .keep_both(large, 1..FULL + 2, FULL + 2..FULL + 2)
            .unwrap();
        assert_eq!(stdout.len(), FULL + 1);
        let short = tempfile::tempfile().unwrap();
        assert!(spool.keep_both(short, 0..9, 9..9).is_err());
        let bytes = vec![b'x'; CHUNK + 1];
        assert_eq!(spool.keep(&bytes).unwrap().read().unwrap(), bytes);
    }
}
