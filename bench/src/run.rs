//! Runs the sides, each in a fresh process, all of them in turn, round after round.

use std::io::{BufRead, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::Problem;
use crate::catalogue::MEASURES;
use crate::measure::{Measure, Runner, Side};
use crate::options::Options;
use crate::sides::{Outcome, Setting, shell};
use crate::tasks;

/// How the runs of one side of one measure ended, a round after another.
pub(crate) type Rounds = Vec<Outcome>;

/// For each measure, for each of its sides.
pub(crate) fn all(
    options: &Options,
    measures: &[&'static Measure],
) -> Result<Vec<Vec<Rounds>>, Problem> {
    let setting = Setting {
        quick: options.quick,
        spins: tasks::calibrate(),
    };
    // It may have to be built, which takes longer than a side may.
    if measures.iter().any(|measure| measure.runs_command_line()) {
        let _ = shell::coordinator();
    }
    let rounds = options.rounds();
    let mut taken: Vec<Vec<Rounds>> = measures
        .iter()
        .map(|measure| vec![Vec::new(); measure.sides.len()])
        .collect();
    // Rounds on the outside: if the machine has a bad minute, every measure gets its share of it.
    for round in 0..rounds {
        for (measure, taken) in measures.iter().zip(&mut taken) {
            if measure.once && round > 0 {
                continue;
            }
            let sides = measure.sides.len();
            // Each round begins with another side, so that none always follows the same one.
            for number in (0..sides).map(|number| (number + round as usize) % sides) {
                let side = &measure.sides[number];
                let known_missing = matches!(taken[number].last(), Some(Outcome::Missing(_)));
                if known_missing {
                    continue;
                }
                eprintln!(
                    "round {}/{rounds}  {}: {}",
                    round + 1,
                    measure.name,
                    side.name
                );
                let outcome = run(options, setting, measure, side)
                    .unwrap_or_else(|problem| Outcome::Failed(problem.to_string()));
                if let Outcome::Failed(why) = &outcome {
                    eprintln!("  failed: {why}");
                }
                taken[number].push(outcome);
            }
        }
    }
    Ok(taken)
}

/// Runs one side in a process of its own.
fn run(
    options: &Options,
    setting: Setting,
    measure: &Measure,
    side: &Side,
) -> Result<Outcome, Problem> {
    let mut command = match side.runner {
        Runner::Here(_) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["side", measure.name, side.name]);
            command.arg(serde_json::to_string(&setting)?);
            command
        }
        Runner::Python(script, arguments) => {
            let mut command = Command::new(&options.python);
            command.arg(peers().join(script));
            command.arg(setting.pick("full", "quick")).args(arguments);
            // Nothing is left beside the scripts.
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
    };
    // What is measured is this program's own worker, silent, and panics without the search for a backtrace.
    command
        .env_remove("COORDINATOR_WORKER")
        .env_remove("RUST_LOG")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    match (child, &side.runner) {
        (Err(error), Runner::Python(..)) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Outcome::Missing(options.python.display().to_string()))
        }
        (child, _) => {
            let limit = Duration::from_secs(setting.pick(30 * 60, 2 * 60));
            outcome_of(child?, limit)
        }
    }
}

fn peers() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}

/// Waits for a side's last line, but not for ever: a peer that hangs is a finding, too.
fn outcome_of(mut child: Child, limit: Duration) -> Result<Outcome, Problem> {
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(last_line(stdout)));
    let line = match receiver.recv_timeout(limit) {
        Ok(line) => line?,
        Err(RecvTimeoutError::Timeout) => {
            child.kill()?;
            child.wait()?;
            return Err(format!("no result within {limit:?}").into());
        }
        Err(RecvTimeoutError::Disconnected) => return Err("its output can't be read".into()),
    };
    let status = child.wait()?;
    match serde_json::from_str(&line) {
        Ok(outcome) if status.success() => Ok(outcome),
        _ => Err(format!("no result; {status}; {line:?}").into()),
    }
}

fn last_line(stdout: impl Read) -> Result<String, std::io::Error> {
    let mut last = String::new();
    for line in std::io::BufReader::new(stdout).lines() {
        last = line?;
    }
    Ok(last)
}

/// The whole of a side's process: runs it and prints how it ended.
#[expect(clippy::print_stdout, reason = "it is how the figures get out")]
pub(crate) fn side(arguments: impl Iterator<Item = String>) -> Result<ExitCode, Problem> {
    // Whoever interrupts the measuring does not want this to go on.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let arguments: Vec<String> = arguments.collect();
    let [measure, side, setting] = arguments.as_slice() else {
        return Err("side MEASURE SIDE SETTING".into());
    };
    let setting: Setting = serde_json::from_str(setting)?;
    let runner = MEASURES
        .iter()
        .find(|known| known.name == measure)
        .and_then(|measure| measure.sides.iter().find(|known| known.name == side))
        .map(|side| &side.runner);
    let Some(Runner::Here(run)) = runner else {
        return Err(format!("no {side} of {measure}").into());
    };
    let outcome = Outcome::from(run(&setting));
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(ExitCode::SUCCESS)
}
