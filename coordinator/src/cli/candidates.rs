//! What a shell may complete: the tasks of the workers, and the commands and files of this machine.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};

use super::builder;

/// How long somebody who has pressed the tab key waits for the tasks.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tasks of the workers that the command line asks for.
pub(super) fn tasks(begun: &OsStr) -> Vec<CompletionCandidate> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let pool = builder(worker_option(env::args_os()).as_deref().map(Path::new)).workers(1);
        let _ = tell.send(pool.build().and_then(|pool| pool.tasks()));
    });
    // An error, or a worker that does not answer, has no place on a line that is being typed. Whatever was started ends
    // with this process.
    let tasks = told.recv_timeout(PATIENCE).ok().and_then(Result::ok);
    let tasks = tasks.unwrap_or_default();
    let fits = |name: &str| name.as_bytes().starts_with(begun.as_bytes());
    let fitting = tasks.iter().filter(|task| fits(&task.name));
    let candidate =
        |name: &str, help: &str| CompletionCandidate::new(name).help(Some(help.to_owned().into()));
    fitting
        .map(|task| candidate(&task.name, &task.signature))
        .collect()
}

/// The value of `--worker` among these words.
fn worker_option(mut words: impl Iterator<Item = OsString>) -> Option<OsString> {
    while let Some(word) = words.next() {
        if word == "--worker" {
            return words.next();
        }
        if let Some(value) = word.as_bytes().strip_prefix(b"--worker=") {
            return Some(OsStr::from_bytes(value).to_owned());
        }
    }
    None
}

/// Completes the words of a command: a program first, and files behind it.
pub(super) struct CommandWords;

impl ValueCompleter for CommandWords {
    fn complete(&self, begun: &OsStr) -> Vec<CompletionCandidate> {
        if begun.as_bytes().contains(&b'/') {
            return PathCompleter::any().complete(begun);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let directories = env::split_paths(&path).filter_map(|directory| directory.read_dir().ok());
        let names = directories
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name()));
        let fitting = names.filter(|name| name.as_bytes().starts_with(begun.as_bytes()));
        let fitting: BTreeSet<OsString> = fitting.collect();
        fitting.into_iter().map(CompletionCandidate::new).collect()
    }

    fn complete_at(&self, index: usize, begun: &OsStr) -> Vec<CompletionCandidate> {
        match index {
            0 => self.complete(begun),
            _ => PathCompleter::any().complete(begun),
        }
    }
}
