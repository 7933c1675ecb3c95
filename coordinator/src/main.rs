//! The `coordinator` binary: the command line, on the library's public face alone.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Without a `worker` beside it, this program is its own worker.
    worker::builtin::register();
    // The commands of `exec` and `pipe` always run in workers of this program.
    worker::builtin::register_commands();
    worker::init();
    cli::main()
}
