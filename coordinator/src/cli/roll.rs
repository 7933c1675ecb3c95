//! The machines of a run, as its log knows them: so that a run which takes it up can end what was left, should this one be killed.

use std::collections::BTreeSet;
use std::time::Duration;

use coordinator::Pool;

use super::args::Options;
use super::log::Log;
use super::log_line::Machines;
use super::resume::Left;
use super::signals::Interruption;
use super::{Trouble, former, machines};

/// The machines of a run.
#[derive(Debug, Default)]
pub(super) struct Roll {
    /// What the run is called there. `None` if no other machine takes part.
    run: Option<String>,
    joined: BTreeSet<String>,
}

impl Roll {
    /// Ends what the run before has left, whether or not this one uses machines, and begins this one. `None` if that was
    /// interrupted: then the log says as before what is left.
    pub(super) fn begin(
        options: &Options,
        grace: Duration,
        left: Option<Left>,
        mut log: Option<&mut Log>,
        interruption: &Interruption,
    ) -> Result<Option<Self>, Trouble> {
        if let (Some(left), Some(log)) = (left, &mut log) {
            let former = left.run.clone();
            if !former::end(&options.machines, left, grace, interruption)? {
                return Ok(None);
            }
            let ended = Machines {
                run: former,
                ended: true,
                ..Machines::default()
            };
            note(log, ended)?;
        }
        if !options.machines.are_wanted() {
            return Ok(Some(Roll::default()));
        }
        let run = machines::new_run();
        if let Some(log) = log {
            let lease = options.machines.lease(grace).as_millis();
            let begun = Machines {
                run: run.clone(),
                lease_ms: u64::try_from(lease).ok(),
                ..Machines::default()
            };
            note(log, begun)?;
        }
        Ok(Some(Roll {
            run: Some(run),
            joined: BTreeSet::new(),
        }))
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
                let joined = Machines {
                    run: run.clone(),
                    joined: Some(name),
                    ..Machines::default()
                };
                note(log, joined)?;
            }
        }
        Ok(())
    }

    /// The pool has ended. Notes that nothing is left, if that is so.
    pub(super) fn end(&mut self, log: &mut Log, pool: &Pool) -> Result<(), Trouble> {
        match self.run.take().filter(|_| machines::have_ended(pool)) {
            Some(run) => {
                let ended = Machines {
                    run,
                    ended: true,
                    ..Machines::default()
                };
                note(log, ended)
            }
            None => Ok(()),
        }
    }
}

fn note(log: &mut Log, machines: Machines) -> Result<(), Trouble> {
    let noted = log.machines(machines);
    noted.map_err(|error| Trouble::Pool(format!("the log can't be written any further: {error}")))
}
