//! A worker with the built-in tasks.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::builtin::register();
    worker::main()
}
