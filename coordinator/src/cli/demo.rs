//! The demonstration: four workers square the numbers from 1 to 8.

use super::{Exit, Trouble, builder, print};

pub(super) fn run() -> Result<Exit, Trouble> {
    let pool = builder(None).workers(4).build()?;
    let squares = pool
        .map(worker::builtin::square, 1..=8)
        .map_err(|error| Trouble::Pool(error.to_string()))?;
    pool.close();
    pool.join()?;
    print(&format!("{squares:?}\n"))
}
