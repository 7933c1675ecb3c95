//! Four processes that each print a different number. They run at the same time, and print as if they
//! had run one after another.

#![allow(clippy::print_stdout)]

use coordinator::{Process, task};

/// Prints a number.
#[task]
fn print_number(number: u32) {
    println!("Process {number}: My number is {number}");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    coordinator::init();

    let mut processes = Vec::new();
    for number in 1..=4 {
        processes.push(Process::new(print_number, number).start()?);
    }
    for process in &mut processes {
        process.join()?;
    }
    Ok(())
}
