//! Lists the tasks that the workers can run.

use std::path::Path;

use super::{Exit, Trouble, builder, print};

pub(super) fn run(worker: Option<&Path>) -> Result<Exit, Trouble> {
    let pool = builder(worker).workers(1).build()?;
    print(&worker::text::list(&pool.tasks()?))
}
