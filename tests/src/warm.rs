//! Tasks for warm copies: initializers, and what a call finds of them.
#![allow(missing_docs)]
#![allow(unsafe_code, reason = "questions to the kernel")]

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use worker::task;

use crate::tasks::append;

/// What an initializer leaves in memory.
#[derive(Debug)]
struct Loaded {
    by: u32,
    bytes: Vec<u8>,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();

/// What a call finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    /// The process that has run the initializer.
    pub loaded_by: Option<u32>,
    pub bytes: usize,
    /// How many files are open.
    pub files: usize,
    /// Whether C knows the number of its thread.
    pub thread_is_known: bool,
}

fn keep(bytes: usize) {
    LOADED.get_or_init(|| Loaded {
        by: std::process::id(),
        bytes: vec![7; bytes],
    });
}

/// Takes this many milliseconds, and keeps this much memory.
#[task]
pub fn load(ms: u64, bytes: usize) {
    std::thread::sleep(Duration::from_millis(ms));
    keep(bytes);
}

/// Keeps nothing much, and notes in a file that it ran.
#[task]
pub fn load_and_note(ledger: PathBuf) -> Result<(), std::io::Error> {
    keep(1);
    append(ledger, std::process::id().to_string())
}

/// Leaves a thread with this name behind.
#[task]
pub fn load_with_thread(name: String) -> Result<(), std::io::Error> {
    keep(1);
    let thread = std::thread::Builder::new().name(name);
    thread.spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    Ok(())
}

/// Is quick the first time, and then takes a minute.
#[task]
pub fn load_slowly_again(ledger: PathBuf) -> Result<(), std::io::Error> {
    let is_first = !ledger.exists();
    load_and_note(ledger)?;
    if !is_first {
        std::thread::sleep(Duration::from_secs(60));
    }
    Ok(())
}

/// Leaves room for hardly any file more.
#[task]
pub fn load_without_room_for_files() {
    let Ok(lowest_free) = std::fs::File::open("/dev/null").map(|file| file.as_raw_fd()) else {
        return;
    };
    let most = u64::from(lowest_free.unsigned_abs()) + 3;
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: a plain setting of this process.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Leaves no standard stream open.
#[task]
pub fn load_and_close_streams() {
    keep(1);
    for stream in 0..3 {
        // SAFETY: plain calls; nothing in this process needs these descriptors.
        unsafe { libc::close(stream) };
    }
}

/// Has several threads load, and waits for them.
#[task]
pub fn load_by_threads(threads: usize) {
    let one = |_| std::thread::spawn(|| std::hint::black_box(vec![1_u8; 1 << 20]).len());
    let threads: Vec<_> = (0..threads).map(one).collect();
    let loaded = threads.into_iter().map(|thread| thread.join().unwrap_or(0));
    keep(loaded.sum());
}

/// What this worker is, and what it has of the initializer.
#[task]
pub fn found() -> Found {
    let loaded = LOADED.get();
    let id = |pid: libc::pid_t| pid.unsigned_abs();
    // SAFETY: plain questions.
    let (parent, group) = unsafe { (id(libc::getppid()), id(libc::getpgrp())) };
    Found {
        pid: std::process::id(),
        parent,
        group,
        loaded_by: loaded.map(|loaded| loaded.by),
        bytes: loaded.map_or(0, |loaded| {
            loaded.bytes.iter().filter(|byte| **byte == 7).count()
        }),
        files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        thread_is_known: thread_is_known(),
    }
}

/// A mutex of this kind notes the thread that holds it, by C's own number of it.
fn thread_is_known() -> bool {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    let mut noted: *const libc::pid_t = std::ptr::null();
    // SAFETY: the system writes an address of this process's memory, where C keeps the number.
    unsafe {
        libc::prctl(PR_GET_TID_ADDRESS, &raw mut noted, 0, 0, 0) == 0 && *noted == libc::gettid()
    }
}

/// The share of memory that this worker accounts for, in bytes: what several have in common is divided among them.
#[task]
pub fn memory_share() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(u64::MAX >> 10) << 10
}
