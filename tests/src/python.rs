//! The tasks of `examples/worker.py`, as Rust knows them: their names and types are what counts.

use serde_bytes::ByteBuf;
use worker::task;

/// Says it louder.
#[task]
pub fn shout(words: String) -> String {
    words
}

/// The square root of a number that has one.
#[task]
pub fn root(x: f64) -> Result<f64, String> {
    Ok(x)
}

/// Puts words together.
#[task]
pub fn join(words: Vec<String>, between: String) -> String {
    words.join(&between)
}

/// Turns bytes around.
#[task]
pub fn reverse(data: ByteBuf) -> ByteBuf {
    data
}

/// Adds numbers up.
#[task]
pub fn total(numbers: Vec<i64>) -> i64 {
    numbers.iter().sum()
}

/// Divides.
#[task]
pub fn divide(a: i64, b: i64) -> i64 {
    a / b
}

/// Ends its process.
#[task]
pub fn leave(code: u32) {
    let _ = code;
}

/// Takes its time.
#[task]
pub fn wait(seconds: f64) {
    let _ = seconds;
}
