//! Reports that wait for what belongs to them: a payload that is large, and files that a call has made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use protocol::agent::{Bulk, Carried, Ending, Report, What};
use protocol::frame::MAX_PAYLOAD;
use tempfile::{NamedTempFile, TempPath};

use super::bulk::{Fetched, Target};

/// How much of what a call has printed may come by way of memory, in bytes.
const PRINTED: u64 = 1 << 20;

/// A report that waits for what belongs to it.
pub(super) struct Awaited {
    pub(super) report: Report,
    payload: Option<Fetched>,
    /// Where the files go, in the order in which the report names them.
    places: Vec<PathBuf>,
    missing: BTreeSet<Bulk>,
    /// Files that have come. None of them is kept open: they may be many.
    files: BTreeMap<Bulk, TempPath>,
    /// Why it can't be had as a whole.
    failed: Option<String>,
}

impl Awaited {
    /// `here` is the payload that has come with it.
    pub(super) fn new(report: Report, here: &[u8], places: Vec<PathBuf>) -> Self {
        let mut missing: BTreeSet<Bulk> = report.files.iter().copied().collect();
        let payload = match report.payload {
            Carried::Here => Some(Fetched::Memory(here.to_vec())),
            Carried::Apart(bulk) => {
                missing.insert(bulk);
                None
            }
        };
        Awaited {
            report,
            payload,
            places,
            missing,
            files: BTreeMap::new(),
            failed: None,
        }
    }

    /// Whether this is the same report, said once more.
    pub(super) fn is(&self, report: &Report) -> bool {
        let of = |report: &Report| (report.epoch, report.serial);
        of(&self.report) == of(report)
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = Bulk> {
        self.missing.iter().copied()
    }

    pub(super) fn misses(&self, bulk: &Bulk) -> bool {
        self.missing.contains(bulk)
    }

    /// How much payload it has brought itself, in bytes.
    pub(super) fn size(&self) -> usize {
        match &self.payload {
            Some(Fetched::Memory(bytes)) => bytes.len(),
            _ => 0,
        }
    }

    /// Where something is to be put. Fails if it is larger than anything of its kind can be.
    pub(super) fn place_for(&self, bulk: &Bulk) -> Result<Target, String> {
        let at = self.report.files.iter().position(|file| file == bulk);
        if let Some(place) = at.and_then(|at| self.places.get(at)) {
            let place = place.clone();
            return Ok(Target::Named(Box::new(move || beside(&place))));
        }
        let printed = match self.report.what {
            What::Ended { stdout, stderr, .. } => stdout.saturating_add(stderr),
            _ => 0,
        };
        // What a call has returned has to be in memory to be decoded, and what it has printed has not.
        let prints_much = printed > PRINTED;
        let in_memory = bulk
            .len
            .saturating_sub(if prints_much { printed } else { 0 });
        match in_memory <= u64::from(MAX_PAYLOAD) + PRINTED {
            true if prints_much => Ok(Target::Anywhere),
            true => Ok(Target::Memory),
            false => Err(format!("{in_memory} bytes, and no output has so many")),
        }
    }

    /// Something has come, or will not.
    pub(super) fn arrived(&mut self, bulk: Bulk, come: Result<Fetched, String>) {
        self.missing.remove(&bulk);
        match come {
            Ok(Fetched::Named(file)) => {
                if self.report.payload == Carried::Apart(bulk) {
                    self.keep_as_payload(&file, bulk);
                }
                self.files.insert(bulk, file.into_temp_path());
            }
            Ok(payload) => self.payload = Some(payload),
            Err(why) => self.failed = Some(why),
        }
    }

    /// A file that a call has made is what it has printed, too.
    fn keep_as_payload(&mut self, file: &NamedTempFile, bulk: Bulk) {
        match file.reopen() {
            Ok(file) => self.payload = Some(Fetched::File(file, bulk.len)),
            Err(error) => self.failed = Some(format!("it can't be read again: {error}")),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty() || self.failed.is_some()
    }

    /// The report, with its payload. If its outcome `counts`, its files are in their places by now.
    pub(super) fn finish(mut self, counts: bool) -> (Report, Fetched) {
        let mut failed = self.failed.take();
        if failed.is_none() && counts {
            failed = self.put_files().err();
        }
        let Some(why) = failed else {
            let payload = self.payload.unwrap_or(Fetched::Memory(Vec::new()));
            return (self.report, payload);
        };
        if let What::Ended {
            ending,
            stdout,
            stderr,
            ..
        } = &mut self.report.what
        {
            *ending = Ending::Undecodable(format!("what it has made did not come through: {why}"));
            (*stdout, *stderr) = (0, 0);
        }
        (self.report, Fetched::Memory(Vec::new()))
    }

    fn put_files(&mut self) -> Result<(), String> {
        for (bulk, place) in self.report.files.iter().zip(&self.places) {
            let put = match self.files.remove(bulk) {
                Some(file) => file.persist(place).map(drop).map_err(|error| error.error),
                // Another file with the same content has been put in its place.
                None => self.copy(*bulk, place),
            };
            put.map_err(|error| format!("{} can't be written: {error}", place.display()))?;
        }
        Ok(())
    }

    fn copy(&self, bulk: Bulk, place: &Path) -> io::Result<()> {
        let mut pairs = self.report.files.iter().zip(&self.places);
        let same = pairs.find(|(other, path)| **other == bulk && *path != place);
        let (_, from) = same.ok_or_else(|| io::Error::other("it has not come"))?;
        fs::copy(from, place).map(drop)
    }
}

/// A file beside the place that it will have, so that it gets there in one step.
fn beside(place: &Path) -> io::Result<NamedTempFile> {
    let directory = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut builder = tempfile::Builder::new();
    // As any file that a program makes: the system takes from it what this process's mask says.
    builder
        .prefix(".coordinator-")
        .permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_may_be_the_same_as_what_was_printed() {
        let directory = tempfile::TempDir::new().unwrap();
        let place = directory.path().join("out/file");
        let bulk = Bulk {
            hash: [1; 32],
            len: 4,
        };
        let report = Report {
            epoch: 1,
            serial: 1,
            lease: 1,
            what: What::Ended {
                index: 0,
                ending: Ending::Value,
                nanos: 0,
                slot: 1,
                worker: 1,
                stdout: 4,
                stderr: 0,
                note: None,
            },
            payload: Carried::Apart(bulk),
            files: vec![bulk],
        };
        let mut awaited = Awaited::new(report, b"", vec![place.clone()]);
        assert!(!awaited.is_complete() && awaited.misses(&bulk));
        let Target::Named(make) = awaited.place_for(&bulk).unwrap() else {
            panic!("it is a file");
        };
        let mut file = make().unwrap();
        file.write_all(b"same").unwrap();
        awaited.arrived(bulk, Ok(Fetched::Named(file)));
        assert!(awaited.is_complete());
        let (_, payload) = awaited.finish(true);
        assert_eq!(payload.into_bytes().unwrap(), b"same");
        assert_eq!(fs::read(place).unwrap(), b"same");
    }
}
