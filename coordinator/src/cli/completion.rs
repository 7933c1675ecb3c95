//! Completions in a shell. The script that `coordinator completions` prints asks this program at each press of the tab key.

use std::env;

use clap_complete::Shell;
use clap_complete::env::{CompleteEnv, Shells};

use super::{Exit, Trouble, args, cannot_write, print};

/// The environment variable by which a shell asks for completions: it names the shell.
const VARIABLE: &str = "COORDINATOR_COMPLETE";

/// Answers a shell that asks for completions. Returns `false` if this is no such question.
pub(super) fn answer() -> bool {
    let here = env::current_dir().ok();
    CompleteEnv::with_factory(args::definition)
        .var(VARIABLE)
        .try_complete(env::args_os(), here.as_deref())
        .unwrap_or_else(|error| error.exit())
}

/// Prints the script that makes a shell ask this program.
pub(super) fn print_script(shell: Shell) -> Result<Exit, Trouble> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&name) else {
        return Err(Trouble::Usage(format!(
            "there are no completions for {name}"
        )));
    };
    let mut script = Vec::new();
    shell
        .write_registration(
            VARIABLE,
            "coordinator",
            "coordinator",
            "coordinator",
            &mut script,
        )
        .map_err(|error| cannot_write(&error))?;
    print(&String::from_utf8_lossy(&script))
}
