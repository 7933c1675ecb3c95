//! Puts what this process has in memory into huge pages, so that a copy of it is made, and ends, sooner.
//!
//! To copy a process, and to end one, takes the system a step for each page. With 200 MiB in small pages that is 50,000 steps,
//! some milliseconds, where a hundred do. A page that a copy writes to is copied in small pieces all the same, so writes
//! cost what they did, and no more memory is needed.
#![expect(unsafe_code, reason = "an advice that no safe wrapper gives")]

use std::ffi::c_int;
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

/// The least memory in one piece that is worth it: a huge page of most processors.
const LEAST: usize = 2 << 20;

/// How much is done between two looks at the clock.
const STEP: usize = 16 << 20;

/// Puts private memory into huge pages, where nearly all of it is in use. It is copied once for that, which takes a
/// machine that lacks room in one piece ten times as long as another; so this ends after about so long, and leaves the rest as
/// it is. An older system (before Linux 6.1) leaves all as it is.
///
/// This has to be before the first copy: what a copy shares would be there twice.
pub(crate) fn use_huge_pages(limit: Duration) {
    const MADV_COLLAPSE: c_int = 25;
    let began = Instant::now();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in worthwhile(&smaps) {
        // A huge page that lies in two steps would be in none.
        for at in (range.start.next_multiple_of(LEAST)..range.end).step_by(STEP) {
            if began.elapsed() >= limit {
                return;
            }
            let len = STEP.min(range.end - at);
            // SAFETY: the contents stay what they are, for whoever reads or writes them meanwhile, too. Nobody unmaps the
            // range: this process has a single thread, which is here.
            unsafe { libc::madvise(at as *mut _, len, MADV_COLLAPSE) };
        }
    }
}

/// The ranges of private memory that are large and nearly full: what is empty would be filled with zeros, and take memory.
/// See proc_pid_smaps(5).
fn worthwhile(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut range = None;
    for line in smaps.lines() {
        match line.strip_prefix("Anonymous:") {
            None => range = private(line).or(range),
            Some(size) => {
                let size = size.trim().strip_suffix(" kB");
                let used = size
                    .and_then(|size| size.parse::<usize>().ok())
                    .unwrap_or(0)
                    << 10;
                let full = |range: &Range<usize>| used >= range.len() - range.len() / 8;
                found.extend(
                    range
                        .take()
                        .filter(|range| range.len() >= LEAST && full(range)),
                );
            }
        }
    }
    found
}

/// The range that a line begins to describe, if that is private and can be written to. A line that begins to describe
/// another is an empty range.
fn private(line: &str) -> Option<Range<usize>> {
    let (addresses, rest) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    Some(if rest.starts_with("rw-p") {
        start..end
    } else {
        0..0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_memory_that_is_nearly_full_is_worthwhile() {
        let described = |addresses: &str, mode: &str, used: usize| {
            format!(
                "{addresses} {mode} 00000000 00:00 0 [heap]\nSize: 1 kB\nAnonymous: {used:>9} kB\nVmFlags: rd\n"
            )
        };
        let smaps = [
            described("10000000-10400000", "rw-p", 4096),
            described("20000000-20400000", "rw-p", 3584),
            described("30000000-30400000", "rw-p", 3580),
            described("40000000-40400000", "r--p", 4096),
            described("50000000-50400000", "rw-s", 4096),
            described("60000000-60100000", "rw-p", 1024),
        ];
        let found = worthwhile(&smaps.concat());
        assert_eq!(found, [0x1000_0000..0x1040_0000, 0x2000_0000..0x2040_0000]);
        assert!(worthwhile("").is_empty());
    }
}
