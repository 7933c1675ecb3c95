//! What the words of the command line mean.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use coordinator::Builder;

use super::units::{self, Recycle};

/// Runs tasks in worker processes; results come back in input order.
///
/// Without a command: a demonstration, the squares of 1 to 8 from four workers.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, arg_required_else_help = false, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  coordinator map square ::: 1 2 3
  find . -name '*.rs' | sort | coordinator map sha256

RUST_LOG=debug tells what happens.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a task on each input, in warm workers
    Map(Map),
    /// List the tasks that the workers can run
    Tasks {
        /// The worker's executable
        #[arg(long, value_name = "PATH")]
        worker: Option<PathBuf>,
    },
}

/// Run a task on each input, in warm workers.
///
/// Each input is JSON of the task's input type, or else a plain string; several parameters are an
/// array. Results are printed one a line, in input order: strings raw, all else as JSON. What the
/// tasks print comes before their result.
#[derive(Debug, Args)]
#[command(
    override_usage = "coordinator map TASK [OPTIONS] [::: INPUT...]",
    after_help = "\
Inputs come after `:::` (up to `--`, or a final --manual or -jN), or from stdin, one a line.

Examples:
  coordinator map square -j4 ::: 1 2 3
  find . -name '*.rs' -print0 | sort -z | coordinator map sha256 -0"
)]
pub(super) struct Map {
    /// The task; see: coordinator tasks
    #[arg(value_name = "TASK", hide = true)]
    pub(super) task: String,
    /// How many workers [default: the processors this process may use]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(super) limits: Limits,
    /// Read the inputs from FILE, one a line; `-` is stdin
    #[arg(short = 'a', long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// Inputs end with NUL instead of a newline
    #[arg(short = '0', long)]
    pub(super) null: bool,
    /// Print results as they come, in any order
    #[arg(short, long)]
    pub(super) unordered: bool,
    /// The worker's executable
    #[arg(long, value_name = "PATH")]
    pub(super) worker: Option<PathBuf>,
    /// Start no workers: print how to start them by hand, and wait
    #[arg(long)]
    pub(super) manual: bool,
}

/// What a call may cost, and how often it is tried.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// How long a call may run, from its start: 30s, 200ms, 2m
    #[arg(short, long, value_name = "TIME", value_parser = units::duration)]
    pub(super) timeout: Option<Duration>,
    /// How often a call that did not succeed is tried again [default: 0]
    #[arg(short, long, value_name = "N")]
    pub(super) retries: Option<u32>,
    /// How long to wait before the first retry; then twice as long
    #[arg(long, value_name = "TIME", value_parser = units::duration_or_none)]
    pub(super) backoff: Option<Duration>,
    /// Time between SIGTERM and SIGKILL [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = units::duration_or_none)]
    pub(super) grace: Option<Duration>,
    /// How much memory a worker and its children may have: 500M
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(super) memory: Option<u64>,
    /// Replace a worker after N calls, or above a size: 500M
    #[arg(long, value_name = "N|SIZE", value_parser = units::recycle)]
    pub(super) recycle: Option<Recycle>,
}

impl Limits {
    /// Hands them on to the pool.
    pub(super) fn apply(&self, mut builder: Builder) -> Builder {
        if let Some(limit) = self.timeout {
            builder = builder.timeout(limit);
        }
        if let Some(retries) = self.retries {
            builder = builder.retries(retries);
        }
        if let Some(backoff) = self.backoff {
            builder = builder.backoff(backoff);
        }
        if let Some(grace) = self.grace {
            builder = builder.grace(grace);
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory_limit(bytes);
        }
        match self.recycle {
            Some(Recycle::After(calls)) => builder.recycle_after(calls),
            Some(Recycle::Above(bytes)) => builder.recycle_above(bytes),
            None => builder,
        }
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Parsed {
    /// This text on stdout.
    Print(String),
    /// This command, with the inputs after `:::`.
    Run(Option<Command>, Option<Vec<OsString>>),
}

/// Understands a command line, or says in one line why not.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, String> {
    let words: Vec<OsString> = words.into_iter().collect();
    if words.get(1).is_some_and(|word| word == "--connect") {
        // With the token, worker::init() would have taken over.
        return Err(
            "--connect joins another coordinator, which needs COORDINATOR_TOKEN: copy the \
                    whole line that it printed"
                .to_owned(),
        );
    }
    let (words, inputs) = split_inputs(words);
    match Cli::try_parse_from(words) {
        Ok(Cli {
            command: Some(Command::Tasks { .. }) | None,
        }) if inputs.is_some() => Err("only `coordinator map` takes inputs after `:::`".to_owned()),
        Ok(Cli {
            command: Some(Command::Map(Map { input: Some(_), .. })),
        }) if inputs.is_some() => {
            Err("the inputs come after `:::` or from --input, not from both".to_owned())
        }
        Ok(cli) => Ok(Parsed::Run(cli.command, inputs)),
        Err(error) if !error.use_stderr() => Ok(Parsed::Print(error.to_string())),
        Err(error) => Err(one_line(&error.to_string())),
    }
}

/// Takes the inputs out of the command line: the words after `:::`, up to `--`. `--manual` and the
/// number of jobs may follow them, so that a run can be repeated by hand by adding to its line; any
/// other word is an input, whatever it looks like, because inputs may be names of foreign files.
fn split_inputs(mut words: Vec<OsString>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    let Some(at) = words.iter().position(|word| word == ":::") else {
        return (words, None);
    };
    let mut inputs = words.split_off(at);
    inputs.remove(0);
    if let Some(end) = inputs.iter().position(|word| word == "--") {
        words.extend(inputs.split_off(end).into_iter().skip(1));
    }
    while inputs.last().is_some_and(|last| may_follow(last)) {
        words.extend(inputs.pop());
    }
    (words, Some(inputs))
}

fn may_follow(word: &OsStr) -> bool {
    let jobs = word
        .to_str()
        .and_then(|word| word.strip_prefix("-j").or(word.strip_prefix("--jobs=")));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word == "--manual" || jobs.is_some_and(number)
}

/// The first paragraph of a message, without its label, on one line.
fn one_line(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or(message);
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; try: coordinator --help")
}

/// The short form of `map`'s help, for a terminal with nothing to read.
pub(super) fn no_inputs() -> String {
    "no inputs: put them after `:::`, name a file with --input, or pipe them in, one a line; try: \
     coordinator map --help"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> (String, Option<String>) {
        let join = |words: Vec<OsString>| words.join(OsStr::new(" ")).into_string().unwrap();
        let (words, inputs) = split_inputs(line.split(' ').map(OsString::from).collect());
        (join(words), inputs.map(join))
    }

    #[test]
    fn inputs_follow_three_colons() {
        assert_eq!(split("c map t"), ("c map t".into(), None));
        assert_eq!(
            split("c map t -j2 ::: 1 -2 -u"),
            ("c map t -j2".into(), Some("1 -2 -u".into()))
        );
        assert_eq!(
            split("c map t ::: 1 -- -u"),
            ("c map t -u".into(), Some("1".into()))
        );
    }

    #[test]
    fn manual_and_jobs_may_follow_the_inputs() {
        let (words, inputs) = split("c map t ::: 1 2 3 --manual -j2");
        assert_eq!(inputs.as_deref(), Some("1 2 3"));
        assert_eq!(words, "c map t -j2 --manual");
        // Only at the very end, and nothing that a foreign file could be called to do harm.
        assert_eq!(
            split("c map t ::: --manual x").1.as_deref(),
            Some("--manual x")
        );
        assert_eq!(
            split("c map t ::: --worker=evil").1.as_deref(),
            Some("--worker=evil")
        );
    }

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
