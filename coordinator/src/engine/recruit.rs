//! How a slot gets a worker: it is started, let in, and runs the initializer.

use std::os::fd::AsFd;
use std::slice;

use protocol::frame::Caps;
use protocol::lane::Side;
use protocol::link::{Link, LinkError};
use protocol::message::{Reply, Verdict};

use super::config::Initializer;
use super::shared::PoolShared;
use super::stray::StraySource;
use crate::error::PoolError;
use crate::os::GroupSignal;
use crate::payload::EncodedInputs;
use crate::payload::printed::TAIL;
use crate::scheduler::{Part, SlotId};
use crate::workers::launch::Admitted;
use crate::workers::meeting::MeetingPlace;
use crate::workers::socket::Impatient;
use crate::workers::talk;

/// A worker that is ready for calls.
pub(crate) fn start(
    shared: &PoolShared,
    slot: SlotId,
    place: &mut Option<MeetingPlace>,
) -> Result<Admitted, PoolError> {
    let number = u32::try_from(slot.number()).unwrap_or(u32::MAX);
    // Workers that are started by hand may come at any time.
    let turn = match shared.config.launcher.manual {
        Some(_) => None,
        None => match shared.turn_to_start() {
            None => return Err(cannot_start(shared, "the pool ended before".to_owned())),
            turn => turn,
        },
    };
    let started = shared
        .config
        .launcher
        .launch(number, place, &shared.stop, |process| {
            shared.set_process(slot, process);
        })
        .inspect(|_| drop(turn))
        .and_then(|worker| match &shared.config.initializer {
            Some(initializer) => initialize(shared, worker, initializer),
            None => Ok(worker),
        });
    if let Ok(worker) = &started
        && let Some(files) = &worker.files
    {
        // Whatever the worker prints from here on belongs to its first call.
        shared.strayed(StraySource::Initializer, slot, worker.pid, files.rest());
    }
    started.inspect_err(|_| shared.clear_post(slot))
}

/// A worker could not be started, which may end the pool.
pub(crate) fn failed(shared: &PoolShared, error: PoolError) {
    let now = shared.now();
    shared.act(|state| {
        if !state.jobs.wants_worker() {
            return; // the pool has ended in the meantime: that is why
        }
        match error {
            // The initializer would fail in the next worker as well.
            PoolError::Initializer(_) => state.jobs.give_up(&error.to_string()),
            _ => state.jobs.start_failed(&error.to_string(), now),
        }
        if !state.jobs.wants_worker() {
            state.failure.get_or_insert(error);
        }
    });
    shared.milestone();
}

/// Runs the initializer. It may take as long as it wants to, but the end of the pool does not wait for it.
fn initialize(
    shared: &PoolShared,
    mut worker: Admitted,
    initializer: &Initializer,
) -> Result<Admitted, PoolError> {
    let mut link = Link::new(Impatient {
        socket: worker.socket.clone(),
        stop: shared.stop.as_fd(),
        patience: None,
    });
    let shares = worker.shares;
    if shares {
        link.share(&worker.black_box, Side::Coordinator);
    }
    let part = Part {
        inputs: EncodedInputs::one(initializer.input.clone(), initializer.kept.clone()),
        at: 0,
        count: 1,
    };
    worker.open(1);
    let parts = slice::from_ref(&part);
    let answer = talk::give(&worker.socket, &mut worker.given, parts, shares)
        .and_then(|()| {
            let Initializer { job, .. } = initializer;
            talk::send(&mut link, worker.serial, job, (0, 1), parts, shares)
        })
        .and_then(|()| link.receive::<Reply>(Caps::FULL));
    let answer = answer.map(|(reply, _)| match reply {
        Reply::Calls(mut calls) if calls.serial == worker.serial => {
            let end = calls.ends.pop();
            Ok(end.map_or(Verdict::Value, |(_, end)| end.verdict))
        }
        Reply::Call(call) if call.serial == worker.serial => Ok(call.end.verdict),
        other => Err(other),
    });
    let why = match answer {
        Ok(Ok(verdict)) => match talk::why(verdict) {
            None => return Ok(worker),
            Some(why) => PoolError::Initializer(with_words(why.to_string(), &worker)),
        },
        Ok(Err(other)) => cannot_start(shared, format!("it answered with {other:?}")),
        Err(error) => {
            let why = lost(shared, &worker, &error);
            cannot_start(shared, format!("its initializer {why}"))
        }
    };
    if let Some(process) = &worker.process {
        if !shared.state().jobs.wants_worker() {
            process.signal(GroupSignal::Term);
            process.wait(Some(shared.config.limits.grace));
        }
        process.signal(GroupSignal::Kill);
        process.reap();
    }
    Err(why)
}

fn cannot_start(shared: &PoolShared, cause: String) -> PoolError {
    PoolError::CannotStart {
        program: shared.config.launcher.program.path.clone(),
        cause,
    }
}

/// What there is to say of a worker that did not answer for its initializer.
fn lost(shared: &PoolShared, worker: &Admitted, error: &LinkError) -> String {
    let why = match &worker.process {
        Some(process) if process.wait(Some(talk::LINGER)) => {
            format!("ended its worker, which {}", process.reap())
        }
        _ if !shared.state().jobs.wants_worker() => "did not end before the pool did".to_owned(),
        _ => format!("lost its worker: {error}"),
    };
    with_words(why, worker)
}

/// With what the worker has last written to stderr.
fn with_words(why: String, worker: &Admitted) -> String {
    let words = worker
        .files
        .as_ref()
        .map(|files| files.rest().stderr.tail(TAIL));
    match words.as_deref().map(str::trim) {
        None | Some("") => why,
        Some(words) => format!("{why}: {words}"),
    }
}
