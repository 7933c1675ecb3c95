//! The machines of a run, as its log knows them: so that a run which takes it up can end what was left, should this one be killed.

use std::collections::BTreeSet;

use coordinator::Pool;

use super::args::Options;
use super::log::Log;
use super::log_line::Machines;
use super::resume::Left;
use super::{Trouble, machines};

/// The machines of a run.
#[derive(Debug, Default)]
pub(super) struct Roll {
    /// What the run is called there. `None` if no other machine takes part.
    run: Option<String>,
    joined: BTreeSet<String>,
}

impl Roll {
    /// Ends what the run before has left, and begins this one.
    pub(super) fn begin(
        options: &Options,
        left: Option<Left>,
        mut log: Option<&mut Log>,
    ) -> Result<Self, Trouble> {
        if !options.machines.are_wanted() {
            return Ok(Roll::default());
        }
        if let (Some(left), Some(log)) = (left, &mut log) {
            machines::end_former(&options.machines, &left)?;
            note(log, left.run, None, true)?;
        }
        let run = machines::new_run();
        if let Some(log) = log {
            note(log, run.clone(), None, false)?;
        }
        Ok(Roll {
            run: Some(run),
            joined: BTreeSet::new(),
        })
    }

    /// What the run is called on other machines.
    pub(super) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Notes who has joined.
    pub(super) fn look(&mut self, log: &mut Log, pool: &Pool) -> Result<(), Trouble> {
        let Some(run) = &self.run else {
            return Ok(());
        };
        for name in machines::names(pool) {
            if self.joined.insert(name.clone()) {
                note(log, run.clone(), Some(name), false)?;
            }
        }
        Ok(())
    }

    /// The pool has ended. Notes that nothing is left, if that is so.
    pub(super) fn end(&mut self, log: &mut Log, pool: &Pool) -> Result<(), Trouble> {
        match self.run.take().filter(|_| machines::have_ended(pool)) {
            Some(run) => note(log, run, None, true),
            None => Ok(()),
        }
    }
}

fn note(log: &mut Log, run: String, joined: Option<String>, ended: bool) -> Result<(), Trouble> {
    let machines = Machines { run, joined, ended };
    let noted = log.machines(machines);
    noted.map_err(|error| Trouble::Pool(format!("the log can't be written any further: {error}")))
}
