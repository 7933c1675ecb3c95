//! Calls over several machines: a real broker, agents that are processes, and all that can go wrong between them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and says why"
)]

mod command_line;
mod failures;
mod files;
mod preparing;
mod soak;
mod support;
mod usual;

use std::thread;
use std::time::Duration;

use coordinator::task;
use support::Call;

coordinator::enable_in_tests!();

/// Runs for a while; returns the index.
#[task]
fn work(call: Call) -> u64 {
    let begun = support::begin(&call);
    thread::sleep(Duration::from_millis(call.millis));
    begun.end();
    call.index
}

/// So many bytes take a while to come.
const MUCH: usize = 120 << 20;

/// Runs for a while; returns much.
#[task]
fn yield_much(call: Call) -> Vec<u8> {
    let begun = support::begin(&call);
    thread::sleep(Duration::from_millis(call.millis));
    begun.end();
    vec![7; MUCH]
}
