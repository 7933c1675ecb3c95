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
use crate::agents::bulk::{self, Target};
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
        // What a former run has left, and can't be removed, must not be in the way of this one.
        let directory = all.join(format!("{home:016x}-{:016x}", getrandom::u64()?));
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
    pub(super) fn place(&self) -> Target {
        let directory = self.directory.clone();
        Target::Named(Box::new(move || NamedTempFile::new_in(directory)))
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
        let _ = remove_all(&self.calls().join(index.to_string()));
    }
}

/// Removes the directories whose agents are dead. Several agents of this user may be alive, over ssh one for each run.
fn sweep(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)?.flatten() {
        let path = entry.path();
        let lock = path.join(LOCK);
        // What is young may be in the making: its lock is not held yet, and nobody else must hold it, not even to see that.
        if is_young(&lock).unwrap_or_else(|_| is_young(&path).unwrap_or(true)) {
            continue;
        }
        let is_used = File::open(&lock).is_ok_and(|lock| lock.try_lock().is_err());
        if !is_used && let Err(error) = remove_all(&path) {
            // Another agent may be removing it, too. It is in nobody's way.
            log::info!(
                "what a former run has left in {} stays: {error}",
                path.display()
            );
        }
    }
    Ok(())
}

fn is_young(path: &Path) -> io::Result<bool> {
    let made = path.metadata()?.modified()?;
    Ok(made.elapsed().unwrap_or_default() < YOUNG)
}

/// Removes a directory, also if a call has forbidden its owner to do so: to write there, or in what is in it.
fn remove_all(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(directory)?;
            fs::remove_dir_all(directory)
        }
        removed => removed,
    }
}

fn unlock(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // What a link leads to is left alone.
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

impl Drop for RunFiles {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.directory) {
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
                remove_all(&directory)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::sync::mpsc::channel;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;

    fn calls_of(indices: &[u64]) -> Vec<Files> {
        let files = indices.iter().map(|index| Files {
            index: *index,
            send: Vec::new(),
            fetch: vec![b"in/out".to_vec()],
        });
        files.collect()
    }

    /// A directory that its owner may not write is in the way of nobody. (Root may write it all the same.)
    #[test]
    fn what_a_call_has_locked_is_removed() {
        let place = TempDir::new().unwrap();
        let files = RunFiles::for_test(place.path()).unwrap();
        for _ in 0..2 {
            let (to, done) = channel();
            let plan = files.plan(&calls_of(&[5]));
            let _laying = plan
                .begin(move |laid_out| to.send(laid_out).unwrap())
                .unwrap();
            done.recv().unwrap().unwrap();
            let inner = files.calls().join("5/in");
            fs::write(inner.join("out"), "x").unwrap();
            fs::create_dir(inner.join("deeper")).unwrap();
            fs::write(inner.join("deeper/x"), "x").unwrap();
            for (name, mode) in [("in/deeper", 0), ("in", 0o500), ("", 0o500)] {
                let path = files.calls().join("5").join(name);
                fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
        }
        drop(files);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_left_is_swept_and_what_is_being_made_is_not() {
        let place = TempDir::new().unwrap();
        let [young, old] = ["young", "old"].map(|name| place.path().join(name));
        for directory in [&young, &old] {
            fs::create_dir(directory).unwrap();
            File::create(directory.join(LOCK)).unwrap();
        }
        let before = SystemTime::now() - Duration::from_secs(3600);
        let lock = File::options().write(true).open(old.join(LOCK)).unwrap();
        lock.set_modified(before).unwrap();
        drop(lock);
        let _files = RunFiles::for_test(place.path()).unwrap();
        assert!(young.exists() && !old.exists());
    }

    /// The agent that had this home before may have left what can't be removed.
    #[test]
    fn two_runs_of_an_agent_have_directories_of_their_own() {
        let place = TempDir::new().unwrap();
        let one = RunFiles::for_test(place.path()).unwrap();
        let two = RunFiles::for_test(place.path()).unwrap();
        assert_ne!(one.calls(), two.calls());
    }
}
