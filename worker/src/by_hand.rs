//! The command line of a worker, for people and debuggers.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use protocol::lane::Sheet;
use protocol::message::Verdict;
use protocol::parcel::Received;

use crate::{registry, run, text};

const HELP: &str = "\
Runs tasks for a coordinator, or one by hand.

Usage:
  worker tasks               list the tasks, with what they are for
  worker call TASK [INPUT]   run one call with no coordinator: for a debugger
  worker --connect NAME      join a coordinator that runs with --manual

INPUT is JSON of the task's input type, or else a plain string; several
parameters are an array.

Examples:
  worker call square 7
  worker call sleep 0.5
";

pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let first = words.first().map(|word| word.to_string_lossy());
    match (first.as_deref(), words.len()) {
        (Some("tasks"), 1) => tasks(),
        (Some("tasks"), _) => usage("tasks takes no arguments"),
        (Some("call"), 2) => call(words[1], OsStr::new("")),
        (Some("call"), 3) => call(words[1], words[2]),
        (Some("call"), 4..) => {
            usage("call takes one INPUT; several parameters are an array: '[2, 10]'")
        }
        (Some("call"), _) => usage("call needs a TASK; see: worker tasks"),
        (Some("--connect"), _) => usage("--connect takes one NAME"),
        (Some("-h" | "--help"), 1) => print(HELP),
        (Some("-V" | "--version"), 1) => print(concat!("worker ", env!("CARGO_PKG_VERSION"), "\n")),
        (None, _) => usage("nothing to do"),
        (Some(word), _) => usage(&format!("unexpected `{word}`")),
    }
}

/// Writes one line to stderr that begins with the program's name.
pub(crate) fn complain(what: &str) {
    // If stderr is gone, nobody is left to tell.
    let _ = writeln!(io::stderr(), "worker: {what}");
}

fn usage(what: &str) -> ExitCode {
    complain(&format!("{what}; try: worker --help"));
    ExitCode::from(2)
}

fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        // `worker tasks | head -1`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn tasks() -> ExitCode {
    match registry::all() {
        Ok(all) => print(&text::list(&all.infos())),
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn call(task: &OsStr, input: &OsStr) -> ExitCode {
    let entry = match registry::find(&task.to_string_lossy()) {
        Ok(entry) => entry,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    let mut output = Vec::new();
    run::install_panic_hook();
    let why = match run::guarded(
        entry.text,
        Received::Lent(input.as_encoded_bytes()),
        &mut Sheet::new(&mut output, None),
    ) {
        Verdict::Value => {
            return match text::show(&output) {
                Some(shown) => print(&format!("{shown}\n")),
                None => ExitCode::SUCCESS,
            };
        }
        Verdict::Failed(why) => format!("failed: {why}"),
        Verdict::Undecodable(why) => why,
        Verdict::Panicked(panic) => format!(
            "panicked at {}: {}\n{}",
            panic.location, panic.message, panic.backtrace
        ),
    };
    complain(&format!("{}: {}", entry.name, why.trim_end()));
    ExitCode::FAILURE
}
