//! The calls of a map that have ended, or never begin: cutting off, and taking results.

use super::{Completed, Cut, Ended, Failures, Fate, Map, Order, Settled, Stretch, Take, cancelled};
use crate::scheduler::Bundle;

impl<J: Clone, I: Bundle, T: Clone> Map<J, I, T> {
    /// A call has ended without success: what follows from it, if anything does.
    pub(super) fn cut_after_failure(&mut self, index: u64) -> Option<Settled> {
        self.failed += 1;
        let (from, kill, note) = match self.spec.failures {
            Failures::First => (
                index + 1,
                true,
                format!("call {} of the same map did not succeed", index + 1),
            ),
            Failures::Most { calls, now } if self.failed == calls.max(1) => {
                let note = match self.failed {
                    1 => "1 call of the same map had not succeeded".to_owned(),
                    failed => format!("{failed} calls of the same map had not succeeded"),
                };
                (0, now, note)
            }
            Failures::Any | Failures::Most { .. } => return None,
        };
        self.cut_from(from, &note);
        Some(Settled::Cut { from, kill })
    }

    pub(super) fn is_cut(&self, index: u64) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.from <= index)
    }

    /// Cancels the calls from `start` that wait; those that are pushed later are cancelled, too.
    pub(in crate::scheduler) fn cut_from(&mut self, start: u64, note: &str) {
        if self.is_cut(start) {
            return;
        }
        self.cut = Some(Cut {
            from: start,
            note: note.to_owned(),
            running: None,
            with_pool: false,
        });
        self.cancel_waiting(start);
    }

    /// What runs of it is ended, for this reason.
    pub(in crate::scheduler) fn say_why_running_end(&mut self, note: &str) {
        if let Some(cut) = &mut self.cut {
            cut.running.get_or_insert_with(|| note.to_owned());
        }
    }

    /// The pool ends: as [`cut_from`](Self::cut_from) the first call.
    pub(in crate::scheduler) fn cut_with_pool(&mut self, note: &str) {
        let is_first = self.cut.is_none();
        self.cut_from(0, note);
        if let (Some(cut), true) = (&mut self.cut, is_first) {
            cut.with_pool = true;
        }
    }

    pub(super) fn cancel_waiting(&mut self, start: u64) {
        let note = self.cut.as_ref().map(|cut| cut.note.clone());
        for at in self.within(start, u64::MAX) {
            let count = self.stretches.get(&at).map_or(0, |stretch| stretch.count);
            if let Some(attempts) = self.end_waiting(at) {
                self.end_calls(at, count, cancelled(attempts, note.clone()), 0);
            }
        }
    }

    /// Takes a waiting stretch out; how many attempts at its calls there were.
    pub(super) fn end_waiting(&mut self, at: u64) -> Option<u32> {
        let Stretch { count, fate } = self.stretches.remove(&at)?;
        match fate {
            Fate::Waiting {
                inputs,
                at: place,
                attempts,
            } => {
                self.unset_ready(at, count);
                self.bytes -= inputs.bytes(place, count);
                self.unfinished -= count as usize;
                Some(attempts)
            }
            fate => {
                self.insert(at, count, fate);
                None
            }
        }
    }

    /// Consecutive calls have ended in the same way, and count so many bytes; whether that gives `take` something.
    pub(super) fn end_calls(
        &mut self,
        first: u64,
        count: u32,
        ended: Ended<T>,
        bytes: usize,
    ) -> bool {
        if self.spec.separate {
            self.end_separate(first, count, ended);
            return false;
        }
        let fate = Fate::Ended {
            ended: Box::new(ended),
            bytes,
            left: count,
        };
        self.insert(first, count, fate);
        match self.spec.order {
            Order::Input => first == self.next,
            Order::Completion => {
                self.completed.push_back(Completed::Calls(first));
                true
            }
        }
    }

    // ---- Results ---------------------------------------------------------------------------

    pub(in crate::scheduler) fn take(&mut self) -> Take<T> {
        let first = match self.spec.order {
            Order::Input => self.next,
            Order::Completion => match self.completed.pop_front() {
                Some(Completed::Calls(first)) => first,
                // The call keeps its place in the window.
                Some(Completed::Attempt(index, ended)) => return Take::Ready(index, 1, ended),
                None if self.is_finished() => return Take::Exhausted,
                None => return Take::Pending,
            },
        };
        match self.stretches.get(&first).map(|stretch| &stretch.fate) {
            Some(Fate::Ended { .. }) => {}
            None if self.is_finished() => return Take::Exhausted,
            _ => return Take::Pending,
        }
        let Some(Stretch {
            count,
            fate: Fate::Ended { ended, bytes, .. },
        }) = self.stretches.remove(&first)
        else {
            return Take::Pending;
        };
        self.next = self.next.max(first + u64::from(count));
        self.bytes -= bytes;
        self.taken(count);
        Take::Ready(first, count, *ended)
    }

    pub(in crate::scheduler) fn has_result(&self) -> bool {
        let ready = match self.spec.order {
            Order::Input => self
                .stretches
                .get(&self.next)
                .is_some_and(|stretch| matches!(stretch.fate, Fate::Ended { .. })),
            Order::Completion => !self.completed.is_empty(),
        };
        ready || self.is_finished()
    }

    /// Whether it was cut off by something of its own, not by the pool's end.
    pub(in crate::scheduler) fn was_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| !cut.with_pool)
    }

    /// Forgets all results.
    pub(in crate::scheduler) fn clear(&mut self) {
        self.next = self.end;
        self.stretches.clear();
        self.ready.clear();
        self.ready_calls = 0;
        self.untaken = 0;
        self.full = false;
        self.completed.clear();
    }
}
