//! A slot's living worker, as data: whoever holds it talks to it, as `conversation` says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Config;
use crate::error::{Death, Why};
use crate::os::{self, GroupSignal};
use crate::payload::printed::{Printed, TAIL};
use crate::payload::{By, EncodedInputs, Job, Payload, Trace};
use crate::scheduler::{Batch, MOST_CALLS, SlotId};
use crate::workers::launch::Admitted;

/// What Rust's allocator says, among other things, before it aborts.
const NO_MEMORY: &str = "memory allocation of ";

/// A slot's living worker.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) slot: SlotId,
    pub(super) worker: Admitted,
    pub(super) answered: u64,
    /// What its memory is limited to.
    pub(super) memory: Option<u64>,
    /// It is to be replaced.
    pub(super) worn_out: bool,
    pub(super) last_failed: bool,
    pub(super) ready_since: Instant,
}

impl Seat {
    pub(crate) fn new(slot: SlotId, worker: Admitted) -> Self {
        Seat {
            slot,
            worker,
            answered: 0,
            memory: None,
            worn_out: false,
            last_failed: false,
            ready_since: Instant::now(),
        }
    }

    pub(crate) fn slot(&self) -> SlotId {
        self.slot
    }

    /// How many calls it may run before it is replaced.
    pub(crate) fn most(&self, config: &Config) -> u32 {
        if !self.worker.shares {
            return 1;
        }
        let left = config
            .recycle_after
            .map_or(u64::MAX, |limit| limit.saturating_sub(self.answered));
        u32::try_from(left).unwrap_or(MOST_CALLS)
    }

    pub(crate) fn is_worn_out(&self) -> bool {
        self.worn_out
    }

    /// Prepares the black box for a batch.
    pub(crate) fn open(&self, batch: &Batch<Arc<Job>, EncodedInputs>) {
        self.worker.open(batch.count);
    }

    /// What a worker that is dead has printed since its last reply.
    pub(super) fn last_words(&self) -> Printed {
        let files = self.worker.files.as_ref();
        files.map(|files| files.rest()).unwrap_or_default()
    }

    /// A program that is refused memory usually aborts, and says so: that is the limit's doing.
    pub(super) fn why_it_died(&self, death: Death, trace: &Trace) -> Why {
        match self.memory {
            Some(limit)
                if death == Death::Signal(os::ABORTED)
                    && trace.printed.stderr.tail(TAIL * 16).contains(NO_MEMORY) =>
            {
                Why::OutOfMemory { limit }
            }
            _ if death == Death::Signal(os::ABORTED) => {
                let panic = self.worker.black_box.panic();
                panic.map_or(Why::Died(death), |text| aborted(&text))
            }
            _ => Why::Died(death),
        }
    }

    /// Sets how much memory the worker may have for its next calls.
    pub(super) fn limit_memory(&mut self, limit: Option<u64>) {
        if limit == self.memory {
            return;
        }
        self.memory = limit;
        if let Some(process) = &self.worker.process
            && let Err(error) = process.limit_memory(limit)
        {
            // The supervisor looks at what it uses all the same.
            log::debug!(
                "slot {}: the memory of worker {} can't be limited by the kernel: {error}",
                self.slot.number(),
                self.worker.pid
            );
        }
    }

    pub(super) fn by(&self) -> By {
        By::here(self.slot, self.worker.pid)
    }

    pub(super) fn trace(&self, elapsed: Duration, printed: Printed) -> Trace {
        Trace::one(self.by(), elapsed, printed, Payload::default())
    }

    pub(super) fn wears_out(&self, config: &Config) -> bool {
        let process = self.worker.process.as_ref();
        config
            .recycle_after
            .is_some_and(|limit| self.answered >= limit)
            || config
                .recycle_above
                .is_some_and(|limit| process.is_some_and(|process| process.memory() > limit))
    }

    pub(super) fn kill(&self) {
        if let Some(process) = &self.worker.process {
            process.signal(GroupSignal::Kill);
        }
    }
}

/// What ended a worker that aborted right after a panic: one that could not unwind. It notes its place, a zero byte, and
/// what it said.
fn aborted(text: &[u8]) -> Why {
    let text = String::from_utf8_lossy(text);
    let (location, message) = text.split_once('\0').unwrap_or(("", &text));
    Why::Panicked {
        message: message.to_owned(),
        location: location.to_owned(),
        backtrace: String::new(),
    }
}
