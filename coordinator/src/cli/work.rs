//! What a run does with an input. This file holds all differences between the three kinds of runs.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coordinator::{Builder, ByHand, Files, Pool};
use worker::builtin::pipe::{NUMBERED, pipe_open};
use worker::builtin::{Bytes, Command, Patient};

use super::args::{Exec, MapArgs, Pipe};
use super::template::{Template, quoted, size_of_word};
use super::{Trouble, builder, complain};

/// The work of a run.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// Run a task in a worker.
    Map { task: String },
    /// Run a command for some inputs.
    Exec {
        template: Template,
        many: usize,
        key: String,
        /// The files that go along with a call, and those that come back; `None` if there are none.
        files: Option<(Template, Template)>,
    },
    /// Send a line to a warm process, perhaps with its number.
    Pipe {
        words: Vec<OsString>,
        numbered: bool,
    },
}

impl Work {
    pub(super) fn map(map: &MapArgs) -> Self {
        Work::Map {
            task: map.task.clone(),
        }
    }

    pub(super) fn exec(exec: &Exec) -> Result<Self, Trouble> {
        let (template, key) = match &exec.script {
            Some(script) if script.as_bytes().windows(2).any(|two| two == b"{}") => {
                return Err(Trouble::Usage(
                    "a script can't have {} in it, because the shell would take the input for a \
                     part of the script, quotes and all: write \"$1\", or \"$@\" with -n"
                        .to_owned(),
                ));
            }
            Some(script) => (
                Template::script(script),
                format!("-c {}", quoted([script.as_bytes()])),
            ),
            None if exec.command.is_empty() => return Err(no_command("exec", "gzip {}")),
            None => (
                Template::new(&exec.command),
                format!(
                    "-- {}",
                    quoted(exec.command.iter().map(|word| word.as_bytes()))
                ),
            ),
        };
        let mut words = exec.command.iter();
        if let Some(place) = words.find_map(|word| Template::unknown_place(word)) {
            return Err(Trouble::Usage(format!(
                "`{place}` stands for nothing: a call has one input, `{{}}`, or with -n several; if the command is to \
                 have it as it is, write a script: -c 'command \"$1\"'"
            )));
        }
        // On other machines there may be other commands.
        let is_here = !exec.options.machines.are_wanted();
        if let Some(program) = template.program().filter(|_| is_here) {
            check_program(program)?;
        }
        let key = match exec.many {
            1 => format!("exec {key}"),
            many => format!("exec -n{many} {key}"),
        };
        Ok(Work::Exec {
            template,
            many: exec.many as usize,
            key,
            files: files(exec)?,
        })
    }

    pub(super) fn pipe(pipe: &Pipe) -> Result<Self, Trouble> {
        let program = pipe.command.first();
        let program = program.ok_or_else(|| no_command("pipe", "python3 -u script.py"))?;
        if !pipe.options.machines.are_wanted() {
            check_program(program)?;
        }
        Ok(Work::Pipe {
            words: pipe.command.clone(),
            numbered: pipe.numbered,
        })
    }

    /// The name of this work in a log, which distinguishes it from other work.
    pub(super) fn key(&self) -> String {
        match self {
            Work::Map { task } => format!("map {task}"),
            Work::Exec { key, .. } => key.clone(),
            Work::Pipe { words, numbered } => {
                let option = if *numbered { "--numbered " } else { "" };
                let words = quoted(words.iter().map(|word| word.as_bytes()));
                format!("pipe {option}-- {words}")
            }
        }
    }

    /// How many inputs a call takes.
    pub(super) fn many(&self) -> usize {
        match self {
            Work::Exec { many, .. } => *many,
            _ => 1,
        }
    }

    /// How much room the inputs of one call have, in bytes.
    pub(super) fn room(&self) -> usize {
        match self {
            Work::Exec { template, .. } => room_for_words().saturating_sub(template.size()),
            _ => usize::MAX,
        }
    }

    /// How much of that room an input takes, in bytes.
    pub(super) fn size_of(&self, input: &[u8]) -> usize {
        match self {
            Work::Exec { template, .. } => template.size_of(input),
            _ => input.len(),
        }
    }

    /// The files that go along with a call, and come back.
    pub(super) fn files(&self, inputs: &[Vec<u8>], seq: u64) -> Option<Files> {
        let Work::Exec {
            files: Some((send, fetch)),
            ..
        } = self
        else {
            return None;
        };
        let paths = |template: &Template| {
            let words = template.fill(inputs, seq).into_iter();
            words.map(OsString::from_vec).collect::<Vec<_>>()
        };
        let files = paths(send).into_iter().fold(Files::new(), Files::send);
        Some(paths(fetch).into_iter().fold(files, Files::fetch))
    }

    /// Whether files go along with calls.
    #[cfg(feature = "agents")]
    pub(super) fn has_files(&self) -> bool {
        matches!(self, Work::Exec { files: Some(_), .. })
    }

    /// The name of the task that workers run.
    pub(super) fn task(&self) -> &str {
        match self {
            Work::Map { task } => task,
            Work::Exec { .. } => "exec",
            Work::Pipe { .. } => "pipe",
        }
    }

    /// The input of the task.
    pub(super) fn payload(&self, inputs: &[Vec<u8>], seq: u64) -> Vec<u8> {
        let input = inputs.first().map(Vec::as_slice).unwrap_or_default();
        let encoded = match self {
            Work::Map { .. } => return input.to_vec(),
            Work::Exec {
                template, files, ..
            } => {
                let words = |template: &Template| {
                    let words = template.fill(inputs, seq).into_iter();
                    words.map(Bytes).collect()
                };
                let fetch = files.as_ref().map(|(_, fetch)| words(fetch));
                serde_json::to_vec(&Command {
                    argv: words(template),
                    seq,
                    makes: fetch.unwrap_or_default(),
                })
            }
            Work::Pipe { numbered: true, .. } => {
                serde_json::to_vec(&Bytes([format!("{seq}\t").as_bytes(), input].concat()))
            }
            // The same form as that of `Bytes`, without owning them.
            Work::Pipe { .. } => match std::str::from_utf8(input) {
                Ok(text) => serde_json::to_vec(text),
                Err(_) => serde_json::to_vec(input),
            },
        };
        // Bytes and numbers can always be encoded as JSON.
        encoded.unwrap_or_default()
    }

    /// The call as a command line for a shell.
    pub(super) fn shown(&self, inputs: &[Vec<u8>], seq: u64) -> String {
        match self {
            Work::Exec { template, .. } => {
                let words = template.fill(inputs, seq);
                quoted(words.iter().map(Vec::as_slice))
            }
            _ => {
                let inputs = quoted(inputs.iter().map(Vec::as_slice));
                format!("{} ::: {inputs}", self.key())
            }
        }
    }

    /// Whether an answer may turn out to belong to another input.
    pub(super) fn may_shift(&self) -> bool {
        matches!(
            self,
            Work::Pipe {
                numbered: false,
                ..
            }
        )
    }

    /// A result as a line for stdout. `None` if it prints no line.
    pub(super) fn result<'v>(&self, value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
        match self {
            Work::Exec { .. } => None,
            Work::Map { .. } => worker::text::show(value).map(|shown| match shown {
                Cow::Borrowed(shown) => Cow::Borrowed(shown.as_bytes()),
                Cow::Owned(shown) => Cow::Owned(shown.into_bytes()),
            }),
            Work::Pipe { .. } => Some(match serde_json::from_slice::<&str>(value) {
                Ok(line) => Cow::Borrowed(line.as_bytes()),
                Err(_) => serde_json::from_slice::<Bytes>(value)
                    .map_or(Cow::Borrowed(value), |line| Cow::Owned(line.0)),
            }),
        }
    }

    /// Sets up a pool whose workers run this program itself, with the built-in tasks.
    pub(super) fn builder(&self, worker: Option<&Path>) -> Result<Builder, Trouble> {
        if let Work::Map { .. } = self {
            return Ok(builder(worker));
        }
        let program = std::env::current_exe().map_err(|error| {
            Trouble::Pool(format!(
                "this program can't find its own executable: {error}"
            ))
        })?;
        let builder = Pool::builder().worker(program);
        Ok(match self {
            Work::Pipe { words, numbered } => {
                let mark = numbered.then(|| NUMBERED.to_vec());
                let words = words.iter().map(|word| word.as_bytes().to_vec());
                let argv = mark.into_iter().chain(words).map(Bytes).collect();
                builder.initializer(pipe_open, argv)
            }
            _ => builder,
        })
    }
}

/// The files that go along with calls, as the options name them.
fn files(exec: &Exec) -> Result<Option<(Template, Template)>, Trouble> {
    let mut words = exec.send.iter().chain(&exec.fetch);
    if let Some(place) = words.find_map(|word| Template::unknown_place(word)) {
        return Err(Trouble::Usage(format!(
            "`{place}` in the name of a file stands for nothing: a call has one input, `{{}}`, or with -n several"
        )));
    }
    let is_none = exec.send.is_empty() && exec.fetch.is_empty();
    let templates = (Template::exact(&exec.send), Template::exact(&exec.fetch));
    Ok((!is_none).then_some(templates))
}

/// Sets up a pool whose workers a person starts by hand.
pub(super) fn by_hand(builder: Builder) -> Builder {
    complain(&"start each of these workers by hand, in another terminal or under a debugger:");
    builder.by_hand(|worker| {
        // One write for all, so that the lines of two slots don't mix.
        let _ = Patient(io::stderr()).write_all(format!("{}\n", line(worker)).as_bytes());
    })
}

/// The command line that starts a worker by hand, for a shell.
fn line(worker: &ByHand) -> String {
    let path = |path: &Path| quoted([path.as_os_str().as_bytes()]);
    format!(
        "COORDINATOR_TOKEN={} {} --connect {}",
        worker.token,
        path(&worker.program),
        path(&worker.connect)
    )
}

fn no_command(name: &str, example: &str) -> Trouble {
    Trouble::Usage(format!(
        "there is no command: put it after `--`, as in: coordinator {name} -- {example}"
    ))
}

/// Checks that a program exists, before anything runs.
fn check_program(program: &OsStr) -> Result<(), Trouble> {
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = if program.as_bytes().contains(&b'/') {
        executable(Path::new(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).any(|directory| executable(&directory.join(program)))
    };
    if found {
        return Ok(());
    }
    let name = program.to_string_lossy();
    Err(Trouble::Usage(if program.as_bytes().contains(&b'/') {
        match Path::new(program).metadata() {
            Ok(found) if found.is_file() => {
                format!("`{name}` is a file that can't be run: chmod +x makes it a program")
            }
            Ok(_) => format!("`{name}` is no file, and so no program that can be run"),
            Err(error) => format!("there is no program `{name}` that can be run: {error}"),
        }
    } else {
        format!("there is no command `{name}`: none of the directories in PATH has it")
    }))
}

/// The room for a command's words, in bytes: see execve(2). The environment takes a part of it, and a little is
/// left for variables that are added.
fn room_for_words() -> usize {
    let stack = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    let stack = stack.and_then(|stack| usize::try_from(stack).ok());
    let all = (stack.unwrap_or(usize::MAX) / 4).clamp(128 << 10, 6 << 20);
    let environment = std::env::vars_os();
    // One byte for the sign between name and value.
    let taken = environment.map(|(name, value)| size_of_word(name.as_bytes()) + value.len() + 1);
    all.saturating_sub(taken.sum::<usize>() + (8 << 10))
}
