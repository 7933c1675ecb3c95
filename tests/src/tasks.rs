//! Tasks that misbehave, and some that behave, for the tests.
#![allow(missing_docs)]
#![allow(unsafe_code, reason = "the misbehaviour of C code")]
#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use coordinator::Pool;
use serde::{Deserialize, Serialize};
use worker::task;

/// From now on a signal does to this process what it does by default.
pub fn heed(signal: i32) {
    // SAFETY: a plain call, and nobody here handles it.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
    }
}

#[task]
pub fn square(x: i64) -> i64 {
    x * x
}

#[task]
pub fn power(base: u64, exponent: u32) -> Result<u64, String> {
    base.checked_pow(exponent).ok_or_else(|| "overflow".into())
}

/// Echoes bytes.
#[task]
pub fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

#[task]
pub fn count_bytes(bytes: serde_bytes::ByteBuf) -> u64 {
    bytes.len() as u64
}

#[task]
pub fn sleep_ms(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// Fails below zero, or else sleeps that many milliseconds.
#[task]
pub fn fail_or_sleep(ms: i64) -> Result<(), String> {
    let ms = u64::try_from(ms).map_err(|_| ms.to_string())?;
    std::thread::sleep(Duration::from_millis(ms));
    Ok(())
}

/// The same, and makes a file first, if it is told to.
#[task]
pub fn begin_and_fail_or_sleep(file: Option<PathBuf>, ms: i64) -> Result<(), String> {
    if let Some(file) = file {
        std::fs::write(file, "").map_err(|error| error.to_string())?;
    }
    fail_or_sleep(ms)
}

/// Waits for a file to be there.
#[task]
pub fn wait_for_file(file: Option<PathBuf>) {
    while file.as_ref().is_some_and(|file| !file.exists()) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[task]
pub fn fail(text: String) -> Result<(), String> {
    Err(text)
}

/// Prints the number of the attempt, and fails unless it is the one that is to succeed.
#[task]
pub fn succeed_at(attempt: u32) -> Result<u32, String> {
    let now = worker::current().map_or(0, |call| call.attempt);
    println!("out {now}");
    eprintln!("err {now}");
    match now == attempt {
        true => Ok(now),
        false => Err(format!("attempt {now}")),
    }
}

/// Prints a line with the number of the attempt, waits for a file with this number as its extension,
/// and fails if that says so.
#[task]
pub fn print_and_wait(text: String, path: PathBuf) -> Result<(), String> {
    let now = worker::current().map_or(0, |call| call.attempt);
    println!("{text} {now}");
    eprintln!("{text} {now} err");
    let path = path.with_extension(now.to_string());
    crate::eventually("the call may end", || path.exists());
    match std::fs::read_to_string(path) {
        Ok(text) if text.is_empty() => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

#[task]
pub fn panic_with(text: String) {
    panic!("{text}");
}

#[task]
pub fn exit_with(code: i32) {
    std::process::exit(code);
}

/// Raises a signal against this process.
#[task]
pub fn raise(signal: i32) {
    // SAFETY: no memory is involved; dying is what this task is for.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Squares, but kills its worker on one input.
#[task]
pub fn square_but_die(x: i64, deadly: i64) -> i64 {
    if x == deadly {
        // As a statement, clippy takes a task's call for the making of a struct without effect.
        let () = raise(libc::SIGKILL);
    }
    x * x
}

#[task]
pub fn pid() -> u32 {
    std::process::id()
}

/// Worker, index and attempt of this very call.
#[task]
pub fn current() -> Option<(u32, u64, u32)> {
    worker::current().map(|call| (call.worker, call.index, call.attempt))
}

#[task]
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Appends a line to a file, in one write, so that runs can be counted.
#[task]
pub fn append(path: PathBuf, line: String) -> Result<(), std::io::Error> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

/// A pool within a worker of a pool.
#[task]
pub fn sum_of_squares(n: i64) -> Result<i64, String> {
    let pool = Pool::new(2).map_err(|error| error.to_string())?;
    let squares = pool.map(square, 1..=n).map_err(|error| error.to_string())?;
    Ok(squares.into_iter().sum())
}

/// Something that can be encoded and decoded only if it is told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragile(pub bool);

impl Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            true => serializer.serialize_bool(true),
            false => Err(serde::ser::Error::custom("too fragile")),
        }
    }
}

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer).map(Fragile)
    }
}

#[task]
pub fn fragile_output(sturdy: bool) -> Fragile {
    Fragile(sturdy)
}

#[task]
pub fn fragile_input(input: Fragile) -> bool {
    input.0
}

/// Prints a line in every way there is, after a while.
#[task]
pub fn print_every_way(number: u64, ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
    println!("{number} rust");
    let line = format!("{number} C\n\0");
    // SAFETY: the string ends with NUL, and so does the format.
    unsafe {
        libc::printf(c"%s".as_ptr(), line.as_ptr());
    }
    let _ = Command::new("sh")
        .args(["-c", &format!("echo {number} child; echo {number} err >&2")])
        .status();
    eprintln!("{number} rust err");
}

/// Prints without ending the line.
#[task]
pub fn print_part(text: String) {
    print!("{text}");
}

/// Prints a line and dies at once.
#[task]
pub fn print_and_abort(text: String) {
    println!("{text}");
    let line = format!("{text} from C\n\0");
    // SAFETY: the string ends with NUL, and so does the format.
    unsafe {
        libc::printf(c"%s".as_ptr(), line.as_ptr());
    }
    eprintln!("{text} is my last word");
    std::process::abort();
}

/// Prints very much: `lines` lines on both streams.
#[task]
pub fn print_much(number: u64, lines: u64) {
    let filler = "x".repeat(90);
    for line in 0..lines {
        println!("{number} {line} {filler}");
        eprintln!("{number} {line} {filler}");
    }
}

/// Starts a child that would outlive everything, ignores SIGTERM, writes both numbers to a file and
/// waits.
#[task]
pub fn hold_out(path: PathBuf) -> Result<(), std::io::Error> {
    // SAFETY: no handler is involved.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    let child = Command::new("sleep").arg("1000").spawn()?;
    let whole = path.with_extension("part");
    std::fs::write(&whole, format!("{} {}", std::process::id(), child.id()))?;
    std::fs::rename(whole, path)?;
    loop {
        std::thread::park();
    }
}

/// As [`hold_out`], with a child in a process group of its own, whose child is in a session of its own.
#[task]
pub fn hold_out_apart(path: PathBuf) -> Result<(), std::io::Error> {
    // SAFETY: no handler is involved.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    let mut child = Command::new("sh")
        .args(["-c", "setsid sleep 1000 >&2 & echo $!; wait"])
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut grandchild = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut grandchild)?;
    }
    let whole = path.with_extension("part");
    let pids = format!("{} {} {grandchild}", std::process::id(), child.id());
    std::fs::write(&whole, pids)?;
    std::fs::rename(whole, path)?;
    loop {
        std::thread::park();
    }
}

/// As an initializer: whoever comes first waits, the others fail.
#[task]
pub fn first_is_slow(mark: PathBuf, ms: u64) -> Result<(), String> {
    match std::fs::File::create_new(mark) {
        Ok(_) => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(())
        }
        Err(_) => Err("only one may be here".to_owned()),
    }
}

/// As an initializer: whoever comes first is ready at once, the others wait, and leave a mark.
#[task]
pub fn second_is_slow(mark: PathBuf, ms: u64) -> Result<(), std::io::Error> {
    if std::fs::File::create_new(&mark).is_err() {
        std::fs::write(mark.with_extension("second"), "")?;
        std::thread::sleep(Duration::from_millis(ms));
    }
    Ok(())
}

/// Starts a child that leaves the worker's process group.
#[task]
pub fn spawn_in_own_session() -> Result<u32, std::io::Error> {
    let child = Command::new("setsid").args(["sleep", "1000"]).spawn()?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(child.id())
}

/// Writes rubbish into each socket it has: into the link, that is.
#[task]
pub fn talk_rubbish() {
    for fd in 0..64 {
        // SAFETY: plain writes of a buffer that outlives them; a descriptor that is no socket
        // refuses them.
        unsafe {
            libc::send(fd, [0xffu8; 64].as_ptr().cast(), 64, libc::MSG_NOSIGNAL);
        }
    }
}

/// Recurses until the stack is used up.
#[task]
pub fn overflow_stack(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    match std::hint::black_box(depth) {
        u64::MAX => frame[0],
        _ => frame[3] + overflow_stack(depth + 1) + frame[7],
    }
}

/// Has a pool of its own whose workers hold out.
#[task]
pub fn hold_out_nested(path: PathBuf) -> Result<(), String> {
    let pool = Pool::new(1).map_err(|error| error.to_string())?;
    pool.call(hold_out, path).map_err(|error| error.to_string())
}
