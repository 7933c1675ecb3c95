//! The supervisor: sees workers die, and lets deadlines take effect. It sleeps until one of both.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::shared::PoolShared;
use super::state::{Source, State};
use super::warm;
use crate::os::{self, WorkerProcess};
use crate::scheduler::{SlotId, Time};

/// How long the supervisor sleeps at most while a call has a deadline. If it sleeps longer than it
/// meant to, by more than this, the program or the whole machine was stopped meanwhile, and that time does not count.
const TICK: Duration = Duration::from_millis(250);
/// How long it sleeps at most while a call has a memory limit.
const LOOK: Duration = Duration::from_millis(20);

/// Runs until all slots have ended.
pub(crate) fn run(shared: &PoolShared) {
    let _watched = Watched(shared);
    // When it last looked at the deadlines, by the one clock that says whether they have passed: a stop
    // at any point of this loop is seen as a long time between two looks.
    let mut looked = shared.now();
    loop {
        let (watched, limit) = {
            let state = shared.state();
            if state.slots_left == 0 {
                return;
            }
            (watched(&state), nap(&state, looked))
        };
        let mut fds = vec![shared.wake.as_fd()];
        fds.extend(watched.iter().map(|(_, process)| process.as_fd()));
        let readable = os::wait_readable(&fds, limit);
        let now = shared.now();
        let slept = now.saturating_sub(looked);
        looked = now;
        let died = watched
            .iter()
            .zip(&readable[1..])
            .filter(|(_, died)| **died);
        for ((whose, process), _) in died {
            match whose {
                Some(slot) => report_death(shared, *slot, process),
                None => warm::template_died(shared, process),
            }
        }
        if readable[0] {
            shared.wake.silence();
        }
        let suspects = suspects(shared);
        let overslept = shared.act(|state| {
            let rearmed = state.rearmed.take();
            let overslept = match limit {
                Some(limit) => slept.saturating_sub(limit),
                // There was no deadline when the supervisor fell asleep, but one was set since.
                None => rearmed.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            };
            if overslept > TICK {
                state.jobs.postpone(overslept);
            }
            look_at_memory(state, &suspects, now);
            // A hair later than the deadline, so that it has passed when we look.
            let (jobs, sight) = state.jobs_and_sight();
            jobs.overdue(now + Duration::from_micros(50), &sight);
            for slot in state.jobs.glances_due(now) {
                state.collect(slot, now);
            }
            overslept
        });
        if overslept > TICK {
            // Not under the lock: the logger is the host's, and may use the pool.
            log::debug!("{overslept:.1?} that this program was stopped for do not count");
        }
    }
}

/// Ends the pool if the supervisor does not end as it should: without it no deadline passes.
struct Watched<'s>(&'s PoolShared);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.break_down(None);
        }
    }
}

/// How long to sleep at most.
fn nap(state: &State, now: Time) -> Option<Duration> {
    let deadline = state.jobs.next_deadline();
    let left = deadline.map(|deadline| deadline.saturating_sub(now).min(TICK));
    let look = state.jobs.memory_limits().next().map(|_| LOOK);
    let glance = state.jobs.next_glance().map(|at| at.saturating_sub(now));
    left.into_iter().chain(look).chain(glance).min()
}

/// Which workers have more memory than their calls allow, as far as one can say while they go on: to add up what a
/// tree of processes has takes too long to have all others wait for it.
fn suspects(shared: &PoolShared) -> Vec<SlotId> {
    let state = shared.state();
    let limits = state.jobs.memory_limits();
    let limited: Vec<_> = limits
        .filter_map(|(slot, limit)| Some((slot, limit, state.posts[slot.0].process.clone()?)))
        .collect();
    drop(state);
    let over = limited
        .iter()
        .filter(|(_, limit, process)| process.memory() > *limit);
    over.map(|(slot, ..)| *slot).collect()
}

/// Lets memory limits take effect. Under the lock it looks at the suspects once more, so that the call that is charged
/// is the one that is running.
fn look_at_memory(state: &mut State, suspects: &[SlotId], now: Time) {
    let limits = state.jobs.memory_limits();
    let limits: Vec<_> = limits.filter(|(slot, _)| suspects.contains(slot)).collect();
    for (slot, limit) in limits {
        let process = state.posts[slot.0].process.as_ref();
        if process.is_some_and(|process| process.memory() > limit) {
            let (jobs, sight) = state.jobs_and_sight();
            jobs.out_of_memory(slot, limit, now, &sight);
        }
    }
}

/// The processes whose deaths it sees: those of slots, and the one that others are copied from.
fn watched(state: &State) -> Vec<(Option<usize>, Arc<WorkerProcess>)> {
    let posts = state
        .posts
        .iter()
        .enumerate()
        .filter(|(_, post)| !post.dead);
    let workers =
        posts.filter_map(|(slot, post)| Some((Some(slot), Arc::clone(post.process.as_ref()?))));
    let template = match &state.source {
        Source::Template(template) => Some((None, Arc::clone(template.process()))),
        _ => None,
    };
    workers.chain(template).collect()
}

/// Of a worker that has died: its children die, too, and its slot hears of it, whatever it waits for.
fn report_death(shared: &PoolShared, slot: usize, process: &Arc<WorkerProcess>) {
    process.reap();
    let mut state = shared.state();
    let post = &mut state.posts[slot];
    // By now the slot may have a new worker.
    if post
        .process
        .as_ref()
        .is_some_and(|current| Arc::ptr_eq(current, process))
    {
        post.dead = true;
        // A grandchild that keeps the socket open must not keep the slot waiting, for what it says or for room.
        if let Some(socket) = &post.socket {
            socket.stop_talking();
        }
    }
    drop(state);
    shared.wake_slot(SlotId(slot));
    shared.milestone();
}
