//! What workers print outside of calls.

use crate::output::{Captured, Forwarder, Output, Printed};
use crate::scheduler::SlotId;
use crate::shared::Shared;

/// When a worker printed something that belongs to no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StraySource {
    /// Before its first call: its program as it began, or the initializer.
    Initializer,
    /// After its last call, when it was asked to leave.
    Exit,
}

/// What a worker printed outside of calls; found by [`Pool::take_strays`](crate::Pool::take_strays).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stray {
    /// When it was printed.
    pub source: StraySource,
    /// The slot that the worker fills, counted from 1.
    pub slot: usize,
    /// The worker's process id.
    pub worker: u32,
    /// What it wrote to stdout.
    pub stdout: Captured,
    /// What it wrote to stderr.
    pub stderr: Captured,
}

/// How many are kept that nobody takes.
const KEPT: usize = 1024;

impl Shared {
    /// A worker has printed something outside of calls, if it has.
    pub(crate) fn strayed(&self, source: StraySource, slot: SlotId, worker: u32, printed: Printed) {
        if printed.stdout.is_empty() && printed.stderr.is_empty() {
            return;
        }
        match self.output() {
            Output::Forward => self
                .printer
                .send(move || Forwarder::default().forward(&printed)),
            Output::Capture => {
                let mut state = self.state();
                let oldest = (state.strays.len() >= KEPT).then(|| state.strays.pop_front());
                state.strays.push_back(Stray {
                    source,
                    slot: slot.0 + 1,
                    worker,
                    stdout: printed.stdout,
                    stderr: printed.stderr,
                });
                drop(state);
                drop(oldest);
            }
            Output::Null => {}
        }
    }
}
