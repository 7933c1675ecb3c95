//! Large inputs and outputs, and what may happen to them on their way.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use worker::task;

/// A large thing among small ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// What it is called.
    pub name: String,
    /// What it shows.
    pub bytes: ByteBuf,
    /// What is said of it.
    pub notes: Option<Vec<String>>,
}

impl Picture {
    /// One of so many bytes, unlike those with another number.
    #[must_use]
    pub fn new(number: u64, len: usize) -> Self {
        let words = (number << 32..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take(len).collect();
        Picture {
            name: format!("picture {number}"),
            bytes: ByteBuf::from(bytes),
            notes: Some(vec![number.to_string(), len.to_string()]),
        }
    }
}

/// Gives a picture back; the worker does not survive the first attempts.
#[task]
pub fn give_back(picture: Picture, deadly_attempts: u32) -> Picture {
    if worker::current().is_some_and(|call| call.attempt <= deadly_attempts) {
        std::process::abort();
    }
    picture
}

/// Bytes that, while they are decoded, write down in a directory which process reads them, wait there until
/// they may go on, and then write down whether they are still what they were. The directory's path stands at
/// their beginning, in a line of its own.
#[derive(Debug)]
pub struct Slow(pub Vec<u8>);

impl Slow {
    /// So many bytes that wait in a directory.
    #[must_use]
    pub fn new(directory: &Path, len: usize) -> Self {
        let mut bytes = directory.to_string_lossy().into_owned().into_bytes();
        bytes.push(b'\n');
        bytes.resize(len, 7);
        Slow(bytes)
    }
}

impl Serialize for Slow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Slow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Watching)
    }
}

struct Watching;

impl Visitor<'_> for Watching {
    type Value = Slow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Slow, E> {
        let line = bytes.split(|byte| *byte == b'\n').next();
        let directory = line.and_then(|line| std::str::from_utf8(line).ok());
        let directory = PathBuf::from(directory.ok_or_else(|| E::custom("no path"))?);
        let before = bytes.to_vec();
        // At once, for who waits for it.
        let note = |name: &str, what: &str| {
            fs::write(directory.join("draft"), what)?;
            fs::rename(directory.join("draft"), directory.join(name))
        };
        let wait = || -> std::io::Result<()> {
            note("reads", &std::process::id().to_string())?;
            while !directory.join("go").exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            match before == bytes {
                true => note("now", "same"),
                false => note("now", "changed"),
            }
        };
        wait().map_err(E::custom)?;
        Ok(Slow(before))
    }
}

/// Takes them.
#[task]
pub fn take_slowly(_bytes: Slow) {}

/// From now on this worker does not heed SIGTERM.
#[task]
pub fn heed_no_term() {
    // SAFETY: to ignore a signal runs no code.
    #[expect(unsafe_code, reason = "a setting of the process")]
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
}
