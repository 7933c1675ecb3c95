//! The tasks of the `worker` binary, and of `coordinator` where it is its own worker.
//!
//! They use only `task` and `command`, as the tasks of any program could, and no module below knows them.
//!
//! They do not register themselves: a program that links this crate for its own tasks may have
//! a `square` of its own.

pub mod exec;
pub mod pipe;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::os;
use crate::registry::{self, Entry};
use crate::task;

pub use crate::os::patient::Patient;
pub use exec::{Command, Ending};
pub use pipe::{is_harmless, is_out_of_step};

/// Makes the built-in tasks known to this process. Call it before [`init`](crate::init) or
/// [`main`](crate::main).
pub fn register() {
    registry::add(&[
        Entry::new::<square>("worker::builtin"),
        Entry::new::<print_number>("worker::builtin"),
        Entry::new::<child>("worker::builtin"),
        Entry::new::<sleep>("worker::builtin"),
        Entry::new::<count_primes>("worker::builtin"),
        Entry::new::<sha256>("worker::builtin"),
        Entry::new::<word_count>("worker::builtin"),
        Entry::new::<exec::exec>("worker::builtin"),
        Entry::new::<pipe::pipe_open>("worker::builtin"),
        Entry::new::<pipe::pipe>("worker::builtin"),
    ]);
}

/// Whether this process was started with stdout closed, as by `>&-`. Its output is then lost without an error.
#[must_use]
pub fn has_no_stdout() -> bool {
    os::has_no_stdout()
}

/// Ends the process that `pipe` keeps, when the worker ends normally.
pub(crate) fn at_end() {
    pipe::close();
}

/// Bytes that need not be UTF-8, such as an argument of a command, or a line. In JSON they are a string, or an array of
/// numbers if they are no UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
            _ => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes, as a string or an array of numbers")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }

    fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
        Ok(Bytes(text.as_bytes().to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Bytes, A::Error> {
        let mut read = Vec::new();
        while let Some(byte) = bytes.next_element()? {
            read.push(byte);
        }
        Ok(Bytes(read))
    }
}

/// Squares a number.
#[task(register = false)]
pub fn square(x: i64) -> Result<i64, String> {
    x.checked_mul(x)
        .ok_or_else(|| format!("the square of {x} does not fit into 64 bits"))
}

/// Prints a number, and which process it is the number of.
#[task(register = false)]
#[expect(clippy::print_stdout, reason = "it is what the task is for")]
pub fn print_number(number: u32) {
    println!("Process {number}: My number is {number}");
}

/// Says that the child process is running.
#[task(register = false)]
#[expect(clippy::print_stdout, reason = "it is what the task is for")]
pub fn child() {
    println!("Child process is running.");
}

/// Sleeps for a number of seconds.
#[task(register = false)]
pub fn sleep(seconds: f64) -> Result<(), String> {
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    std::thread::sleep(duration);
    Ok(())
}

/// Counts the primes below n, by trial division: pure work for a processor.
#[task(register = false)]
pub fn count_primes(n: u64) -> u64 {
    let is_prime = |candidate: &u64| {
        (2..)
            .take_while(|divisor| divisor * divisor <= *candidate)
            .all(|divisor| !candidate.is_multiple_of(divisor))
    };
    (2..n).filter(is_prime).count() as u64
}

/// The SHA-256 of a file, in hexadecimal, as sha256sum prints it.
#[task(register = false)]
pub fn sha256(path: PathBuf) -> Result<String, String> {
    let hash = || {
        let mut file = File::open(&path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        Ok(hasher.finalize())
    };
    let hash = hash().map_err(|error| naming(&path, &error))?;
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Counts the words of a file, as wc -w does.
#[task(register = false)]
pub fn word_count(path: PathBuf) -> Result<u64, String> {
    let count = || {
        let mut reader = BufReader::with_capacity(64 << 10, File::open(&path)?);
        let (mut words, mut in_word) = (0, false);
        loop {
            let chunk = reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(words);
            }
            for byte in chunk {
                let space = byte.is_ascii_whitespace() || *byte == 0x0b;
                words += u64::from(!space && !in_word);
                in_word = !space;
            }
            let len = chunk.len();
            reader.consume(len);
        }
    };
    count().map_err(|error| naming(&path, &error))
}

fn naming(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
