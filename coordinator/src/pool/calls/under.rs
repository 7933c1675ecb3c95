//! A map under way, for both of its ends.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use crate::engine::shared::PoolShared;
use crate::engine::state::State;
use crate::engine::watcher::Watcher;
use crate::error::PoolError;
use crate::payload::Job;
use crate::scheduler::{MapId, MapSpec};

/// How long to wait for a result that may stand in a black box before looking there.
const GLANCE: Duration = Duration::from_millis(5);

/// A map under way. It is forgotten when both ends are gone and its calls have ended.
#[derive(Debug)]
pub(super) struct Under {
    pub(super) shared: Arc<PoolShared>,
    pub(super) id: MapId,
    pub(super) watcher: Arc<Watcher>,
}

impl Under {
    /// Opens a map, or says why the pool takes none.
    pub(super) fn open(
        shared: &Arc<PoolShared>,
        spec: MapSpec<Arc<Job>>,
    ) -> Result<Arc<Self>, String> {
        if shared.is_copied() {
            return Err(PoolError::Copied.to_string());
        }
        shared.act(|state| {
            let id = state.jobs.open(spec)?;
            Ok(Arc::new(Under {
                shared: Arc::clone(shared),
                id,
                watcher: state.watch(id),
            }))
        })
    }

    /// Cancels what has not ended.
    pub(super) fn cancel(&self, note: &str) {
        if self.shared.is_copied() {
            return;
        }
        let now = self.shared.now();
        self.shared.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            jobs.cancel(self.id, now, note, &sight);
        });
    }

    /// Waits for news of the map, for at most `left`. The caller looks anew then at what has ended.
    pub(super) fn wait(&self, state: MutexGuard<'_, State>, left: Option<Duration>) {
        if !state.jobs.is_batching(self.id) {
            return drop(self.watcher.wait(state, left));
        }
        // A worker may be held up by a long call behind finished ones.
        let glance = left.map_or(GLANCE, |left| left.min(GLANCE));
        drop(self.watcher.wait(state, Some(glance)));
        if !self.has_result() {
            self.glance();
        }
    }

    pub(super) fn has_result(&self) -> bool {
        self.shared.is_copied() || self.shared.state().jobs.has_result(self.id)
    }

    /// As [`has_result`](Self::has_result), for a caller who does not wait: it looks behind a call that takes long, too.
    pub(super) fn has_result_now(&self) -> bool {
        self.has_result() || {
            if self.shared.state().jobs.is_batching(self.id) {
                self.glance();
            }
            self.has_result()
        }
    }

    /// Looks into the black boxes, and reports the calls that workers have finished but not answered yet.
    fn glance(&self) {
        let now = self.shared.now();
        self.shared.act(|state| {
            for slot in state.jobs.slots_of(self.id) {
                state.collect(slot, now);
            }
        });
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        if self.shared.is_copied() {
            return;
        }
        self.shared.act(|state| {
            state.jobs.forget(self.id);
            state.unwatch(self.id);
        });
    }
}
