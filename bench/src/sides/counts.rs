//! What does not depend on the machine's mood: how many system calls something takes, as strace counts them.
//!
//! A program runs with some inputs, and with twice as many. The difference is what the further ones take, without start and
//! end.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::shell::{coordinator, inputs};
use super::{Missing, Setting, Values, WORKERS, check, values};
use crate::Problem;

/// `true` by `exec`, in order and with a log.
pub(crate) fn exec(setting: &Setting) -> Result<Values, Problem> {
    let jobs = format!("-j{WORKERS}");
    let log = place("log");
    let mut words: Vec<OsString> = vec![coordinator()?.into(), "exec".into(), jobs.into()];
    words.extend(["--log".into(), log.clone().into()]);
    words.extend(["--".into(), "true".into()]);
    beyond_its_own(setting, |calls| {
        let counted = count(&words, calls);
        fs::remove_file(&log)?;
        counted
    })
}

/// The same by xargs, in any order and without a log.
pub(crate) fn xargs(setting: &Setting) -> Result<Values, Problem> {
    let jobs = format!("-P{WORKERS}");
    let words = ["xargs", &jobs, "-n1", "true"].map(OsString::from);
    beyond_its_own(setting, |calls| count(&words, calls))
}

/// What one more `true` takes, without what `true` itself does.
fn beyond_its_own(
    setting: &Setting,
    count_with: impl Fn(u32) -> Result<f64, Problem>,
) -> Result<Values, Problem> {
    let calls = setting.pick(200, 50);
    let more = count_with(2 * calls)? - count_with(calls)?;
    let own = count(&["true", "1"].map(OsString::from), 0)?;
    Ok(values([("calls", more / f64::from(calls) - own)]))
}

/// How many system calls a program and all that it starts make, given so many inputs.
fn count(words: &[OsString], number: u32) -> Result<f64, Problem> {
    let (given, counted) = (place("inputs"), place("counted"));
    fs::write(&given, inputs(number))?;
    let stdin = File::open(&given)?;
    fs::remove_file(&given)?;
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(&counted).args(words);
    let ran = command.stdin(stdin).stdout(Stdio::null()).status();
    match ran {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Missing("strace".to_owned()).into());
        }
        ran => check(ran?.success())?,
    }
    let table = fs::read_to_string(&counted)?;
    fs::remove_file(&counted)?;
    total(&table).ok_or_else(|| format!("strace said {table:?}").into())
}

/// The total that strace's table ends with: shares, seconds and microseconds stand before it.
fn total(table: &str) -> Option<f64> {
    let last = table.lines().last()?;
    let words: Vec<&str> = last.split_whitespace().collect();
    match words.as_slice() {
        [_, _, _, calls, .., "total"] => calls.parse().ok(),
        _ => None,
    }
}

fn place(what: &str) -> PathBuf {
    env::temp_dir().join(format!("bench-{what}-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_found_with_errors_and_without() {
        let table = |last: &str| format!("% time  seconds\n------\n{last}\n");
        assert_eq!(total(&table("100.00 0.000587 5 108 14 total")), Some(108.0));
        assert_eq!(total(&table("100.00 0.000587 5 29 total")), Some(29.0));
        assert_eq!(total(&table("100.00 0.000587 5 29 read")), None);
        assert_eq!(total(""), None);
    }
}
