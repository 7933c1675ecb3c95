//! A process for each call, by the shell's own means: `xargs -P`.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Missing, Setting, Values, WORKERS, check, time};
use crate::Problem;

/// Starts a bare program for each input, two at a time.
pub(crate) fn xargs(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(400_u32, 20);
    let mut inputs = String::new();
    for input in 0..calls {
        writeln!(inputs, "{input}")?;
    }
    let started = Instant::now();
    let child = Command::new("xargs")
        .args([&format!("-P{WORKERS}"), "-n1"])
        .arg(std::env::current_exe()?)
        .arg("bare")
        .stdin(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Missing("xargs".to_owned()).into());
        }
        child => child?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(inputs.as_bytes())?;
    }
    check(child.wait()?.success())?;
    time(started.elapsed().as_secs_f64() / f64::from(calls))
}
