//! When a slot may start a worker: a few at a time, and not while another could do nothing.

use std::time::Duration;

use super::shared::PoolShared;

/// How often to look whether another worker would be of use.
const LOOK_FOR_USE: Duration = Duration::from_millis(5);

impl PoolShared {
    /// Waits until it is a slot's turn to start a worker; `None` if the pool needs none any more. Twice as many start at a
    /// time as there are processors: more would not be ready sooner, but those that are first would, and what they
    /// could do by then would wait. For the same reason none starts that could do nothing.
    pub(crate) fn turn_to_start(&self) -> Option<Turn<'_>> {
        let mut state = self.state();
        while state.is_next_to_start {
            if !state.jobs.wants_worker() {
                return None;
            }
            state = self.queue_to_start.wait(state, None);
        }
        state.is_next_to_start = true;
        let is_wanted = loop {
            if !state.jobs.wants_worker() {
                break false;
            }
            let living = state.posts.iter().filter(|post| post.pid.is_some()).count();
            let is_free = state.starting < 2 * self.config.processors;
            if is_free && state.jobs.has_use_for_another(living, self.now()) {
                break true;
            }
            // What is of use changes with each call, and nobody tells.
            let limit = is_free.then_some(LOOK_FOR_USE);
            state = self.next_to_start.wait(state, limit);
        };
        state.is_next_to_start = false;
        self.queue_to_start.notify_one();
        state.starting += usize::from(is_wanted);
        is_wanted.then(|| Turn(self))
    }
}

/// A slot's turn to start a worker. Dropping it lets the next slot start one.
pub(crate) struct Turn<'s>(&'s PoolShared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().starting -= 1;
        self.0.next_to_start.notify_one();
    }
}
