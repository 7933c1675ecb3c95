//! Large buffers that are used again. A fresh one costs more than what it carries: the system has to find
//! and clear each of its pages.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// From what size on a buffer is worth keeping, in bytes.
const LEAST: usize = 256 << 10;
const MOST: usize = 4 << 20;
/// How many are kept, at most.
const KEPT: usize = 8;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn spare() -> MutexGuard<'static, Vec<Vec<u8>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty buffer: one that was kept, if there is one, or else a new one.
pub(crate) fn take() -> Vec<u8> {
    spare().pop().unwrap_or_default()
}

/// Takes a buffer back that is not needed any more.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if (LEAST..=MOST).contains(&buffer.capacity()) {
        buffer.clear();
        let mut spare = spare();
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    }
}
