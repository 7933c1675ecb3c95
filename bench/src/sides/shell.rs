//! The command line, next to what a shell has.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde::Deserialize;

use super::ours::join;
use super::{Missing, Setting, Values, WORKERS, check, time};
use crate::Problem;

/// What cargo says of a part that it has made.
#[derive(Deserialize)]
struct Made {
    executable: Option<PathBuf>,
}

/// The command line, built if it is not.
pub(crate) fn coordinator() -> Result<PathBuf, Problem> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--message-format=json"])
        .args(["-p", "coordinator", "--bin", "coordinator"])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .stderr(Stdio::inherit())
        .output();
    let said = match built {
        Ok(built) if built.status.success() => String::from_utf8(built.stdout)?,
        _ => String::new(),
    };
    // Variables and configuration say where it is; so does cargo, for each part that it has made.
    let made = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Made>(line).ok());
    let place = made.filter_map(|made| made.executable).next_back();
    place.ok_or_else(|| Missing("the command line (cargo build --release)".to_owned()).into())
}

pub(super) fn inputs(number: u32) -> String {
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

/// A loop that writes a line to each of as many `cat`s as there are workers, and reads them back.
pub(crate) fn one_loop(setting: &Setting) -> Result<Values, Problem> {
    // On an idle machine each line takes the waking of a processor.
    let rounds = setting.pick(20_000, 2000) / WORKERS as u32;
    let started = Instant::now();
    bare_loop(WORKERS, rounds)?;
    time(started.elapsed().as_secs_f64() / f64::from(rounds * WORKERS as u32))
}

/// As many loops at once, each with a thread and a `cat` of its own.
pub(crate) fn loops(setting: &Setting) -> Result<Values, Problem> {
    let rounds = setting.pick(200_000, 2000) / WORKERS as u32;
    let started = Instant::now();
    thread::scope(|scope| {
        let loops = (0..WORKERS).map(|_| scope.spawn(|| bare_loop(1, rounds)));
        join(loops.collect())
    })?;
    time(started.elapsed().as_secs_f64() / f64::from(rounds * WORKERS as u32))
}

fn bare_loop(cats: usize, rounds: u32) -> Result<(), Problem> {
    let cats: Result<Vec<_>, _> = (0..cats).map(|_| Cat::start()).collect();
    let mut cats = cats?;
    for round in 0..rounds {
        let line = format!("{round}\n");
        for cat in &mut cats {
            cat.stdin.write_all(line.as_bytes())?;
        }
        for cat in &mut cats {
            cat.answer.clear();
            cat.stdout.read_line(&mut cat.answer)?;
            check(cat.answer == line)?;
        }
    }
    cats.into_iter().try_for_each(Cat::end)
}

struct Cat {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    answer: String,
}

impl Cat {
    fn start() -> Result<Self, Problem> {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        Ok(Cat {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            answer: String::new(),
        })
    }

    fn end(mut self) -> Result<(), Problem> {
        drop(self.stdin);
        check(self.child.wait()?.success())
    }
}
