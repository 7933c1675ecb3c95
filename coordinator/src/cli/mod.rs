//! The command line: what people type, and what they read.
//!
//! Only `main` uses this module, and it uses the library by its public names alone, as every other program does. So a
//! program can do all that the command line can. Rules of scheduling, and of starting or ending workers, have no place here.
//!
//! `args` defines what can be typed; `help`, `manual`, `completion` and `candidates` explain it, and `mistakes` answers what is
//! wrong. `run` makes a pool and runs the calls. `work`, `template` and `feed` turn inputs
//! into calls. `printer` writes the output of calls (also `--tag`). `outcome` says how a call ended, as JSON and in words;
//! `summary`, `progress` and `status` tell of all calls. `log` and `resume` remember a run, `report` draws it, `signals`
//! handles Ctrl-C, and all text of others goes through `terminal`.

mod agent;
mod agents;
mod args;
mod candidates;
mod completion;
mod demo;
mod feed;
mod former;
mod help;
mod inputs;
mod lines;
mod log;
mod log_line;
mod machine_args;
mod machines;
mod manual;
mod mistakes;
mod outcome;
mod printer;
mod progress;
mod report;
mod resume;
mod roll;
mod run;
mod signals;
mod spill;
mod status;
mod summary;
mod suspects;
mod tasks;
mod template;
mod terminal;
mod units;
mod work;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coordinator::{Builder, Pool, PoolError};
use env_logger::TimestampPrecision;
use env_logger::fmt::{ConfigurableFormat, Formatter};
use worker::builtin::Patient;

use args::{Command, Parsed};
use progress::Progress;
use work::Work;

/// How a run ended, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    AllOk,
    SomeFailed,
    /// A signal ended it. The exit code tells which.
    Interrupted(u8),
}

/// Why a run could not be carried out.
#[derive(Debug)]
enum Trouble {
    /// The command line makes no sense.
    Usage(String),
    /// The pool could not work.
    Pool(String),
}

impl From<PoolError> for Trouble {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Setting(_) => Trouble::Usage(error.to_string()),
            _ => Trouble::Pool(error.to_string()),
        }
    }
}

/// Runs the command line and returns its exit code.
pub(crate) fn main() -> ExitCode {
    if completion::answer() {
        return ExitCode::SUCCESS;
    }
    // What an agent does is nobody's output, so it is told.
    let default = match std::env::args_os().nth(1) {
        Some(command) if command == "agent" => "warn,coordinator::serve=info",
        _ => "warn",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default))
        .format(log_line)
        .init();
    let ran = match args::parse(std::env::args_os()) {
        Ok(Parsed::Print(text)) => print(&text),
        Ok(Parsed::Run(command, inputs)) => dispatch(command.map(|command| *command), inputs),
        Err(why) => Err(Trouble::Usage(why)),
    };
    let code = match ran {
        Ok(Exit::AllOk) => 0,
        Ok(Exit::SomeFailed) => 1,
        Ok(Exit::Interrupted(code)) => code,
        Err(Trouble::Usage(why)) => {
            complain(&why);
            2
        }
        Err(Trouble::Pool(why)) => {
            complain(&why);
            3
        }
    };
    ExitCode::from(code)
}

/// Formats a line of the program's own log, which may contain text of others.
fn log_line(formatter: &mut Formatter, record: &::log::Record<'_>) -> io::Result<()> {
    let said = terminal::visible_lines(&record.args().to_string());
    let mut format = ConfigurableFormat::default();
    format.timestamp(Some(TimestampPrecision::Millis));
    let args = format_args!("{said}");
    let mut shown = ::log::Record::builder();
    shown.metadata(record.metadata().clone()).args(args);
    format.format(formatter, &shown.build())
}

fn dispatch(command: Option<Command>, inputs: Option<Vec<OsString>>) -> Result<Exit, Trouble> {
    match command {
        None => {
            let ran = demo::run()?;
            if io::stderr().is_terminal() {
                complain(
                    &"four worker processes have squared 1 to 8; to run a command over files: coordinator exec -- gzip {} \
                      ::: *.log; all the rest: coordinator --help",
                );
            }
            Ok(ran)
        }
        Some(Command::Map(map)) => run::run(
            &Work::map(&map),
            &map.options,
            run::Workers {
                program: map.worker.as_deref(),
                manual: map.manual,
            },
            inputs,
        ),
        Some(Command::Exec(exec)) => run::run(
            &Work::exec(&exec)?,
            &exec.options,
            run::Workers::default(),
            inputs,
        ),
        Some(Command::Pipe(pipe)) => run::run(
            &Work::pipe(&pipe)?,
            &pipe.options,
            run::Workers::default(),
            inputs,
        ),
        Some(Command::Tasks { worker }) => tasks::run(worker.as_deref()),
        Some(Command::Agent(args)) => agent::run(&args),
        Some(Command::Agents(args)) => agents::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Completions { shell }) => completion::print_script(shell),
        Some(Command::Man) => {
            let mut page = Vec::new();
            manual::render(&mut page).map_err(|error| cannot_write(&error))?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}

/// Writes one line to stderr that begins with the program's name.
fn complain(what: &impl Display) {
    let what = terminal::visible_lines(&what.to_string());
    // If stderr is gone, nobody is left to tell.
    let _ = Progress::aside(|| writeln!(Patient(io::stderr()), "coordinator: {what}"));
}

/// Writes a line about a failed call: in red, where there are colours.
fn complain_in_red(what: &impl Display, colour: bool) {
    if !colour {
        return complain(what);
    }
    let what = terminal::visible_lines(&what.to_string());
    let _ = Progress::aside(|| {
        writeln!(
            Patient(io::stderr()),
            "coordinator: \u{1b}[31m{what}\u{1b}[0m"
        )
    });
}

/// Prints to stdout. If the reader has closed it, that is no error.
fn print(text: &str) -> Result<Exit, Trouble> {
    let mut stdout = Patient(io::stdout());
    let printed = check_stdout()
        .and_then(|()| stdout.write_all(text.as_bytes()))
        .and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(cannot_write(&error)),
        _ => Ok(Exit::AllOk),
    }
}

/// Fails if stdout was closed when this program started. Call it when there is something to write: a program that writes
/// nothing loses nothing.
fn check_stdout() -> io::Result<()> {
    match worker::builtin::has_no_stdout() {
        true => Err(io::Error::other(
            "this program was started with it closed (>&-)",
        )),
        false => Ok(()),
    }
}

fn cannot_write(error: &io::Error) -> Trouble {
    Trouble::Pool(format!("this can't be written to stdout: {error}"))
}

/// A pool whose workers run the executable that was asked for, or else the `worker` beside this program.
fn builder(worker: Option<&Path>) -> Builder {
    let chosen = worker.map(Path::to_owned).or_else(|| {
        // A bare number is the slot that commands of a run find in this variable; see `Builder::worker`.
        let is_program = |named: OsString| !named.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let named = std::env::var_os("COORDINATOR_WORKER").is_some_and(is_program);
        if named { None } else { worker_beside() }
    });
    match chosen {
        Some(program) => Pool::builder().worker(program),
        None => Pool::builder(),
    }
}

fn worker_beside() -> Option<PathBuf> {
    let name = format!("worker{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok()?.with_file_name(name);
    beside.is_file().then_some(beside)
}
