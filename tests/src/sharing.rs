//! Tasks with inputs that many calls share.

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use worker::{Shared, task};

/// Looks a number up.
#[task]
pub fn nth(table: Shared<Vec<u64>>, n: usize) -> Option<u64> {
    table.get(n).copied()
}

/// Looks a number up in a table of its own.
#[task]
pub fn nth_of_own(table: Vec<u64>, n: usize) -> Option<u64> {
    table.get(n).copied()
}

/// Where the table stands in this worker's memory, and which worker it is.
#[task]
pub fn place(table: Shared<Vec<u64>>) -> (usize, u32) {
    (table.as_ptr() as usize, std::process::id())
}

/// As another type than it is.
#[task]
pub fn misread(table: Shared<String>) -> usize {
    table.len()
}

/// How much memory this worker has, in bytes, without that of files.
#[task]
pub fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Vec<u64> = statm
        .split(' ')
        .filter_map(|word| word.trim().parse().ok())
        .collect();
    (pages[1] - pages[2]) * 4096
}

/// Can't be encoded.
#[derive(Debug, Deserialize)]
pub struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("it is not to be written"))
    }
}

/// Never gets to see its input.
#[task]
pub fn weigh(input: Shared<Unwritable>) -> usize {
    std::mem::size_of_val(&*input)
}
