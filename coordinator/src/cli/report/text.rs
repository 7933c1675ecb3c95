//! Makes text of others safe to show, and numbers readable.

use std::borrow::Cow;

use crate::cli::terminal::visible_char;

/// The first `limit` characters, with an ellipsis if there were more.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(limit.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

/// Escapes text for the content of an element or of a quoted attribute.
pub(super) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(visible_char(c)),
        }
    }
    escaped
}

/// Escapes text as a JSON string that can't end a `<script>`, and that older JavaScript can read, too.
pub(super) fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    if !quoted.contains(['<', '\u{2028}', '\u{2029}']) {
        return quoted;
    }
    quoted
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Decodes text from any bytes.
pub(super) fn lossy(bytes: &[u8]) -> String {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

/// A number with separators: `1,234,567`.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time of this many milliseconds, to about three digits.
pub(super) fn duration(ms: f64) -> String {
    let seconds = ms / 1e3;
    if ms < 1.0 {
        return format!("{:.0} µs", ms * 1e3);
    }
    if seconds < 1.0 {
        return format!("{:.*} ms", decimals(ms), ms);
    }
    // A time that rounds to a minute is shown as one.
    if seconds < 59.95 {
        return format!("{:.*} s", decimals(seconds), seconds);
    }
    let whole = seconds.round() as u64;
    match (
        whole / 86400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    ) {
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

fn decimals(value: f64) -> usize {
    match value {
        _ if value < 10.0 => 2,
        _ if value < 100.0 => 1,
        _ => 0,
    }
}

/// A point in time, in UTC: 2024-11-24 07:20:00.
pub(super) fn date(unix: f64) -> String {
    let seconds = unix.floor() as i64;
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Days are counted from March of the year 0, so that leap days come last, in eras of 400 years.
    let from_zero = days.saturating_add(719_468);
    let (era, day) = (from_zero.div_euclid(146_097), from_zero.rem_euclid(146_097));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_ends_nothing() {
        let evil = "</script><b a='\"'>&\u{2028}\u{1b}[0m\u{202e}\0";
        assert_eq!(
            html(evil),
            "&lt;/script&gt;&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{2424}\u{241b}[0m\u{fffd}\u{2400}"
        );
        let quoted = json(evil);
        assert!(
            !quoted.contains(['<', '\u{2028}', '\0', '\u{1b}']),
            "{quoted}"
        );
        assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), evil);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äö…");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (count(7), count(1_234_567)),
            ("7".into(), "1,234,567".into())
        );
        let times = [0.5, 12.345, 999.0, 1234.0, 59_960.0, 3_725_000.0, 2e8];
        assert_eq!(
            times.map(duration),
            [
                "500 µs",
                "12.3 ms",
                "999 ms",
                "1.23 s",
                "1 min 0 s",
                "1 h 2 min",
                "2 d 7 h"
            ]
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0.0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_400.5), "2000-02-29 00:00:00");
        assert_eq!(date(1_732_435_200.9), "2024-11-24 08:00:00");
        assert_eq!(date(-1.0), "1969-12-31 23:59:59");
        // Nonsense in the log may be nonsense on the page, but it must not panic.
        date(f64::MAX);
        date(f64::MIN);
    }
}
