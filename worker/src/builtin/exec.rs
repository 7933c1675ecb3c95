//! Runs a command for each call: the task behind `coordinator exec`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

use super::Bytes;
use crate::command::{Group, Hold, Pump, Streams, Waited};
use crate::os::{Image, Spawn, place_of};
use crate::{current, task};

const NO_TERMINAL: &str = "was stopped because it wanted the terminal, and killed: commands run in the background, \
                           so tell it what it would have asked for";

/// The variable that names the directory in which each call has one of its own, with the files that go along with it. An agent
/// sets it for its workers.
pub const CALLS_VARIABLE: &str = "COORDINATOR_CALLS";

/// The words of `pipe`'s error when its process has ended, before and behind the ending.
pub(super) const PROCESS: &str = "the process ";
pub(super) const INSTEAD: &str = " instead of answering to ";

/// A command with its arguments and its number in the run.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Command {
    /// The program, and its arguments. No shell looks at them.
    pub argv: Vec<Bytes>,
    /// The number that the command finds in `COORDINATOR_SEQ`.
    pub seq: u64,
    /// Files that it has to make: without one of them it has not succeeded.
    #[serde(default)]
    pub makes: Vec<Bytes>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exit(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Ending {
    /// Parses the error text of `exec` or `pipe` that names an ending. `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Ending> {
        let of_pipe = text
            .strip_prefix(PROCESS)
            .and_then(|text| text.split_once(INSTEAD));
        let text = of_pipe.map_or(text, |(ending, _)| ending);
        let number = |text: &str| text.split(' ').next().and_then(|word| word.parse().ok());
        let ending = if let Some(code) = text.strip_prefix("exited with code ") {
            Ending::Exit(number(code)?)
        } else {
            Ending::Signal(number(text.strip_prefix("was killed by signal ")?)?)
        };
        (ending.to_string() == text).then_some(ending)
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(number) => Ending::Signal(number),
            None => Ending::Exit(status.code().unwrap_or(-1)),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self {
            Ending::Exit(code) => return write!(formatter, "exited with code {code}"),
            Ending::Signal(number) => number,
        };
        write!(formatter, "was killed by signal {number}")?;
        match protocol::signal_name(*number) {
            Some(name) => write!(formatter, " ({name})"),
            None => Ok(()),
        }
    }
}

/// Runs a command. The command line reads its ending from the error's text.
///
/// The command has a process group of its own and an empty stdin, and its output goes to the worker's. Its environment
/// holds its number in the run, the attempt and the worker's slot. The call is over
/// when the command itself has ended; the worker then kills the rest of its group.
#[task(register = false)]
pub fn exec(command: Command) -> Result<(), String> {
    // The name `COORDINATOR_WORKER` has two uses: for a coordinator it names a worker's executable, and commands are
    // promised their slot in it.
    const WORKER_VARIABLE: &str = "COORDINATOR_WORKER";
    let current = current();
    // A person who runs the task by hand has one worker and one attempt.
    let attempt = current.map_or(1, |current| current.attempt);
    let worker = current.map_or(1, |current| current.worker);
    let vars = [
        ("COORDINATOR_SEQ", command.seq.to_string()),
        ("COORDINATOR_ATTEMPT", attempt.to_string()),
        (WORKER_VARIABLE, worker.to_string()),
    ];
    let hold = Hold::new();
    let pump = Pump::get().map_err(|error| not_started(&command.argv, &error))?;
    let directory = own_directory(current.map_or(0, |current| current.index))
        .map_err(|error| format!("the directory of this call can't be used: {error}"))?;
    let mut group = start(
        &command.argv,
        Streams::Pumped(pump),
        &vars,
        directory.as_ref().map(AsFd::as_fd),
    )?;
    hold.pass_on_to(group.pid());
    let waited = group.wait();
    hold.keep();
    let status = waited.and_then(|waited| Ok((waited, group.end()?)));
    let kept = pump.settle();
    if let Ok((Waited::WantsTerminal, _)) = status {
        return Err(NO_TERMINAL.to_owned());
    }
    match status.map(|(_, status)| Ending::from(status)) {
        Ok(Ending::Exit(0)) => {
            kept.map_err(|error| format!("what the command wrote could not be kept: {error}"))?;
            has_made(&command.makes, current.map_or(0, |current| current.index))
        }
        Ok(ending) => Err(ending.to_string()),
        Err(error) => Err(format!("it is not known how the command ended: {error}")),
    }
}

/// Fails if a command that has succeeded has not made one of these files.
fn has_made(files: &[Bytes], index: u64) -> Result<(), String> {
    for name in files {
        let name = OsStr::from_bytes(&name.0);
        let path = place_of_own(index).unwrap_or_default().join(name);
        if let Err(error) = path.symlink_metadata() {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("it has made no file {name:?}, which was to be fetched")
                }
                _ => format!("the file {name:?} can't be fetched: {error}"),
            });
        }
    }
    Ok(())
}

/// The directory of a call that has one of its own.
fn own_directory(index: u64) -> io::Result<Option<OwnedFd>> {
    let opened = place_of_own(index).map(File::open).transpose()?;
    Ok(opened.map(OwnedFd::from))
}

/// Where that directory is.
fn place_of_own(index: u64) -> Option<PathBuf> {
    let calls = env::var_os(CALLS_VARIABLE)?;
    Some(Path::new(&calls).join(index.to_string()))
}

/// Starts a process with this command line and these additional variables, in a directory, if that is not the worker's.
pub(super) fn start(
    argv: &[Bytes],
    streams: Streams,
    vars: &[(&str, String)],
    directory: Option<BorrowedFd<'_>>,
) -> Result<Group, String> {
    let program = argv.first().ok_or("there is no command to run")?;
    let program = OsStr::from_bytes(&program.0);
    let place = match directory {
        // It is looked for from there.
        Some(_) if program.as_bytes().contains(&b'/') => Ok(PathBuf::from(program)),
        _ => place_of(program),
    };
    let started = place.and_then(|place| {
        let words = argv.iter().map(|word| word.0.as_slice());
        // A coordinator that is started by a command has calls of its own.
        let inherited = env::vars_os()
            .filter(|(name, _)| name != CALLS_VARIABLE && vars.iter().all(|(set, _)| name != set));
        let set = vars
            .iter()
            .map(|(name, value)| (OsString::from(name), value.into()));
        let image = Image::at(&place)?;
        let command = Spawn::new(&image, words, inherited.chain(set))?;
        Group::start(&command, streams, directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if place.exists() => io::Error::other(
                "the interpreter that its first line names is not there, or another part of it",
            ),
            _ => error,
        })
    });
    started.map_err(|error| not_started(argv, &error))
}

/// Says which program could not be started, and why.
pub(super) fn not_started(argv: &[Bytes], error: &io::Error) -> String {
    let program = argv.first().map(|word| OsString::from_vec(word.0.clone()));
    let program = program.unwrap_or_default();
    let mut why = error.to_string();
    // The error number says no more than the words.
    if let Some(end) = why.find(" (os error") {
        why.truncate(end);
    }
    if argv.iter().any(|word| word.0.contains(&0)) {
        why = "there is a zero byte in it, which no command can be given (inputs that end with one are read \
               with -0)"
            .to_owned();
    }
    if program.is_empty() {
        why = "it has no name".to_owned();
    }
    format!("`{}` could not be started: {why}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_read_as_they_are_written() {
        for number in -1..=256 {
            for ending in [Ending::Exit(number), Ending::Signal(number)] {
                assert_eq!(Ending::parse(&ending.to_string()), Some(ending));
            }
        }
        assert_eq!(Ending::Exit(3).to_string(), "exited with code 3");
        let of_pipe = "the process exited with code 3 instead of answering to \"x\"";
        assert_eq!(Ending::parse(of_pipe), Some(Ending::Exit(3)));
        let killed = Ending::Signal(9).to_string();
        assert_eq!(killed, "was killed by signal 9 (SIGKILL)");
        for wrong in [
            "",
            "exited with code 03",
            "was killed by signal 9",
            "exited with code 3 ",
        ] {
            assert_eq!(Ending::parse(wrong), None);
        }
    }
}
