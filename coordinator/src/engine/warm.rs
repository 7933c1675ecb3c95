//! How a slot gets its worker in a pool with warm copies: from a template, which is the first worker that has run the
//! initializer. Its copies need not run that again.

use std::sync::Arc;

use super::death::TO_LEAVE;
use super::recruit;
use super::shared::PoolShared;
use super::state::Source;
use super::stray::StraySource;
use crate::error::PoolError;
use crate::os::{GroupSignal, WorkerProcess};
use crate::scheduler::SlotId;
use crate::workers::launch::Admitted;
use crate::workers::meeting::MeetingPlace;
use crate::workers::template::{AskError, Template};

/// What a slot that needs a worker is to do.
enum Way {
    /// Have this template make a copy.
    Copy(Arc<Template>),
    /// Start a worker, and have it become the template.
    Make,
    /// Start a worker.
    Start,
}

/// A worker that is ready for calls.
pub(crate) fn start(
    shared: &PoolShared,
    slot: SlotId,
    place: &mut Option<MeetingPlace>,
) -> Result<Admitted, PoolError> {
    if !shared.config.warm_copies {
        return recruit::start(shared, slot, place);
    }
    // A template that is found dead is replaced, and that one's copy is the worker. If that does not work either, the
    // worker is started anew.
    for _ in 0..3 {
        match step(shared) {
            Way::Start => break,
            Way::Copy(template) => match copy(shared, slot, &template) {
                Err(AskError::Refused(why)) => refused(shared, &template, &why),
                Err(AskError::Lost(why)) => lost(shared, &template, &why),
                copied => return copied.map_err(|error| error.into_error(launcher(shared))),
            },
            Way::Make => match make(shared, slot, place)? {
                Made::Worker(worker) => return Ok(*worker),
                Made::Template => {}
            },
        }
    }
    recruit::start(shared, slot, place)
}

fn launcher(shared: &PoolShared) -> &crate::workers::launch::Launcher {
    &shared.config.launcher
}

/// Finds out what to do. If a template is coming, waits for it: a worker that is started anew would not be ready sooner.
fn step(shared: &PoolShared) -> Way {
    loop {
        shared.wait_until(None, |state| {
            !matches!(state.source, Source::Coming) || !state.jobs.wants_worker()
        });
        let mut state = shared.state();
        let foreign = match &state.source {
            Source::Coming if state.jobs.wants_worker() => continue,
            // That ends at once, saying why.
            Source::Coming | Source::Never => return Way::Start,
            Source::None => {
                state.source = Source::Coming;
                return Way::Make;
            }
            Source::Template(template) if template.is_of_this_user() => {
                return Way::Copy(Arc::clone(template));
            }
            Source::Template(template) => Arc::clone(template),
        };
        state.source = Source::None;
        drop(state);
        // Workers are to act as this program does now. The last handle kills the process.
        log::debug!("this program acts as another user now, and needs another template");
        drop(foreign);
    }
}

enum Made {
    Template,
    /// It can't be a template.
    Worker(Box<Admitted>),
}

/// Whatever happens, those who wait for the template hear of it.
struct Coming<'s>(&'s PoolShared);

impl Coming<'_> {
    fn becomes(&self, source: Source) {
        self.0.state().source = source;
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(state.source, Source::Coming) {
            state.source = Source::None;
        }
        drop(state);
        self.0.milestone();
    }
}

/// Starts a worker, which runs the initializer, and has it become the template.
fn make(
    shared: &PoolShared,
    slot: SlotId,
    place: &mut Option<MeetingPlace>,
) -> Result<Made, PoolError> {
    let coming = Coming(shared);
    let mut worker = recruit::start(shared, slot, place)?;
    match Template::new(&mut worker, slot.0, &shared.stop) {
        Ok(template) => {
            let template = Arc::new(template);
            // It is no longer the slot's.
            shared.clear_post(slot);
            coming.becomes(Source::Template(Arc::clone(&template)));
            // Whose death the supervisor has to see, too.
            shared.wake_supervisor();
            let pid = template.process().pid();
            log::debug!("process {pid} has run the initializer, and workers are copies of it");
            Ok(Made::Template)
        }
        Err(AskError::Refused(why)) => {
            coming.becomes(Source::Never);
            say_refused(worker.pid, &why);
            Ok(Made::Worker(Box::new(worker)))
        }
        Err(error) => {
            if let Some(process) = &worker.process {
                process.signal(GroupSignal::Kill);
                process.reap();
            }
            shared.clear_post(slot);
            Err(error.into_error(launcher(shared)))
        }
    }
}

/// Has a template make a copy, as the worker of a slot.
fn copy(shared: &PoolShared, slot: SlotId, template: &Template) -> Result<Admitted, AskError> {
    let Some(turn) = shared.turn_to_start() else {
        return Err(AskError::Failed("the pool ended before".to_owned()));
    };
    let number = u32::try_from(slot.number()).unwrap_or(u32::MAX);
    let copied = template.copy(launcher(shared), number, &shared.stop, |process| {
        shared.set_process(slot, process);
    });
    drop(turn);
    copied.inspect_err(|_| shared.clear_post(slot))
}

/// A template can't be copied any more, though it lives: from now on workers start as in other pools.
fn refused(shared: &PoolShared, template: &Template, why: &str) {
    let mut state = shared.state();
    let taken = state.source.take(template.process());
    if taken.is_some() {
        state.source = Source::Never;
    }
    drop(state);
    if let Some(template) = taken {
        say_refused(template.process().pid(), why);
        dismiss(shared, &template);
    }
}

fn say_refused(pid: u32, why: &str) {
    log::warn!(
        "there are no warm copies of process {pid}: {why}. Each worker runs the initializer itself; one that leaves no \
         thread running can be copied"
    );
}

/// A template is dead, or of no use.
fn lost(shared: &PoolShared, template: &Template, why: &str) {
    let taken = shared.state().source.take(template.process());
    template.process().signal(GroupSignal::Kill);
    template.process().reap();
    if taken.is_some() {
        say_lost(template.process().pid(), why);
    }
}

fn say_lost(pid: u32, why: &str) {
    log::warn!(
        "process {pid}, of which workers are copies, is lost: {why}. The next worker runs the initializer and takes its place"
    );
}

/// The supervisor has seen a template die.
pub(crate) fn template_died(shared: &PoolShared, process: &Arc<WorkerProcess>) {
    let death = process.reap();
    let taken = shared.state().source.take(process);
    if taken.is_some() {
        say_lost(process.pid(), &format!("it {death}"));
    }
}

/// Ends the template with the pool.
pub(crate) fn end(shared: &PoolShared) {
    let source = std::mem::replace(&mut shared.state().source, Source::Never);
    if let Source::Template(template) = source {
        dismiss(shared, &template);
    }
}

fn dismiss(shared: &PoolShared, template: &Template) {
    let printed = template.dismiss(shared.config.limits.grace.max(TO_LEAVE));
    let pid = template.process().pid();
    shared.strayed(StraySource::Exit, SlotId(template.slot), pid, printed);
}
