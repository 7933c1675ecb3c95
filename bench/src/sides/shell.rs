//! The command line, next to what a shell has.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use super::{Missing, Setting, Values, WORKERS, check, time};
use crate::Problem;

/// The command line, built if it is not.
fn coordinator() -> Result<PathBuf, Problem> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--quiet",
            "-p",
            "coordinator",
            "--manifest-path",
        ])
        .arg(root.join("Cargo.toml"))
        .status();
    match built {
        Ok(status) if status.success() => Ok(root.join("target/release/coordinator")),
        _ => Err(Missing("the command line (cargo build --release)".to_owned()).into()),
    }
}

fn inputs(number: u32) -> String {
    let mut inputs = String::new();
    for input in 0..number {
        // A String takes whatever is written to it.
        let _ = writeln!(inputs, "{input}");
    }
    inputs
}

/// Runs a command with these inputs, and returns how long it took and what it said.
fn run(command: &mut Command, inputs: &str) -> Result<(f64, String), Problem> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = env::temp_dir().join(format!("bench-inputs-{}", std::process::id()));
    fs::write(&file, inputs)?;
    let stdin = File::open(&file)?;
    fs::remove_file(&file)?;
    let started = Instant::now();
    let output = match command.stdin(stdin).stderr(Stdio::inherit()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Missing(name).into()),
        output => output?,
    };
    let seconds = started.elapsed().as_secs_f64();
    check(output.status.success())?;
    Ok((seconds, String::from_utf8(output.stdout)?))
}

/// `true` for each input, in order and with a log.
pub(crate) fn exec(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(1000, 50);
    let log = env::temp_dir().join(format!("bench-log-{}", std::process::id()));
    let mut command = Command::new(coordinator()?);
    command
        .args(["exec", &format!("-j{WORKERS}"), "--log"])
        .arg(&log)
        .args(["--", "true"]);
    let ran = run(&mut command, &inputs(calls));
    let logged = fs::read_to_string(&log).map(|text| text.lines().count());
    let _ = fs::remove_file(&log);
    check(logged? == calls as usize)?;
    time(ran?.0 / f64::from(calls))
}

/// The same with xargs, in any order and without a log.
pub(crate) fn xargs(setting: &Setting) -> Result<Values, Problem> {
    let calls = setting.pick(1000, 50);
    let mut command = Command::new("xargs");
    command.args([&format!("-P{WORKERS}"), "-n1", "true"]);
    time(run(&mut command, &inputs(calls))?.0 / f64::from(calls))
}

/// Lines through warm processes.
pub(crate) fn pipe(setting: &Setting) -> Result<Values, Problem> {
    let lines = setting.pick(200_000, 2000);
    let inputs = inputs(lines);
    let mut command = Command::new(coordinator()?);
    command.args(["pipe", &format!("-j{WORKERS}"), "--", "cat"]);
    let (seconds, answers) = run(&mut command, &inputs)?;
    check(answers == inputs)?;
    time(seconds / f64::from(lines))
}

/// A loop that writes a line to a `cat` and reads it back, beside as many others as there are workers.
pub(crate) fn loops(setting: &Setting) -> Result<Values, Problem> {
    let lines = setting.pick(200_000, 2000) / WORKERS as u32;
    let started = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| one_loop(lines).map_err(|error| error.to_string())))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => return Err("a loop has panicked".into()),
            }
        }
        Ok::<(), Problem>(())
    })?;
    time(started.elapsed().as_secs_f64() / f64::from(lines * WORKERS as u32))
}

fn one_loop(lines: u32) -> Result<(), Problem> {
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err("a process without pipes".into());
    };
    let (mut stdout, mut answer) = (BufReader::new(stdout), String::new());
    for input in 0..lines {
        let line = format!("{input}\n");
        stdin.write_all(line.as_bytes())?;
        answer.clear();
        stdout.read_line(&mut answer)?;
        check(answer == line)?;
    }
    drop(stdin);
    check(child.wait()?.success())
}
