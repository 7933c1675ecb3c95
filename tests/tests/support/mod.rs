//! The pools that most tests have: their workers can misbehave in every way.

use coordinator::{Builder, Pool};

/// A pool of so many of these, with settings to follow.
pub(crate) fn builder(workers: usize) -> Builder {
    Pool::builder()
        .workers(workers)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
}

/// A pool of so many of these.
#[allow(dead_code, reason = "some tests only have pools with settings")]
pub(crate) fn pool(workers: usize) -> Pool {
    builder(workers).build().unwrap()
}
