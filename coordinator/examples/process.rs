//! One function in a process of its own: start it, ask whether it is alive, wait for it.

#![allow(clippy::print_stdout)]

use coordinator::{Process, task};

/// Says that it is running, from another process.
#[task]
fn child() {
    println!("Child process is running.");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    coordinator::init();

    let mut process = Process::new(child, ()).start()?;
    assert!(process.is_alive());
    process.join()?;
    assert!(!process.is_alive());
    assert_eq!(process.exit_code(), Some(0));
    println!("Child process has completed.");
    Ok(())
}
