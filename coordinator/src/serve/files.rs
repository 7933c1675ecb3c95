//! The files of calls: what goes along with them stands in a directory of its own for each call, and what they make is taken
//! from there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use protocol::agent::{Bulk, Files, Sent};
use tempfile::NamedTempFile;

use super::life;
use crate::agents::bulk;
use crate::payload::stays_within;

/// The file whose lock an agent holds as long as it needs the directory around it.
const LOCK: &str = "lock";
/// How long an agent may take to make its directory.
const YOUNG: Duration = Duration::from_secs(10);
/// How much of a file is copied before one looks whether it is still needed, in bytes.
const PART: u64 = 16 << 20;

/// The files of a run. Dropping it removes them.
#[derive(Debug)]
pub(super) struct RunFiles {
    directory: PathBuf,
    /// As long as it is held, no other agent takes the directory for one that was left behind.
    _lock: File,
    /// What was fetched, and how many leases need it.
    kept: BTreeMap<Bulk, (usize, Option<PathBuf>)>,
}

/// What a call has made.
pub(super) type Made = Vec<(Bulk, Arc<File>)>;

impl RunFiles {
    /// Room for the files of a run, for the agent with this home. What former agents have left is removed.
    pub(super) fn new(home: u64) -> io::Result<Self> {
        Self::within(&life::directory("calls")?, home)
    }

    /// The same, among the directories of all runs.
    fn within(all: &Path, home: u64) -> io::Result<Self> {
        sweep(all)?;
        let directory = all.join(format!("{home:016x}"));
        fs::create_dir(&directory)?;
        let lock = File::create(directory.join(LOCK))?;
        lock.try_lock()?;
        fs::create_dir(directory.join("calls"))?;
        Ok(RunFiles {
            directory,
            _lock: lock,
            kept: BTreeMap::new(),
        })
    }

    /// The directory that has one for each call.
    pub(super) fn calls(&self) -> PathBuf {
        self.directory.join("calls")
    }

    /// A lease needs these: those that have to be fetched.
    pub(super) fn need(&mut self, files: &[Files]) -> Vec<Bulk> {
        let mut missing = Vec::new();
        for sent in files.iter().flat_map(|files| &files.send) {
            let kept = self.kept.entry(sent.bulk).or_default();
            kept.0 += 1;
            if kept.1.is_none() {
                missing.push(sent.bulk);
            }
        }
        missing
    }

    /// Whether something is a file of a call.
    pub(super) fn needs(&self, bulk: &Bulk) -> bool {
        self.kept.get(bulk).is_some_and(|(_, kept)| kept.is_none())
    }

    /// A place for what is being fetched.
    pub(super) fn place(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(&self.directory)
    }

    /// Keeps what has come.
    pub(super) fn keep(&mut self, bulk: &Bulk, file: NamedTempFile) -> io::Result<()> {
        let (_, path) = file.keep()?;
        match self.kept.get_mut(bulk) {
            Some((_, kept)) => *kept = Some(path),
            None => fs::remove_file(path)?,
        }
        Ok(())
    }

    /// A lease needs these no more.
    pub(super) fn forget(&mut self, files: &[Files]) {
        for sent in files.iter().flat_map(|files| &files.send) {
            let Some((count, _)) = self.kept.get_mut(&sent.bulk) else {
                continue;
            };
            *count -= 1;
            if *count == 0
                && let Some((_, Some(path))) = self.kept.remove(&sent.bulk)
            {
                // It goes with the directory of the run at the latest.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// What has to be done for the directories of these calls to be there: it takes as long as copying does.
    pub(super) fn plan(&self, files: &[Files]) -> Plan {
        let sources = files.iter().flat_map(|files| &files.send);
        let sources = sources.filter_map(|sent| {
            let (_, path) = self.kept.get(&sent.bulk)?;
            Some((sent.bulk, path.clone()?))
        });
        Plan {
            calls: self.calls(),
            files: files.to_vec(),
            sources: sources.collect(),
        }
    }

    /// The directory of a call is not needed any more.
    pub(super) fn remove(&self, index: u64) {
        // It goes with the directory of the run at the latest.
        let _ = fs::remove_dir_all(self.calls().join(index.to_string()));
    }
}

/// Removes the directories whose agents are dead. Several agents of this user may be alive, over ssh one for each run.
fn sweep(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)?.flatten() {
        let is_used = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => lock.try_lock().is_err(),
            // It is being made, if it is young.
            Err(_) => is_young(&entry.path()),
        };
        if !is_used {
            // Another agent may be removing it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn is_young(path: &Path) -> bool {
    let age = path
        .metadata()
        .and_then(|found| found.modified())
        .map(|made| made.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < YOUNG)
}

impl Drop for RunFiles {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            log::warn!(
                "the files of a run stay in {}: {error}",
                self.directory.display()
            );
        }
    }
}

/// What is needed for the directories of calls.
#[derive(Debug)]
pub(super) struct Plan {
    calls: PathBuf,
    files: Vec<Files>,
    sources: BTreeMap<Bulk, PathBuf>,
}

/// A plan that is being carried out, on a thread of its own.
#[derive(Debug)]
pub(super) struct Laying {
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Laying {
    /// The rest need not be done: it ends soon.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Ends it, and waits for that.
    pub(super) fn end(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed.
            let _ = thread.join();
        }
    }
}

impl Plan {
    /// Begins to make the directories, and to put the files there. `done` is called in the end.
    pub(super) fn begin(
        self,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<Laying> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let thread = thread::Builder::new().name("files".to_owned());
        let thread = thread.spawn(move || done(self.carry_out(&stop)))?;
        Ok(Laying {
            is_stopped,
            thread: Some(thread),
        })
    }

    /// An earlier attempt may have left a directory.
    fn carry_out(&self, stop: &AtomicBool) -> io::Result<()> {
        for call in &self.files {
            let directory = self.calls.join(call.index.to_string());
            if directory.exists() {
                fs::remove_dir_all(&directory)?;
            }
            fs::create_dir(&directory)?;
            for sent in &call.send {
                self.put(&directory, sent, stop).map_err(|error| {
                    let name = OsStr::from_bytes(&sent.name);
                    io::Error::other(format!(
                        "the file {name:?} of a call can't be put in place: {error}"
                    ))
                })?;
            }
            for name in &call.fetch {
                let path = within(&directory, name)?;
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
            }
        }
        Ok(())
    }

    fn put(&self, directory: &Path, sent: &Sent, stop: &AtomicBool) -> io::Result<()> {
        let path = within(directory, &sent.name)?;
        let source = self.sources.get(&sent.bulk);
        let source = source.ok_or_else(|| io::Error::other("it has not come"))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        copy(source, &path, stop)?;
        fs::set_permissions(&path, Permissions::from_mode(sent.mode & 0o777 | 0o600))
    }
}

/// Copies a file, in parts: between them it may be stopped.
fn copy(from: &Path, to: &Path, stop: &AtomicBool) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("it is not needed any more"));
        }
        // The kernel does that, if it can.
        if io::copy(&mut from.by_ref().take(PART), &mut to)? == 0 {
            return Ok(());
        }
    }
}

/// A path within the directory of a call.
fn within(directory: &Path, name: &[u8]) -> io::Result<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name));
    match stays_within(name) {
        true => Ok(directory.join(name)),
        false => Err(io::Error::other(format!(
            "{name:?} leads out of the directory of a call"
        ))),
    }
}

/// Opens what a call has made, and does not wait for anything: it may be a pipe, into which nobody writes.
fn open_at_once(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(path)
}

/// What a call that has succeeded has made of what is wanted of it. An error says what it has not made.
pub(super) fn collect(calls: &Path, files: &Files) -> Result<Made, String> {
    let directory = calls.join(files.index.to_string());
    let mut made = Vec::new();
    for name in &files.fetch {
        let shown = OsStr::from_bytes(name);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("it has made no file {shown:?}, which was to be fetched")
            }
            _ => format!("the file {shown:?} can't be fetched: {error}"),
        };
        let file = within(&directory, name)
            .and_then(|path| open_at_once(&path))
            .map_err(failed)?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(format!("{shown:?} is no file, and can't be fetched"));
        }
        let bulk = bulk::name_of(&file).map_err(failed)?;
        made.push((bulk, Arc::new(file)));
    }
    Ok(made)
}

#[cfg(test)]
impl RunFiles {
    /// Room for the files of a run of a test.
    pub(super) fn for_test(all: &Path) -> io::Result<Self> {
        Self::within(all, 7)
    }

    /// Where something is kept.
    pub(super) fn kept(&self, bulk: &Bulk) -> Option<PathBuf> {
        self.kept.get(bulk)?.1.clone()
    }
}
