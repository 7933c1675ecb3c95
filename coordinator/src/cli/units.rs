//! Parses durations, sizes and counts as people write them.

use std::time::Duration;

/// When a worker is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recycle {
    /// After this many calls.
    After(u64),
    /// When it has more than this many bytes of memory.
    Above(u64),
}

/// The number of workers, as options give it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum JobCount {
    Number(usize),
    /// A percentage of the processors.
    Share(f64),
    /// All processors but this many.
    AllBut(usize),
}

impl JobCount {
    /// The number of workers on a machine with this many processors: at least one.
    pub(super) fn of(self, processors: usize) -> usize {
        match self {
            JobCount::Number(number) => number,
            JobCount::Share(share) => ((processors as f64 * share / 100.0).round() as usize).max(1),
            JobCount::AllBut(some) => processors.saturating_sub(some).max(1),
        }
    }
}

/// After how many failures a run gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaxFail {
    pub(super) failures: u64,
    /// Whether running calls are stopped, too.
    pub(super) now: bool,
}

/// `4`, `50%`, `-1`.
pub(super) fn jobs(text: &str) -> Result<JobCount, String> {
    let explain =
        "a number of workers is 1 or more, a share of the processors, or all but some: 4, 50%, -1";
    let jobs = if let Some(share) = text.strip_suffix('%') {
        share
            .parse()
            .ok()
            .filter(|share: &f64| *share > 0.0 && *share <= 10_000.0)
            .map(JobCount::Share)
    } else if let Some(but) = text.strip_prefix('-') {
        but.parse()
            .ok()
            .filter(|but| *but > 0)
            .map(JobCount::AllBut)
    } else {
        text.parse().ok().map(JobCount::Number)
    };
    jobs.ok_or_else(|| explain.to_owned())
}

/// `3`, `3:now`.
pub(super) fn max_fail(text: &str) -> Result<MaxFail, String> {
    let (number, now) = match text.strip_suffix(":now") {
        Some(number) => (number, true),
        None => (text, false),
    };
    match number.parse() {
        Ok(0) | Err(_) => Err("a number of failures is 1 or more, with `:now` if what runs is to be stopped: 1, 3:now".to_owned()),
        Ok(failures) => Ok(MaxFail { failures, now }),
    }
}

/// `3.5`, or `80%` of the processors.
pub(super) fn load(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, coordinator::available_workers() as f64 / 100.0),
        None => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(load) if load > 0.0 && load.is_finite() => Ok(load * unit),
        _ => Err("a load is a number above 0, or a share of the processors: 3.5, 80%".to_owned()),
    }
}

/// `1.5`, `200ms`, `2m`: a number and a unit, which is seconds if there is none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err("a duration is a number and ms, s, m, h or d: 1.5s".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a duration is a number and a unit: 1.5s, 200ms, 2m".to_owned())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a duration is more than nothing, and finite: 1.5s".to_owned()),
    }
}

/// A duration as [`duration`] parses it, or `0`.
pub(super) fn duration_or_none(text: &str) -> Result<Duration, String> {
    match split(text).0.parse() {
        Ok(0.0) => duration(&text.replacen('0', "1", 1)).map(|_| Duration::ZERO),
        _ => duration(text),
    }
}

/// `500M`, `2GiB`, `1048576`: a number of bytes, with units of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let bytes: u64 = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err("a size is a number and K, M, G or T: 500M".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a size is a number and a unit: 500M, 2G".to_owned())?;
    let size = number * bytes as f64;
    if size >= 1.0 && size < u64::MAX as f64 {
        Ok(size as u64)
    } else {
        Err("a size is at least one byte, and finite: 500M".to_owned())
    }
}

/// A number of calls, or a size.
pub(super) fn recycle(text: &str) -> Result<Recycle, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(0) | Err(_) => Err("a worker runs at least one call: 100".to_owned()),
            Ok(calls) => Ok(Recycle::After(calls)),
        };
    }
    let explain = |_| "after so many calls, or above so much memory: 100, or 500M".to_owned();
    size(text).map(Recycle::Above).map_err(explain)
}

/// Splits a text into its number and the rest.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("2", 2000),
            ("1.5s", 1500),
            ("200ms", 200),
            ("2m", 120_000),
            ("0.5 h", 1_800_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "s",
            "-1s",
            "0",
            "0s",
            "1x",
            "1e9",
            "99999999999999999999d",
            "..",
            "nan",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration_or_none("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_none("0ms"), Ok(Duration::ZERO));
        assert!(duration_or_none("0x").is_err());
    }

    #[test]
    fn workers_are_counted_in_three_ways() {
        for (text, number) in [
            ("3", 3),
            ("50%", 2),
            ("1%", 1),
            ("200%", 8),
            ("-1", 3),
            ("-9", 1),
        ] {
            assert_eq!(jobs(text).map(|jobs| jobs.of(4)), Ok(number), "{text}");
        }
        for text in ["", "0%", "-0", "-", "%", "x", "1.5", "--1", "inf%"] {
            assert!(jobs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn failures_and_loads() {
        assert_eq!(
            max_fail("3"),
            Ok(MaxFail {
                failures: 3,
                now: false
            })
        );
        assert_eq!(
            max_fail("1:now"),
            Ok(MaxFail {
                failures: 1,
                now: true
            })
        );
        for text in ["", "0", ":now", "1:later", "-1"] {
            assert!(max_fail(text).is_err(), "{text}");
        }
        assert_eq!(load("3.5"), Ok(3.5));
        assert!(load("50%").is_ok() && load("0").is_err() && load("x%").is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", 1),
            ("10k", 10 << 10),
            ("500M", 500 << 20),
            ("2GiB", 2 << 30),
            ("1.5mb", 3 << 19),
            ("1 TB", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "0", "-1M", "1X", "99999999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn workers_are_recycled_after_calls_or_above_a_size() {
        assert_eq!(recycle("100"), Ok(Recycle::After(100)));
        assert_eq!(recycle("500M"), Ok(Recycle::Above(500 << 20)));
        assert!(recycle("0").is_err());
        assert!(recycle("often").is_err());
    }
}
