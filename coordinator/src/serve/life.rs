//! The lock that makes a process the agent of its name on this machine, and the end of the former one.
//!
//! Whoever holds the lock proves that the former agent is dead. Its workers die with it, but not in the same moment, and what a
//! command has started may outlive both. So all that an agent starts has a mark in its environment, and the next agent kills
//! what still has it before it says a word.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::PoolError;

/// The variable that marks what an agent has started.
const MARK: &str = "COORDINATOR_AGENT";
/// How long a former agent may take to be gone, once it was killed.
const GONE: Duration = Duration::from_secs(2);
/// What the locks of agents for one run begin with.
const OF_A_RUN: &str = "run-";
/// How many lives an agent's process may have.
const LIVES: u64 = 1 << 24;

/// The lock, for as long as this process is the agent.
#[derive(Debug)]
pub(super) struct Life {
    _lock: File,
    /// What is removed in the end: a lock for one run is of no use after it.
    passing: Option<PathBuf>,
    /// A number that is never two machines'.
    pub(super) home: u64,
    /// The first life of this process: more than any of the former.
    pub(super) epoch: u64,
}

/// Where agents keep what outlives them.
pub(super) fn directory(name: &str) -> io::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty());
    let cache = cache.map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).ok_or_else(|| {
        io::Error::other("neither XDG_CACHE_HOME nor HOME is set, so there is no place for it")
    })?;
    let directory = cache.join("coordinator").join(name);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)?;
    Ok(directory)
}

impl Life {
    /// Becomes the agent of this name, once all that the former one has started is dead.
    pub(super) fn begin(name: &str) -> Result<Self, PoolError> {
        let failed = |error: io::Error| {
            PoolError::System(format!(
                "the lock of the agent {name} can't be had: {error}"
            ))
        };
        let directory = directory("agents").map_err(failed)?;
        let path = directory.join(name);
        let mut lock = open(&path).map_err(failed)?;
        if !take(&lock).map_err(failed)? {
            return Err(PoolError::System(format!(
                "an agent named {name} runs on this machine already: end that one, or choose another name with --name"
            )));
        }
        let (home, lives) = read(&mut lock).map_err(failed)?;
        let lives = lives + 1;
        end_former(home).map_err(failed)?;
        write(&lock, home, lives).map_err(failed)?;
        Ok(Life {
            _lock: lock,
            passing: None,
            home,
            epoch: lives.saturating_mul(LIVES),
        })
    }

    /// Becomes the agent of one run on this machine. Its coordinator has drawn a number for that, and counts the processes.
    pub(super) fn of_run(home: u64, process: u64) -> Result<Self, PoolError> {
        let failed = |error: io::Error| {
            PoolError::System(format!(
                "the lock of this run's agent can't be had: {error}"
            ))
        };
        let directory = directory("agents").map_err(failed)?;
        sweep(&directory);
        let path = directory.join(format!("{OF_A_RUN}{}", mark(home)));
        let lock = loop {
            let lock = open(&path).map_err(failed)?;
            if !take(&lock).map_err(failed)? {
                return Err(PoolError::System(
                    "its former agent has not ended yet".to_owned(),
                ));
            }
            // The former agent may have removed it while this one waited for it. Then a third would make another one.
            if leads_to(&path, &lock) {
                break lock;
            }
        };
        end_former(home).map_err(failed)?;
        Ok(Life {
            _lock: lock,
            passing: Some(path),
            home,
            epoch: process.saturating_mul(LIVES),
        })
    }

    /// The mark of what this agent starts.
    pub(super) fn mark(&self) -> (OsString, OsString) {
        (MARK.into(), mark(self.home).into())
    }
}

impl Drop for Life {
    /// All that this agent has started is dead.
    fn drop(&mut self) {
        if let Some(path) = &self.passing {
            // If it is in the way of nobody, it may stay.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the locks of agents for one run that were killed, and whose run has not started them again.
fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of_runs = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(OF_A_RUN))
    });
    for entry in of_runs {
        let path = entry.path();
        let lock = File::open(&path);
        // Whoever waits for it finds that it is gone, and makes another one.
        if let Ok(lock) = lock
            && lock.try_lock().is_ok()
            && leads_to(&path, &lock)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a file is still what its path leads to.
fn leads_to(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(file)) => (there.dev(), there.ino()) == (file.dev(), file.ino()),
        _ => false,
    }
}

fn mark(home: u64) -> String {
    format!("{home:016x}")
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// Takes the lock. A process that was just killed takes a moment to let go of it.
fn take(lock: &File) -> io::Result<bool> {
    let until = Instant::now() + GONE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(false),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The machine's number for this name, and how many processes have been its agent. A file that makes no sense is a new one.
fn read(lock: &mut File) -> io::Result<(u64, u64)> {
    let mut text = String::new();
    // It may hold anything.
    let _ = lock.take(100).read_to_string(&mut text);
    let known = text.split_once(' ').and_then(|(home, lives)| {
        let home = u64::from_str_radix(home, 16).ok()?;
        Some((home, lives.trim().parse().ok()?))
    });
    match known {
        Some(known) => Ok(known),
        None => Ok((getrandom::u64()?, 0)),
    }
}

fn write(lock: &File, home: u64, lives: u64) -> io::Result<()> {
    // In place, and always of the same length: a full disk has room for what stands there already, and an empty file would be a
    // new home, whose former agent nobody knows.
    let text = format!("{} {lives:020}\n", mark(home));
    lock.write_all_at(text.as_bytes(), 0)?;
    lock.set_len(text.len() as u64)?;
    // A life that was forgotten might be begun a second time.
    lock.sync_data()
}

/// Kills what has the mark, until nothing has.
fn end_former(home: u64) -> io::Result<()> {
    let marked = format!("{MARK}={}", mark(home));
    let until = Instant::now() + GONE;
    loop {
        let left = processes_with(marked.as_bytes());
        if left.is_empty() {
            return Ok(());
        }
        for pid in &left {
            // It may have ended meanwhile.
            let _ = kill_process(*pid, Signal::KILL);
        }
        if Instant::now() >= until {
            return Err(io::Error::other(format!(
                "{} processes of the former agent can't be killed; the first is {}",
                left.len(),
                left[0].as_raw_nonzero()
            )));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The living processes of this user whose environment began with this variable. Zombies have none.
fn processes_with(variable: &[u8]) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let marked = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let is_marked = environment
            .split(|byte| *byte == 0)
            .any(|set| set == variable);
        is_marked.then(|| Pid::from_raw(pid)).flatten()
    });
    let this = rustix::process::getpid();
    marked.filter(|pid| *pid != this).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_stood_there() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a");
        for before in ["", "00000000000000ff 7\n", "nonsense", &"x".repeat(1000)] {
            fs::write(&path, before).unwrap();
            let (home, lives) = read(&mut open(&path).unwrap()).unwrap();
            if before.contains("ff 7") {
                assert_eq!((home, lives), (0xff, 7));
            }
            for lives in [lives + 1, u64::MAX] {
                write(&open(&path).unwrap(), home, lives).unwrap();
                assert_eq!(read(&mut open(&path).unwrap()).unwrap(), (home, lives));
            }
        }
    }

    /// A write that fails leaves what stood there: it is never empty in between.
    #[test]
    fn a_life_is_counted_in_place() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a");
        write(&open(&path).unwrap(), 0xff, 7).unwrap();
        let length = path.metadata().unwrap().len();
        write(&open(&path).unwrap(), 0xff, 123_456).unwrap();
        assert_eq!(path.metadata().unwrap().len(), length);
    }
}
