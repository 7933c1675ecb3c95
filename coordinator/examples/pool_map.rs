//! A pool of four processes maps a function over inputs.

#![allow(clippy::print_stdout)]

use coordinator::{Pool, task};

/// Squares a number.
#[task]
fn square(x: i64) -> i64 {
    x * x
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    coordinator::init();

    let pool = Pool::new(4)?;
    println!("{:?}", pool.map(square, 1..=8)?);
    pool.close();
    pool.join()?;
    Ok(())
}
