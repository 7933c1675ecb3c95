//! A slot: one thread that sees to it that there is a worker. It starts one, lets it run calls, and
//! starts another when that one dies.
//!
//! While there is nothing to do, the worker stands parked in the pool's shared state; a caller who has
//! a single call for it borrows it and talks to it himself, which saves waking this thread.

use std::sync::Arc;
use std::time::Duration;

use super::recruit;
use super::seat::Seat;
use super::shared::PoolShared;
use super::state::{Parked, Post};
use super::warm;
use crate::payload::{EncodedInputs, Job};
use crate::scheduler::{Batch, Idle, Next, Running, SlotId};

/// How long to wait before a start is tried again that has failed; doubled each time.
const START_AGAIN: Duration = Duration::from_millis(50);
/// How often it is doubled.
const DOUBLED: u32 = 4;

/// What is to follow a worker.
enum After {
    /// Another one.
    Another,
    /// Nothing: the pool ends.
    Nothing,
}

/// The thread of a slot.
pub(crate) fn run(shared: &Arc<PoolShared>, slot: SlotId) {
    // The slot leaves however this thread ends, or whoever joins the pool would wait for ever.
    let _leaving = Leaving { shared, slot };
    let mut place = None;
    let mut failures = 0;
    while shared.state().jobs.wants_worker() {
        match warm::start(shared, slot, &mut place) {
            Ok(worker) => {
                failures = 0;
                match work(shared, Box::new(Seat::new(slot, worker))) {
                    // A `Process` has a single call: no other process takes its place.
                    After::Another if shared.config.single.is_some() => return,
                    After::Another => {}
                    After::Nothing => return,
                }
            }
            Err(error) => {
                log::debug!("slot {}: {error}", slot.number());
                recruit::failed(shared, error);
                let pause = START_AGAIN * (1 << failures.min(DOUBLED));
                failures += 1;
                shared.wait_until(Some(pause), |state| !state.jobs.wants_worker());
            }
        }
    }
}

struct Leaving<'s> {
    shared: &'s PoolShared,
    slot: SlotId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.break_down(Some(self.slot));
        }
        let mut state = self.shared.state();
        state.posts[self.slot.0] = Post::default();
        // Whoever joins the pool finds none of its processes left, so the last slot sees to that.
        if state.slots_left == 1 {
            drop(state);
            warm::end(self.shared);
            state = self.shared.state();
        }
        state.slots_left -= 1;
        drop(state);
        self.shared.milestone();
        self.shared.wake_supervisor();
    }
}

/// Has a worker run calls until it dies or is not needed any more.
fn work(shared: &PoolShared, mut seat: Box<Seat>) -> After {
    let mut idle = seat.enter(shared);
    loop {
        match next(shared, seat, idle) {
            Step::Run(mut ours, running, batch) => match ours.converse(shared, running, batch) {
                Ok(again) => (seat, idle) = (ours, again),
                Err(()) => return After::Another,
            },
            Step::Leave(mut seat) => {
                seat.dismiss(shared);
                return After::Nothing;
            }
            Step::Replace(mut seat, idle) => {
                shared.act(|state| state.jobs.idle_died(idle));
                seat.dismiss(shared);
                return After::Another;
            }
            Step::Dead(mut seat, idle) => {
                seat.lose_idle(shared, idle);
                return After::Another;
            }
            Step::Gone => return After::Another,
        }
    }
}

enum Step {
    Run(Box<Seat>, Running, Batch<Arc<Job>, EncodedInputs>),
    /// There is nothing to do any more.
    Leave(Box<Seat>),
    /// The worker has run as much as it may.
    Replace(Box<Seat>, Idle),
    /// The worker died while it had nothing to do.
    Dead(Box<Seat>, Idle),
    /// The worker died while a caller had it.
    Gone,
}

/// Waits for something to do.
fn next(shared: &PoolShared, mut seat: Box<Seat>, mut idle: Idle) -> Step {
    let slot = seat.slot();
    let mut state = shared.state();
    loop {
        if state.posts[slot.0].dead {
            return Step::Dead(seat, idle);
        }
        if seat.is_worn_out() {
            return Step::Replace(seat, idle);
        }
        let now = shared.now();
        let (jobs, sight) = state.jobs_and_sight();
        match jobs.next(idle, seat.most(&shared.config), now, &sight) {
            Next::Run(running, batch) => {
                // Before anyone else can see the batch and take calls back.
                seat.open(&batch);
                shared.release(state);
                return Step::Run(seat, running, batch);
            }
            Next::Leave => {
                shared.release(state);
                return Step::Leave(seat);
            }
            Next::Wait(again, until) => {
                let limit = until.map(|until| until.saturating_sub(now));
                let (woken, parked) = shared.sleep(state, slot, Parked::Here(seat, again), limit);
                state = woken;
                match parked {
                    Parked::Here(ours, ready) => (seat, idle) = (ours, ready),
                    Parked::Gone | Parked::InUse => return Step::Gone,
                }
            }
        }
    }
}
