//! The definition of the command line, and its parsing.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use clap_complete::engine::ArgValueCompleter;
use coordinator::Builder;

use super::candidates::{self, CommandWords};
use super::machine_args::{AgentArgs, AgentsArgs, MachineArgs};
use super::units::{self, JobCount, MaxFail, Recycle};
use super::{help, mistakes};

/// Runs tasks and commands in worker processes; results come back in input order.
#[derive(Debug, Parser)]
#[command(name = "coordinator", version, arg_required_else_help = false, disable_help_subcommand = true, after_help = help::EXAMPLES)]
pub(super) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a task on each input, in warm workers
    #[command(long_about = help::MAP_ABOUT, override_usage = help::MAP_USAGE, override_help = help::map())]
    Map(MapArgs),
    /// Run a command on each input, a process each
    #[command(long_about = help::EXEC_ABOUT, override_usage = help::EXEC_USAGE, override_help = help::exec())]
    Exec(Exec),
    /// Ask a warm process about each input, line by line
    #[command(long_about = help::PIPE_ABOUT, override_usage = help::PIPE_USAGE, override_help = help::pipe())]
    Pipe(Pipe),
    /// List the tasks that the workers can run
    #[command(after_help = help::TASKS_EXAMPLES)]
    Tasks {
        /// The worker's executable
        #[arg(long, value_name = "PATH")]
        worker: Option<PathBuf>,
    },
    /// Lend this machine to the runs of others
    #[command(override_help = help::AGENT)]
    Agent(AgentArgs),
    /// List who lends machines, or make the keys for that
    #[command(override_help = help::AGENTS)]
    Agents(AgentsArgs),
    /// Draw what a log tells: a page, or a trace for Perfetto
    #[command(after_help = help::REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Print a script that completes these words in a shell
    #[command(after_help = help::COMPLETIONS_EXAMPLES)]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = help::MAN_EXAMPLES)]
    Man,
}

/// The options of `report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The log that --log wrote; it may hold several runs
    #[arg(value_name = "LOG")]
    pub(super) log: PathBuf,
    /// Write to FILE, not to stdout or, on a terminal, LOG.html
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Write a trace for ui.perfetto.dev instead of a page
    #[arg(long)]
    pub(super) trace: bool,
    /// Serve the page on this machine, and redraw it as the log grows
    #[arg(long, conflicts_with_all = ["trace", "output"])]
    pub(super) live: bool,
}

/// The options of `map`.
#[derive(Debug, Args)]
pub(super) struct MapArgs {
    /// The task; see: coordinator tasks
    #[arg(value_name = "TASK", add = ArgValueCompleter::new(candidates::tasks))]
    pub(super) task: String,
    #[command(flatten)]
    pub(super) options: Options,
    /// The worker's executable
    #[arg(long, value_name = "PATH")]
    pub(super) worker: Option<PathBuf>,
    /// Start no workers: print how to start them by hand, and wait
    #[arg(long)]
    pub(super) manual: bool,
}

/// The options of `exec`.
#[derive(Debug, Args)]
pub(super) struct Exec {
    #[command(flatten)]
    pub(super) options: Options,
    /// So many inputs for each command
    #[arg(short = 'n', long = "inputs", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) many: u32,
    /// Run this with `sh -c`; the inputs are "$@"
    #[arg(
        short = 'c',
        long = "script",
        value_name = "SCRIPT",
        conflicts_with = "command"
    )]
    pub(super) script: Option<OsString>,
    /// Take this file along to another machine, with the same places for inputs as in the command; with --send or --fetch, each
    /// call has a directory of its own there
    #[arg(long, value_name = "FILE")]
    pub(super) send: Vec<OsString>,
    /// Bring this file back from another machine when the call has succeeded
    #[arg(long, value_name = "FILE")]
    pub(super) fetch: Vec<OsString>,
    /// The command and its words
    #[arg(value_name = "COMMAND", last = true, add = ArgValueCompleter::new(CommandWords))]
    pub(super) command: Vec<OsString>,
}

/// The options of `pipe`.
#[derive(Debug, Args)]
pub(super) struct Pipe {
    #[command(flatten)]
    pub(super) options: Options,
    /// Put each input's number and a tab before it; both have to come back before the answer
    #[arg(long)]
    pub(super) numbered: bool,
    /// The command and its words
    #[arg(value_name = "COMMAND", last = true, add = ArgValueCompleter::new(CommandWords))]
    pub(super) command: Vec<OsString>,
}

/// The options of all kinds of runs.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How many workers: a number, a share of the processors, or all but some [default: the
    /// processors this process may use]
    #[arg(short, long, value_name = "N|N%|-N", allow_hyphen_values = true, value_parser = units::jobs)]
    pub(super) jobs: Option<JobCount>,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    /// Start nothing more after so many failures; with `:now`, stop what runs, too
    #[arg(long, value_name = "N[:now]", value_parser = units::max_fail)]
    pub(super) max_fail: Option<MaxFail>,
    /// Wait so long between two starts
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) delay: Option<Duration>,
    /// Start a call only while the load is below this: a number, or a share of the processors
    #[arg(long, value_name = "N|N%", value_parser = units::load)]
    pub(super) max_load: Option<f64>,
    /// Start a call only while so much memory is free
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(super) min_free_memory: Option<u64>,
    /// Read the inputs from FILE, one a line; `-` is stdin
    #[arg(short = 'a', long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// Inputs end with NUL instead of a newline
    #[arg(short = '0', long)]
    pub(super) null: bool,
    /// Print results as they come, in any order
    #[arg(short, long)]
    pub(super) unordered: bool,
    /// Print output while calls run, in whole lines
    #[arg(long, conflicts_with = "json")]
    pub(super) live: bool,
    /// Begin each line of output with the input and a tab
    #[arg(long, conflicts_with = "json")]
    pub(super) tag: bool,
    /// Print one JSON object for each call, and one for the run
    #[arg(long)]
    pub(super) json: bool,
    /// Say nothing on stderr but what went wrong
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Show how far the run has come, on a terminal at stderr, unless stdout is a pipe; `always` also then, in CI, and as
    /// a line now and then where there is no terminal
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) progress: When,
    /// Use colours on stderr
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) color: When,
    /// Append a line of JSON to FILE for each attempt
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// Skip the inputs that succeeded by the log
    #[arg(long, requires = "log")]
    pub(super) resume: bool,
    /// Print what would be run, and run nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) machines: MachineArgs,
}

/// When to do something that makes sense on a terminal only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// If stderr is a terminal
    Auto,
    /// In any case
    Always,
    /// In no case
    Never,
}

/// The limits of a call, and how often it is tried.
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
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

impl LimitArgs {
    /// Sets the limits on a pool's builder.
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

impl Command {
    /// The options of a run. `None` for commands that take no inputs.
    fn options(&self) -> Option<&Options> {
        match self {
            Command::Map(map) => Some(&map.options),
            Command::Exec(exec) => Some(&exec.options),
            Command::Pipe(pipe) => Some(&pipe.options),
            _ => None,
        }
    }
}

/// The whole definition as clap has it, for completions and the manual page.
pub(super) fn definition() -> clap::Command {
    Cli::command()
}

/// The options of all kinds of runs alone, as clap has them.
pub(super) fn run_options() -> clap::Command {
    Options::augment_args(clap::Command::new("run"))
        .disable_help_flag(true)
        .disable_version_flag(true)
}

/// The meaning of a command line.
#[derive(Debug)]
pub(super) enum Parsed {
    /// Print this text to stdout.
    Print(String),
    /// Run this command, with these inputs after `:::`.
    Run(Option<Box<Command>>, Option<Vec<OsString>>),
}

/// Parses a command line. The error says in one line what is wrong.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, String> {
    let words: Vec<OsString> = words.into_iter().collect();
    let (words, inputs) = split_inputs(words);
    if let Some(mistake) = mistakes::in_words(&words, inputs.as_deref()) {
        return Err(mistake);
    }
    match Cli::try_parse_from(&words) {
        Ok(Cli { command }) => {
            let options = command.as_ref().and_then(Command::options);
            match (options, &inputs) {
                (None, Some(_)) => Err("this command takes no inputs after `:::`".to_owned()),
                (Some(Options { input: Some(_), .. }), Some(_)) => {
                    Err("the inputs come after `:::` or from --input, not from both".to_owned())
                }
                _ => Ok(Parsed::Run(command.map(Box::new), inputs)),
            }
        }
        Err(error) if !error.use_stderr() => Ok(Parsed::Print(match short_help(&error, &words) {
            Some(short) => short,
            None => error.to_string(),
        })),
        Err(error) => Err(mistakes::explain(&error, &words, &definition())),
    }
}

/// The short help of a run, if the words ask for help by `-h` and not by `--help`.
fn short_help(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let mut options = words.iter().take_while(|word| *word != "--");
    let is_short = error.kind() == ErrorKind::DisplayHelp && !options.any(|word| word == "--help");
    let command = words.get(1)?.to_str()?;
    is_short.then(|| help::short(command))?
}

/// Takes the inputs out of the command line: the words after `:::`, up to a `--` in front of a command.
/// `--manual` and the number of jobs may follow the inputs of a `map`, so that a person can repeat a run
/// by adding to its line. Any other word is an input, whatever it looks like, because inputs may be
/// names of files that others have chosen.
fn split_inputs(mut words: Vec<OsString>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    let Some(at) = words.iter().position(|word| word == ":::") else {
        return (words, None);
    };
    let mut inputs = words.split_off(at);
    inputs.remove(0);
    let is_map = words.get(1).is_some_and(|word| word == "map");
    let has_command = words.iter().any(|word| word == "--");
    if !has_command && let Some(end) = inputs.iter().position(|word| word == "--") {
        // A map has no command, so the words after `--` are its options.
        words.extend(inputs.split_off(end).into_iter().skip(usize::from(is_map)));
    }
    while is_map && inputs.last().is_some_and(|last| may_follow(last)) {
        words.extend(inputs.pop());
    }
    (words, Some(inputs))
}

/// A command line with its inputs replaced by others behind `:::`. `None` if those can't stand there.
pub(super) fn with_inputs(words: Vec<OsString>, inputs: &[OsString]) -> Option<Vec<OsString>> {
    let words = split_inputs(words).0;
    let command = words.iter().position(|word| word == "--");
    let (options, command) = words.split_at(command.unwrap_or(words.len()));
    let mut options = options.iter();
    let mut words = Vec::new();
    while let Some(word) = options.next() {
        let bytes = word.as_encoded_bytes();
        if word == "-a" || word == "--input" {
            options.next();
        } else if !bytes.starts_with(b"-a") && !bytes.starts_with(b"--input=") {
            words.push(word.clone());
        }
    }
    words.extend_from_slice(command);
    words.push(":::".into());
    words.extend_from_slice(inputs);
    match parse(words.clone()) {
        Ok(Parsed::Run(_, Some(understood))) if understood == inputs => Some(words),
        _ => None,
    }
}

fn may_follow(word: &OsStr) -> bool {
    let jobs = word
        .to_str()
        .and_then(|word| word.strip_prefix("-j").or(word.strip_prefix("--jobs=")));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word == "--manual" || jobs.is_some_and(number)
}

/// The short form of the help, for a run without inputs whose stdin is a terminal.
pub(super) fn no_inputs() -> String {
    "no inputs: put them after `:::`, name a file with --input, or pipe them in, one a line; try: \
     coordinator --help"
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

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
    fn a_command_comes_before_or_after_the_inputs() {
        assert_eq!(
            split("c exec -j2 -- echo -n ::: 1 -- 2"),
            ("c exec -j2 -- echo -n".into(), Some("1 -- 2".into()))
        );
        assert_eq!(
            split("c exec ::: 1 2 -- echo -j2"),
            ("c exec -- echo -j2".into(), Some("1 2".into()))
        );
        assert_eq!(
            split("c exec -c true ::: 1 -j2"),
            ("c exec -c true".into(), Some("1 -j2".into()))
        );
    }

    #[test]
    fn manual_and_jobs_may_follow_the_inputs() {
        let (words, inputs) = split("c map t ::: 1 2 3 --manual -j2");
        assert_eq!(inputs.as_deref(), Some("1 2 3"));
        assert_eq!(words, "c map t -j2 --manual");
        // These options count only at the very end. No file's name can do harm by looking like one of them.
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
        definition().debug_assert();
    }

    #[test]
    fn each_help_fits_on_a_screen_and_names_every_option() {
        for command in definition().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            let name = command.get_name().to_owned();
            assert!(
                help.lines().count() <= 24,
                "{name}: {}",
                help.lines().count()
            );
            assert!(
                help.lines().all(|line| line.chars().count() <= 80),
                "{help}"
            );
            let (_, examples) = help.split_once("Examples:").unwrap();
            assert!(
                examples.matches("coordinator ").count() >= 2,
                "{name}: {help}"
            );
            let shown = command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set());
            let options = shown.filter_map(clap::Arg::get_long);
            for option in options.filter(|option| *option != "help") {
                assert!(help.contains(&format!("--{option}")), "{name}: --{option}");
            }
        }
    }
}
