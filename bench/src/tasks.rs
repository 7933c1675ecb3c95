//! What the workers run. The floors and the threads that we compare with call the same functions.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use worker::{Shared, task};

/// Squares a number: next to nothing, so what is measured is the way there and back.
#[task]
pub(crate) fn square(x: i64) -> i64 {
    x * x
}

/// Returns an error.
#[task]
pub(crate) fn fail(x: i64) -> Result<i64, String> {
    Err(format!("{x} is not to my liking"))
}

/// Panics.
#[task]
pub(crate) fn panic(x: i64) -> i64 {
    panic!("{x} is not to my liking")
}

/// Prints a line.
#[task]
#[expect(clippy::print_stdout, reason = "this is what is measured")]
pub(crate) fn print(x: i64) {
    println!("the square of {x} is {}", x * x);
}

/// Returns what it was given.
#[task]
pub(crate) fn echo(bytes: ByteBuf) -> ByteBuf {
    bytes
}

/// Numbers with names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) id: u32,
}

/// Large values among others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) values: Vec<f64>,
}

macro_rules! echoes {
    ($($name:ident: $type:ty;)*) => {
        /// Tasks that return what they were given, for many types.
        pub(crate) mod types {
            use super::{ByteBuf, Point, Record, task};

            $(
                #[task]
                pub(crate) fn $name(value: $type) -> $type {
                    value
                }
            )*
        }
    };
}

echoes! {
    bytes: ByteBuf;
    octets: Vec<u8>;
    floats: Vec<f64>;
    integers: Vec<u32>;
    long: Vec<i64>;
    flags: Vec<bool>;
    arrays: Vec<[u8; 16]>;
    text: String;
    record: Record;
    tuples: Vec<(f32, f32, u32)>;
    points: Vec<Point>;
}

/// What [`load`] has filled.
static LOADED: OnceLock<Vec<u8>> = OnceLock::new();

/// Takes this long, and fills this much memory, as the reading of a large model does.
#[task]
pub(crate) fn load(time: Duration, bytes: usize) {
    std::thread::sleep(time);
    LOADED.get_or_init(|| vec![7; bytes]);
}

/// A byte of what [`load`] has filled.
#[task]
pub(crate) fn loaded(at: usize) -> Option<u8> {
    LOADED.get()?.get(at).copied()
}

/// Looks into a table that all calls share.
#[task]
pub(crate) fn look_up(table: Shared<ByteBuf>, at: usize) -> u8 {
    table[at]
}

/// Looks into a table that came with the call.
#[task]
pub(crate) fn look_up_in(table: ByteBuf, at: usize) -> u8 {
    table[at]
}

/// Keeps a processor busy, for a time that [`calibrate`] knows.
#[task]
pub(crate) fn spin(rounds: u64) -> u64 {
    // Each step needs the one before it, so neither compiler nor processor can skip ahead.
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..rounds {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

/// Spins, or sleeps if it is told for how long.
#[task]
pub(crate) fn work(rounds: u64, sleep: Option<Duration>) -> u64 {
    if let Some(sleep) = sleep {
        // It holds a worker, not a processor: a machine with two of them has one to spare.
        std::thread::sleep(sleep);
    }
    spin(rounds)
}

/// Where [`leave_mark`] leaves its marks; one open file for each worker.
static MARKS: OnceLock<File> = OnceLock::new();

/// Opens the file for [`leave_mark`].
#[task]
pub(crate) fn open_marks(path: PathBuf) -> Result<(), std::io::Error> {
    let file = File::options().append(true).open(path)?;
    MARKS.get_or_init(|| file);
    Ok(())
}

/// Appends its input to the file, in one write, and squares it: a call with an effect that can be
/// counted. A deadly one then kills its worker.
#[task]
pub(crate) fn leave_mark(x: u64, deadly: bool) -> Result<u64, String> {
    let mut marks = MARKS.get().ok_or("open_marks has not run")?;
    let written = marks.write(&x.to_le_bytes());
    match written {
        Ok(8) if deadly => {
            let own = rustix::process::getpid();
            let sent = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            Err(format!("it survived SIGKILL: {sent:?}"))
        }
        Ok(8) => Ok(x.wrapping_mul(x)),
        Ok(short) => Err(format!("only {short} of 8 bytes were written")),
        Err(error) => Err(error.to_string()),
    }
}

/// How many rounds [`spin`] makes in a microsecond, at this machine's best.
pub(crate) fn calibrate() -> f64 {
    const ROUNDS: u64 = 500_000;
    let best = (0..20)
        .map(|_| {
            let started = Instant::now();
            black_box(spin(black_box(ROUNDS)));
            started.elapsed()
        })
        .min()
        .unwrap_or(Duration::from_millis(1));
    ROUNDS as f64 / (best.as_secs_f64() * 1e6)
}
