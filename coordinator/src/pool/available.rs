//! How many workers there may be.

use crate::os;
use crate::os::processors;

/// How many open files a worker takes in this process: its link and where that begins, its lifeline, a handle of
/// the process, the black box, two files for what it prints, and some more while it is started.
const FILES_EACH: usize = 9;
/// How many files a program has open besides.
const FILES_BESIDE: usize = 13;

/// How many workers a pool has by default: as many as there are processors that this process may use, by its
/// affinity and its control group's quota, if it may open enough files.
///
/// ```
/// assert!(coordinator::available_workers() >= 1);
/// ```
#[must_use]
pub fn available_workers() -> usize {
    processors().min(most_workers()).max(1)
}

/// How many workers this process may have files for.
pub(crate) fn most_workers() -> usize {
    let files = os::most_open_files().unwrap_or(usize::MAX);
    files.saturating_sub(FILES_BESIDE) / FILES_EACH
}
