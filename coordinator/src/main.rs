//! The `coordinator` binary: the command line, on the library's public face alone.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Without a `worker` beside it, this program is its own worker.
    worker::builtin::register();
    worker::init();
    cli::main()
}
