//! The text of `--help`. Runs have more options than a screen has lines, so two options share a line.
//! The manual page says more about each.

/// The examples in the help of the whole program.
pub(super) const EXAMPLES: &str = "\
Examples:
  coordinator map square ::: 1 2 3
  find . -name '*.log' | coordinator exec -- gzip -9

RUST_LOG=debug tells what happens. The manual: coordinator man | man -l -";

pub(super) const MAP_USAGE: &str = "coordinator map TASK [OPTIONS] [::: INPUT...]";
pub(super) const EXEC_USAGE: &str =
    "coordinator exec [OPTIONS] -- COMMAND [ARG|{}]... [::: INPUT...]";
pub(super) const PIPE_USAGE: &str = "coordinator pipe [OPTIONS] -- COMMAND [ARG]... [::: INPUT...]";

/// The options of every run, in a few words each. The definition in `args` has the long ones, and a test compares the two.
const OPTIONS: &str = "
  -j, --jobs N|N%|-N     so many workers  -a, --input FILE    `-` is stdin
  -t, --timeout TIME     limit of a call  -0, --null          end with NUL
  -r, --retries N        try again        -u, --unordered     as results come
      --backoff TIME     wait before that     --live, --tag   lines, with input
      --grace TIME       TERM to KILL         --json          an object a call
      --memory SIZE      of a worker          --log FILE      a line an attempt
      --recycle N|SIZE   renew workers        --resume, --dry-run, --quiet, -q
      --max-fail N[:now] then give up         --progress, --color WHEN
      --delay TIME       between starts; --max-load N|N%, --min-free-memory SIZE
      --on HOST[:N],...  other machines, or --nats URL --key FILE --insecure
      --env NAME[=VALUE] set there        --lease TIME    --at-most-once
";

pub(super) const MAP_ABOUT: &str = "\
Run a task on each input, in warm workers.

Each input is JSON of the task's input type, or else a plain string; several parameters are an array. Results are \
printed one a line, in input order: strings raw, all else as JSON. What a task prints comes before its result.";

pub(super) const EXEC_ABOUT: &str = "\
Run a command on each input, a process each, without a shell.

The commands' output comes in input order, as if they had run one after another. Each command has a process group of its \
own, and nothing to read. What is left of the group is killed when the command ends.";

pub(super) const PIPE_ABOUT: &str = "\
Ask a warm process about each input: it reads a line and answers with a line.

Each worker keeps one such process, which has to flush its output after each answer. If it dies, the input that it was \
working on is charged, and another process takes its place.";

pub(super) const MAP_EXAMPLES: &str = "Examples:
  coordinator map square -j4 ::: 1 2 3
  find . -name '*.rs' -print0 | sort -z | coordinator map sha256 -0";

pub(super) const EXEC_EXAMPLES: &str = "Examples:
  ls *.wav | coordinator exec -- ffmpeg -i {} {.}.mp3
  coordinator exec -c 'gunzip -c \"$1\" | wc -l' --tag ::: *.gz";

pub(super) const PIPE_EXAMPLES: &str = "Examples:
  coordinator pipe -a texts.txt -- python3 classify.py
  seq 1000 | coordinator pipe -t 5s -r1 -- ./solver --stdin";

pub(super) const TASKS_EXAMPLES: &str = "Examples:
  coordinator tasks
  coordinator tasks --worker ./my-worker";

/// The help of `agent`.
pub(super) const AGENT: &str = "\
Lend this machine to the runs of others.

Usage: coordinator agent [OPTIONS]

      --nats URL             where it waits for runs [env: COORDINATOR_NATS]
      --key FILE             the key that lets it in [env: COORDINATOR_KEY]
  -j, --jobs N|N%|-N         so many calls at once, if not one a processor
      --name NAME            what it is called, if not as the machine
      --max-load N|N%        take calls only while the load is below that
      --min-free-memory SIZE take calls only while so much memory is free
      --insecure             also wait at a broker that lets everybody in

A signal (Ctrl-C, SIGTERM) lets it finish what it runs; a second does not.

Examples:
  coordinator agent --nats tls://hub --key agent.key
  coordinator agent --nats tls://hub --key agent.key -j 50% --max-load 80%
";

/// The help of `agents`.
pub(super) const AGENTS: &str = "\
List who lends machines at a broker, or make the keys for a new one.

Usage: coordinator agents [--nats URL] [--key FILE] [--insecure] [--json]
       coordinator agents --new-keys DIR [--each NAME...] [--host HOST...]

      --nats URL             where agents wait for runs [env: COORDINATOR_NATS]
      --key FILE             a key to look or to submit [env: COORDINATOR_KEY]
      --insecure             also ask a broker that lets everybody in
      --json                 an object for each agent
      --new-keys DIR         make a broker's configuration and all keys, in DIR
      --each NAME...         a key for each of these agents, not one for all
      --host HOST...         further names or addresses of the broker

Examples:
  coordinator agents --nats tls://hub --key look.key
  coordinator agents --new-keys /etc/coordinator --host hub.example.org
";

pub(super) const REPORT_EXAMPLES: &str = "Examples:
  coordinator report run.log -o run.html
  coordinator report --live run.log";

pub(super) const COMPLETIONS_EXAMPLES: &str = "Examples:
  eval \"$(coordinator completions bash)\"
  coordinator completions fish > ~/.config/fish/completions/coordinator.fish";

pub(super) const MAN_EXAMPLES: &str = "Examples:
  coordinator man | man -l -
  coordinator man > ~/.local/share/man/man1/coordinator.1";

/// The heads of the three kinds of runs: what each does, and its usage.
const HEADS: [(&str, &str, &str); 3] = [
    (
        "map",
        "Run a task on each input, in warm workers. Inputs are JSON, or else strings.",
        MAP_USAGE,
    ),
    (
        "exec",
        "Run a command on each input, without a shell. Output comes in input order.",
        EXEC_USAGE,
    ),
    (
        "pipe",
        "Ask a warm process about each input: it reads a line and answers with a line.",
        PIPE_USAGE,
    ),
];

fn head(command: &str) -> String {
    let of = HEADS.iter().filter(|(name, ..)| *name == command);
    of.map(|(_, does, usage)| format!("{does}\n\nUsage: {usage}\n"))
        .collect()
}

/// What `-h` says of a run. `None` for the other commands, whose help is short anyway.
pub(super) fn short(command: &str) -> Option<String> {
    let own = match command {
        "map" => "      --worker PATH      the workers' executable, if not `worker`",
        "exec" => "  -c, --script SCRIPT    a script for `sh -c`; the input is \"$1\"",
        "pipe" => "      --numbered         lines and answers begin with a number and a tab",
        _ => return None,
    };
    Some(format!(
        "{}
  -j, --jobs N           so many workers at once
  -t, --timeout TIME     how long a call may run: 30s, 5m
  -r, --retries N        how often a call that failed is tried again
  -a, --input FILE       inputs from a file, one a line (also: stdin, or after `:::`)
      --log FILE         write down each attempt; with --resume, do only the rest
{own}

All options: coordinator {command} --help. The manual: coordinator man | man -l -
",
        head(command)
    ))
}

pub(super) fn map() -> String {
    let own = "      --worker PATH      executable           --manual        start no workers\n";
    format!(
        "{}{OPTIONS}{own}\n\
         Inputs come after `:::`, from --input, or from stdin, one a line.\n\n{MAP_EXAMPLES}\n",
        head("map")
    )
}

pub(super) fn exec() -> String {
    let own = "      --send, --fetch FILE   go along to another machine, and come back\n  \
               -n, --inputs N         for a command    -c, --script SCRIPT sh -c, with \"$@\"\n";
    format!(
        "{}{OPTIONS}{own}\n\
         {{}} is the input, {{.}} without extension, {{/}} its last part, {{//}} its directory,\n\
         {{/.}} both, {{#}} its number; with none of them it is the last word.\n\n{EXEC_EXAMPLES}\n",
        head("exec")
    )
}

pub(super) fn pipe() -> String {
    let own = "      --numbered         lines and answers begin with a number and a tab\n";
    format!(
        "{}{OPTIONS}{own}\n\
         Each worker keeps one such process; one that dies is charged and replaced.\n\
         It has to flush after each answer (python3 -u).\n\n{PIPE_EXAMPLES}\n",
        head("pipe")
    )
}
