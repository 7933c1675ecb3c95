//! Tasks that take next to no time, so that workers run them by the thousand; some of their calls do
//! something else.
#![allow(missing_docs)]
#![allow(unsafe_code, reason = "what C code prints")]
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use worker::task;

/// How long a call waits that nobody comes for: far longer than any test should take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns its number, as soon as there is this file.
#[task]
pub fn wait_if(number: u64, file: Option<PathBuf>) -> Result<u64, String> {
    let began = Instant::now();
    while file.as_ref().is_some_and(|file| !file.exists()) {
        if began.elapsed() > PATIENCE {
            return Err("nobody came".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(number)
}

/// Returns its number, or spins for ever.
#[task]
pub fn spin_if(number: u64, spins: bool) -> u64 {
    if spins {
        loop {
            std::hint::spin_loop();
        }
    }
    number
}

/// Returns its number, or sleeps for very long.
#[task]
pub fn sleep_if(number: u64, sleeps: bool) -> u64 {
    if sleeps {
        std::thread::sleep(PATIENCE);
    }
    number
}

static LEDGER: OnceLock<File> = OnceLock::new();

/// As an initializer: opens the file that [`log`] writes to.
#[task]
pub fn open_ledger(ledger: PathBuf) -> Result<(), std::io::Error> {
    let file = OpenOptions::new().append(true).create(true).open(ledger)?;
    LEDGER.get_or_init(|| file);
    Ok(())
}

/// Leaves its number in the ledger, in one write.
#[task]
pub fn log(number: u64) -> Result<u64, String> {
    let mut ledger = LEDGER.get().ok_or("there is no ledger")?;
    let written = ledger.write(&number.to_le_bytes());
    match written.map_err(|error| error.to_string())? {
        8 => Ok(number),
        other => Err(format!("{other} bytes were written")),
    }
}

/// As [`log`], and then may fail.
#[task]
pub fn log_or_fail(number: u64, fails: bool) -> Result<u64, String> {
    log(number)?;
    match fails {
        true => Err(number.to_string()),
        false => Ok(number),
    }
}

/// How often each number stands in a ledger.
///
/// # Panics
///
/// If it can't be read, or holds a part of a number.
#[must_use]
pub fn logged(ledger: &Path) -> HashMap<u64, u32> {
    let bytes = std::fs::read(ledger).unwrap_or_else(|error| panic!("{error}"));
    let (numbers, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty(), "{} bytes", bytes.len());
    let mut times = HashMap::new();
    for number in numbers {
        *times.entry(u64::from_le_bytes(*number)).or_default() += 1;
    }
    times
}

/// How a call ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    Value,
    Print,
    Fail,
    PrintAndFail,
    Panic,
    /// With its worker, by SIGABRT, after it has printed something.
    Abort,
    /// When this file is there.
    Wait(PathBuf),
}

/// Ends in this way. What it prints and says has its number in it.
#[task]
pub fn end_by(number: u64, way: Way) -> Result<u64, String> {
    if matches!(way, Way::Print | Way::PrintAndFail | Way::Abort) {
        println!("{number} out");
        eprintln!("{number} err");
    }
    match way {
        Way::Value | Way::Print => Ok(number),
        Way::Fail | Way::PrintAndFail => Err(format!("{number} fails")),
        Way::Panic => panic!("{number} panics"),
        Way::Abort => std::process::abort(),
        Way::Wait(file) => wait_if(number, Some(file)),
    }
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Print {
    Line,
    /// Without ending the line.
    Part,
    C,
    Child,
    Error,
}

/// Returns its number, and may print it.
#[task]
pub fn print_if(number: u64, how: Option<Print>) -> Result<u64, std::io::Error> {
    match how {
        None => {}
        Some(Print::Line) => println!("{number}"),
        Some(Print::Part) => print!("{number}"),
        Some(Print::C) => {
            let line = format!("{number}\0");
            // SAFETY: the string ends with NUL, and so does the format.
            unsafe {
                libc::printf(c"%s".as_ptr(), line.as_ptr());
            }
        }
        Some(Print::Child) => {
            let number = number.to_string();
            Command::new("printf").args(["%s", &number]).status()?;
        }
        Some(Print::Error) => eprint!("{number}"),
    }
    Ok(number)
}

/// One letter, as often as it is told to.
#[task]
pub fn repeat(number: u8, count: usize) -> String {
    char::from(b'a' + number % 26).to_string().repeat(count)
}
