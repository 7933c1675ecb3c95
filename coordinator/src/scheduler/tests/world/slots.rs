//! What slots and their workers do in the random world.

use super::*;

impl World {
    pub(super) fn slot(&mut self, slot: usize, deed: Deed) {
        let post = std::mem::replace(&mut self.posts[slot], Post::Left);
        self.posts[slot] = match (post, deed) {
            (Post::Left, _) => Post::Left,
            (Post::Starting, _) if !self.jobs.wants_worker() => Post::Left,
            (Post::Starting, Deed::FailToStart) => {
                self.jobs.start_failed("no start", self.now);
                Post::Starting
            }
            (Post::Starting, _) => Post::Idle(self.jobs.ready(SlotId(slot))),
            (Post::Asleep(idle, _) | Post::Idle(idle), Deed::Die) => {
                self.jobs.idle_died(idle);
                Post::Starting
            }
            (Post::Idle(idle), _) => self.next(idle),
            (asleep @ Post::Asleep(..), _) => asleep,
            (Post::Busy(running, worker), deed) => self.busy(slot, running, worker, deed),
        };
        if !matches!(self.posts[slot], Post::Busy(..)) {
            self.signalled.remove(&slot);
        }
    }

    fn next(&mut self, idle: Idle) -> Post {
        let ready = !self.jobs.ready.is_empty();
        let slot = idle.slot.0;
        match self.jobs.next(idle, MOST_CALLS, self.now, &self.workers) {
            Next::Run(running, batch) => {
                assert!(batch.count > 0);
                let parts: u32 = batch.parts.iter().map(|part| part.count).sum();
                assert_eq!(parts, batch.count);
                let mut index = batch.first;
                for part in &batch.parts {
                    assert_eq!(
                        part.inputs.first + u64::from(part.at),
                        index,
                        "another's input"
                    );
                    index += u64::from(part.count);
                }
                let map = running.map();
                let known = self.known(map);
                assert!(batch.attempt <= known.retries + 1);
                let last = batch.first + u64::from(batch.count) - 1;
                let earlier = known.heard.first().is_some_and(|failed| *failed < last);
                let cut = known.failures == Failures::First && earlier;
                assert!(!cut, "runs after the failure of an earlier call");
                assert!(!known.is_over(), "runs after too many failures");
                let one = batch.count == 1 || !matches!(known.failures, Failures::Most { .. });
                assert!(one, "a batch that a failure could not stop");
                self.workers.open(slot, batch.count);
                self.jobs.sent(&running, self.now);
                Post::Busy(
                    running,
                    Worker {
                        map,
                        first: batch.first,
                        sent: batch.count,
                        started: 0,
                        finished: 0,
                        told: 0,
                        failed: BTreeSet::new(),
                    },
                )
            }
            Next::Wait(idle, until) => {
                let watched = self.jobs.watch.is_some();
                assert!(
                    !ready || watched || self.jobs.paused.is_some(),
                    "no progress"
                );
                Post::Asleep(idle, until)
            }
            Next::Leave => {
                assert!(self.jobs.refusal().is_some());
                Post::Left
            }
        }
    }

    fn busy(&mut self, slot: usize, running: Running, mut worker: Worker, deed: Deed) -> Post {
        // A worker that was told to end does.
        let deed = if self.signalled.contains_key(&slot) {
            Deed::Die
        } else {
            deed
        };
        match deed {
            Deed::Die => {
                // What it has finished and not told is found, all of it.
                self.posts[slot] = Post::Starting;
                let started = self.jobs.gone(&running, &self.workers);
                assert_eq!(started, worker.started);
                self.collect(slot, worker.map, worker.finished, &worker.failed);
                if worker.started > worker.finished {
                    let index = worker.first + u64::from(worker.finished);
                    self.known(worker.map).failed(index);
                    self.known(worker.map).heard(index);
                }
                let why = Why::Died(crate::Death::Signal(9));
                if started == 0 {
                    // The first call may have to answer for it.
                    self.known(worker.map).unbegun += 1;
                }
                self.jobs
                    .died(running, started, why, 0, self.now, &self.workers);
                return Post::Starting;
            }
            Deed::OutOfTurn => {
                let at = worker.told + 1;
                let wrong = self
                    .jobs
                    .reply(&running, at, Ok(()), (0, 0), self.now, &self.workers);
                assert!(wrong.is_err());
            }
            Deed::Tell => self.tell(&running, &mut worker),
            Deed::Advance | Deed::Fail | Deed::FailToStart => {
                if !self.advance(slot, &running, &mut worker, deed) {
                    return self.finish_batch(running, worker);
                }
            }
        }
        if worker.told == worker.sent {
            return self.finish_batch(running, worker);
        }
        Post::Busy(running, worker)
    }

    /// A worker starts a call, or ends the one it has started; whether it could.
    fn advance(&mut self, slot: usize, running: &Running, worker: &mut Worker, deed: Deed) -> bool {
        let index = worker.first + u64::from(worker.finished);
        let known = self.maps.get_mut(&worker.map).unwrap();
        if worker.started == worker.finished {
            if worker.started == worker.sent || !self.workers.start(slot, self.now) {
                return false;
            }
            worker.started += 1;
            assert!(!known.taken.contains_key(&index), "runs after its end");
            assert!(!known.succeeded.contains(&index), "runs after its success");
            assert!(!known.is_over(), "starts after too many failures");
            let is_cancelled = known.cancelled_calls.contains(&index);
            assert!(!is_cancelled, "starts after it was cancelled");
            *known.begun.entry(index).or_default() += 1;
            return true;
        }
        worker.finished += 1;
        self.workers.finish(slot);
        if deed == Deed::Fail {
            known.failed(index);
            worker.failed.insert(worker.finished - 1);
            if worker.finished == worker.sent {
                // A map that counts its failures has batches of one call, and hears of each at once.
                self.tell(running, worker);
            }
        } else {
            known.succeeded.insert(index);
        }
        true
    }

    /// A worker answers for what it has finished.
    fn tell(&mut self, running: &Running, worker: &mut Worker) {
        for (from, to) in runs(worker.told, worker.finished, &worker.failed) {
            if worker.failed.contains(&from) {
                let is_news = self.jobs.is_news(running, from);
                let said = self.jobs.reply(
                    running,
                    from,
                    Err(Why::Failed("no".to_owned())),
                    (0, 5),
                    self.now,
                    &self.workers,
                );
                assert_eq!(said, Ok(is_news));
                let index = worker.first + u64::from(from);
                self.known(worker.map).heard(index);
                continue;
            }
            self.jobs
                .values(running, from, to - from, self.now, |news| {
                    (0, 5 * news.len())
                })
                .unwrap();
        }
        worker.told = worker.finished;
        worker.failed.clear();
    }

    /// What is in a black box is found.
    pub(super) fn collect(
        &mut self,
        slot: usize,
        map: MapId,
        finished: u32,
        failed: &BTreeSet<u32>,
    ) {
        let slot = SlotId(slot);
        let Some((first, reported)) = self.jobs.unreported(slot) else {
            return;
        };
        for (from, to) in runs(reported, finished, failed) {
            if !failed.contains(&from) {
                self.jobs
                    .found(slot, to - from, self.now, |news| (0, 5 * news as usize));
                continue;
            }
            if self.jobs.unreported(slot) != Some((first, from)) {
                return;
            }
            let result = Err(Why::Failed("no".to_owned()));
            self.jobs
                .found_end(slot, result, (0, 5), self.now, &self.workers);
            if let Some(known) = self.maps.get_mut(&map) {
                known.heard(first + u64::from(from));
            }
        }
    }

    fn finish_batch(&mut self, running: Running, mut worker: Worker) -> Post {
        self.tell(&running, &mut worker);
        if worker.started < worker.sent {
            self.jobs.stopped(&running, worker.started).unwrap();
        }
        match self.jobs.idle_again(running, self.now) {
            Ok(idle) => Post::Idle(idle),
            // It is about to be killed.
            Err(running) => Post::Busy(running, worker),
        }
    }
}

/// Takes consecutive calls apart: those that failed by themselves, and others as they stand together.
fn runs(from: u32, to: u32, failed: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for call in from..to {
        match runs.last_mut() {
            Some((begin, end)) if !failed.contains(begin) && !failed.contains(&call) => {
                *end = call + 1;
            }
            _ => runs.push((call, call + 1)),
        }
    }
    runs
}
