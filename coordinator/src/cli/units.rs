//! Durations and sizes, as people write them.

use std::time::Duration;

/// What replaces a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recycle {
    /// It has run this many calls.
    After(u64),
    /// It has more than this many bytes of memory.
    Above(u64),
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

/// As [`duration`], or nothing: `0`.
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

/// The number, and what follows it.
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
