//! Lists the tasks that the workers can run.

use std::io::{self, IsTerminal};
use std::path::Path;

use super::terminal::visible_lines;
use super::{Exit, Trouble, builder, print};

pub(super) fn run(worker: Option<&Path>) -> Result<Exit, Trouble> {
    let pool = builder(worker).workers(1).build()?;
    let list = worker::text::list(&pool.tasks()?);
    match io::stdout().is_terminal() {
        true => print(&visible_lines(&list)),
        false => print(&list),
    }
}
