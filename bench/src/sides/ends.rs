//! Calls that do more than return a value: they fail, panic, or print.

use std::fs::File;
use std::time::Instant;

use coordinator::{Task, Why};
use rustix::io::dup;
use rustix::stdio;

use super::ours::warm;
use super::{Setting, Values, WORKERS, check, time};
use crate::Problem;
use crate::tasks::{fail, panic, print};

/// A map whose calls all return an error.
pub(crate) fn fails(setting: &Setting) -> Result<Values, Problem> {
    all_end(setting, fail, |why| matches!(why, Why::Failed(_)))
}

/// A map whose calls all panic.
pub(crate) fn panics(setting: &Setting) -> Result<Values, Problem> {
    all_end(setting, panic, |why| matches!(why, Why::Panicked { .. }))
}

fn all_end(
    setting: &Setting,
    task: impl Task<Input = i64>,
    is_right: impl Fn(&Why) -> bool,
) -> Result<Values, Problem> {
    let calls = setting.pick(100_000, 2000);
    let pool = warm(WORKERS)?;
    let started = Instant::now();
    let right = silenced(|| {
        let ends = pool.stream(task, 0..calls);
        ends.filter(|result| result.as_ref().is_err_and(|error| is_right(error.why())))
            .count()
    })?;
    let seconds = started.elapsed().as_secs_f64();
    check(right as i64 == calls)?;
    time(seconds / calls as f64)
}

/// A map whose calls each print a line, which this process forwards in the order of the inputs.
pub(crate) fn prints(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(100_000, 2000);
    let pool = warm(WORKERS)?;
    let started = Instant::now();
    let result = silenced(|| pool.map(print, 0..calls))?;
    let seconds = started.elapsed().as_secs_f64();
    check(result?.len() as i64 == calls)?;
    time(seconds / calls as f64)
}

/// Runs something that writes to this process's stdout and stderr, which go nowhere in that time.
fn silenced<T>(run: impl FnOnce() -> T) -> Result<T, Problem> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    let (stdout, stderr) = (dup(stdio::stdout())?, dup(stdio::stderr())?);
    stdio::dup2_stdout(&nowhere)?;
    stdio::dup2_stderr(&nowhere)?;
    let done = run();
    stdio::dup2_stdout(stdout)?;
    stdio::dup2_stderr(stderr)?;
    Ok(done)
}
