//! What the kernel tells of a process.

use std::fs;
use std::ops::Sub;
use std::path::Path;

use crate::Problem;

/// A figure of `/proc/PID/status`, in bytes: `VmHWM`, `VmRSS`. `pid` may be `self`.
pub(crate) fn memory(pid: &str, field: &str) -> Result<f64, Problem> {
    let path = format!("/proc/{pid}/status");
    let kib = number(Path::new(&path), field)?;
    Ok(kib * 1024.0)
}

/// The first number of a line `FIELD: NUMBER …`.
fn number(path: &Path, field: &str) -> Result<f64, Problem> {
    let text = fs::read_to_string(path)?;
    let value = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == field)
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .ok_or_else(|| format!("{} has no {field}", path.display()))?;
    Ok(value.parse()?)
}

/// What threads have done so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Activity {
    /// How long they were on a processor, in seconds.
    pub(crate) cpu: f64,
    /// How often they gave it up of themselves: each time, they had been woken.
    pub(crate) switches: f64,
}

impl Sub for Activity {
    type Output = Activity;
    fn sub(self, earlier: Activity) -> Activity {
        Activity {
            cpu: self.cpu - earlier.cpu,
            switches: self.switches - earlier.switches,
        }
    }
}

/// What all threads of this process but the first, and all threads of the `others`, have done.
///
/// The first thread is the one that asks: it sleeps meanwhile, and reads files before and after.
pub(crate) fn activity(others: &[u32]) -> Result<Activity, Problem> {
    let own = std::process::id();
    let mut sum = Activity::default();
    for pid in std::iter::once(&own).chain(others) {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = thread?.path();
            if path.file_name() == Some(own.to_string().as_ref()) {
                continue;
            }
            let thread = of_thread(&path)?;
            sum.cpu += thread.cpu;
            sum.switches += thread.switches;
        }
    }
    Ok(sum)
}

/// What one thread has done; its directory.
fn of_thread(thread: &Path) -> Result<Activity, Problem> {
    Ok(Activity {
        cpu: cpu(thread)?,
        switches: number(&thread.join("status"), "voluntary_ctxt_switches")?,
    })
}

/// A thread's time on a processor, in seconds: to the nanosecond where the kernel keeps it
/// (`schedstat`), else in its ticks.
fn cpu(thread: &Path) -> Result<f64, Problem> {
    if let Ok(text) = fs::read_to_string(thread.join("schedstat")) {
        let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?;
        return Ok(nanos.parse::<f64>()? / 1e9);
    }
    let text = fs::read_to_string(thread.join("stat"))?;
    // The name, in parentheses, may hold anything; utime and stime are the 12th and 13th behind it.
    let (_, behind) = text.rsplit_once(')').ok_or("a stat without a name")?;
    let ticks = behind.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A pool at rest is to show nothing: what is not at rest must show, then.
    #[test]
    fn a_thread_that_wakes_and_works_is_seen() {
        let own = || of_thread(Path::new("/proc/thread-self")).expect("Linux tells");
        let before = own();
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::hint::black_box(crate::tasks::spin(1_000_000));
        // The time is brought up to date when the thread leaves the processor.
        std::thread::sleep(Duration::from_millis(1));
        let during = own() - before;
        assert!(during.switches >= 10.0, "{during:?}");
        assert!(during.cpu > 0.0, "{during:?}");
    }

    #[test]
    fn memory_is_in_bytes() {
        let resident = memory("self", "VmRSS").expect("Linux tells");
        assert!(resident > 100.0 * 1024.0, "{resident}");
        assert!(memory("self", "VmNothing").is_err());
    }
}
