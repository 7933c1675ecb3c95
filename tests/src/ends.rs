//! Tasks that die, in every way there is and at every stage of a call.
#![allow(missing_docs)]
#![allow(unsafe_code, reason = "the misbehaviour of C code")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use worker::task;

use crate::tasks::{overflow_stack, talk_rubbish};

/// How a worker comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Signal(i32),
    Segfault,
    Abort,
    StackOverflow,
    Exit(i32),
    /// Without destructors or buffers being flushed.
    CExit(i32),
    CloseLink,
    Rubbish,
}

impl End {
    /// Meets it. Some ends take effect a moment later, from outside.
    pub fn meet(self) {
        // SAFETY: ending this process is what these are for.
        unsafe {
            match self {
                End::Signal(number) => _ = libc::raise(number),
                End::Segfault => segfault(),
                End::Abort => std::process::abort(),
                End::StackOverflow => _ = overflow_stack(1),
                End::Exit(code) => std::process::exit(code),
                End::CExit(code) => libc::_exit(code),
                End::CloseLink => close_sockets(),
                End::Rubbish => {
                    let () = talk_rubbish();
                    // Or another call would be running when it is found out.
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
    }
}

/// Writes where nothing is, as C code would: Rust's own checks are not to get in its way.
fn segfault() {
    let nowhere = std::ptr::with_exposed_provenance_mut(std::hint::black_box(8));
    // SAFETY: none; the process dies of it.
    unsafe {
        libc::memset(nowhere, 0, std::hint::black_box(1));
    }
}

fn close_sockets() {
    for fd in sockets() {
        // SAFETY: the link is lost by this, as is intended; nothing else uses it meanwhile.
        unsafe {
            libc::close(fd);
        }
    }
    // Whoever has no link any more must not count on leaving by itself.
    loop {
        std::thread::park();
    }
}

fn sockets() -> Vec<i32> {
    let is_socket = |fd: &i32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        link.to_string_lossy().starts_with("socket:")
    };
    (3..64).filter(is_socket).collect()
}

/// Appends a line to a file in one write: several processes may do so at once.
pub(crate) fn note(ledger: &Path, line: &str) -> Result<(), std::io::Error> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(ledger)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// Squares, leaving `x` and its process id in a ledger; or comes to an end, with a last word.
#[task]
pub fn square_or_end(x: i64, end: Option<End>, ledger: PathBuf) -> Result<i64, std::io::Error> {
    note(&ledger, &format!("{x} {}", std::process::id()))?;
    if let Some(end) = end {
        eprintln!("{x} says goodbye");
        // So that there is something to measure.
        std::thread::sleep(Duration::from_millis(5));
        end.meet();
    }
    Ok(x * x)
}

/// Kills its worker on its first attempts; returns the number of the one that it survives.
#[task]
pub fn survive_at(attempt: u32, end: End) -> u32 {
    let now = worker::current().map_or(0, |call| call.attempt);
    if now < attempt {
        end.meet();
    }
    now
}

/// Notes the time of each attempt, in milliseconds of a clock that all processes share, and fails.
#[task]
pub fn note_time_and_fail(ledger: PathBuf) -> Result<(), String> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: there is room for what the kernel writes.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    let ms = now.tv_sec * 1000 + now.tv_nsec / 1_000_000;
    note(&ledger, &ms.to_string()).map_err(|error| error.to_string())?;
    Err(format!("at {ms}"))
}

/// Panics where it can't unwind: in a function that C could call, or while it is unwinding already.
#[task]
pub fn panic_for_good(while_unwinding: bool) {
    extern "C" fn of_c() {
        panic!("not into C");
    }
    struct Twice;
    impl Drop for Twice {
        fn drop(&mut self) {
            panic!("once more");
        }
    }
    if while_unwinding {
        let _twice = Twice;
        panic!("once");
    }
    of_c();
}

/// Catches a panic of its own, and is killed by something else.
#[task]
pub fn catch_and_end(end: End) {
    let _ = std::panic::catch_unwind(|| panic!("caught"));
    end.meet();
}

/// Runs until it is stopped, and never sleeps.
#[task]
pub fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

#[task]
pub fn echo_text(text: String) -> String {
    text
}

#[task]
pub fn length(text: String) -> usize {
    text.len()
}

/// Returns `size` bytes, but is killed as soon as the first of them are in its socket.
#[task]
pub fn die_while_sending(size: usize) -> String {
    std::thread::spawn(|| {
        let sockets = sockets();
        loop {
            for fd in &sockets {
                let mut unread: libc::c_int = 0;
                // SAFETY: the kernel writes one int, and there is room for it.
                unsafe {
                    libc::ioctl(*fd, libc::TIOCOUTQ, &raw mut unread);
                }
                if unread > 0 {
                    End::Signal(libc::SIGKILL).meet();
                }
            }
        }
    });
    "x".repeat(size)
}

/// Leaves a child of C's kind behind, one that has not called exec: it has this worker's link and
/// lifeline open, and is in a session of its own. Writes the child's number to a file and dies.
#[task]
pub fn fork_and_exit(file: PathBuf, code: i32) {
    let part = file.with_extension("part");
    let mut pipe = [0; 2];
    // SAFETY: the child only makes calls that are allowed after a fork, and there is room for what
    // the kernel writes.
    unsafe {
        libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC);
        let child = libc::fork();
        if child == 0 {
            libc::setsid();
            libc::close(pipe[0]);
            libc::close(pipe[1]);
            // Should the test not come to end it.
            libc::alarm(60);
            loop {
                libc::pause();
            }
        }
        // It has left the group when its end is closed.
        libc::close(pipe[1]);
        libc::read(pipe[0], (&raw mut pipe).cast(), 1);
        let written = std::fs::write(&part, child.to_string());
        let _ = written.and_then(|()| std::fs::rename(part, file));
        libc::_exit(code);
    }
}

/// Returns from a copy of the worker, too, and something else: much, or little.
#[task]
pub fn fork_and_return(size: usize) -> String {
    // SAFETY: the copy goes on as the worker would, whose calls run on its only thread.
    let letter = match unsafe { libc::fork() } {
        0 => "c",
        _ => "w",
    };
    letter.repeat(size)
}

/// Where in the life of a call something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    DecodeInput,
    Run,
    EncodeOutput,
    /// In the coordinator.
    DecodeOutput,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    Error,
    Panic,
    End(End),
}

/// Something that goes wrong on its way, or doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap(pub Option<(Stage, Wrong)>);

impl Trap {
    fn at(self, stage: Stage) -> Result<Self, String> {
        match self.0 {
            Some((set, wrong)) if set == stage => match wrong {
                Wrong::Error => Err(format!("went wrong in {stage:?}")),
                Wrong::Panic => panic!("panicked in {stage:?}"),
                Wrong::End(end) => {
                    end.meet();
                    Ok(self)
                }
            },
            _ => Ok(self),
        }
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if worker::current().is_some() {
            self.at(Stage::EncodeOutput).map_err(S::Error::custom)?;
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let here = match worker::current() {
            Some(_) => Stage::DecodeInput,
            None => Stage::DecodeOutput,
        };
        let trap = Trap(Option::deserialize(deserializer)?);
        trap.at(here).map_err(D::Error::custom)
    }
}

#[task]
pub fn walk(trap: Trap) -> Result<Trap, String> {
    trap.at(Stage::Run)
}

/// How many [`Counted`] there are in this process.
pub static COUNTED: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Serialize)]
pub struct Counted(u64);

impl Counted {
    pub fn new(number: u64) -> Self {
        COUNTED.fetch_add(1, Ordering::Relaxed);
        Counted(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNTED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Counted::new)
    }
}

/// Passes a value on, and says how many of its kind its worker holds.
#[task]
pub fn count(counted: Counted) -> (Counted, usize) {
    (counted, COUNTED.load(Ordering::Relaxed))
}
