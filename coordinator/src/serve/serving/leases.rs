//! The leases of a run that this agent serves: from what they wait for to their end.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use protocol::agent::{Bulk, Carried, Ending, Files, Lease, Recall, SharedValue, What};
use worker::private::Kept;

use super::{Answer, Awaited, KEPT, Letter, Serving, Under};
use crate::agents::bulk::{Fetched, Target};
use crate::agents::carriage::MOST_CALLS;
use crate::agents::member::{Deed, Told};
use crate::payload::{EncodedInputs, Job, Place};
use crate::scheduler::Limits;
use crate::serve::calls::{self, CallFiles};
use crate::serve::event::Event;
use crate::serve::files::Laying;

impl Serving {
    /// A lease may be run: begins to, if all that it needs is here.
    pub(super) fn take(&mut self, lease: Lease, payload: Vec<u8>) -> Answer {
        let known = |value: &&SharedValue| self.values.iter().all(|(known, _)| known != *value);
        let mut missing: BTreeSet<Bulk> = lease
            .shared
            .iter()
            .filter(known)
            .map(|value| value.bulk)
            .collect();
        let inputs = match lease.inputs {
            Carried::Here => Some(payload),
            Carried::Apart(bulk) => {
                missing.insert(bulk);
                None
            }
        };
        let mut answer = Answer {
            // Inputs and values have to be in memory.
            fetch: missing.iter().map(|bulk| (*bulk, Target::Memory)).collect(),
            ..Answer::default()
        };
        match self.places_for(&lease) {
            Ok(files) => {
                missing.extend(files.iter().map(|(bulk, _)| *bulk));
                answer.fetch.extend(files);
            }
            Err(why) => answer.cannot = Some(why),
        }
        let number = lease.number;
        let awaited = Box::new(Awaited {
            lease,
            inputs,
            missing,
        });
        self.leases.insert(number, Under::Waiting(awaited));
        // If its calls can't be begun, nobody would wait for them here, nor get them elsewhere.
        answer.add(self.start_ready());
        answer
    }

    /// Places for the files of a lease that are not here yet.
    pub(super) fn places_for(&mut self, lease: &Lease) -> Result<Vec<(Bulk, Target)>, String> {
        if lease.files.is_empty() {
            return Ok(Vec::new());
        }
        let files = self
            .files
            .as_mut()
            .ok_or("files go along with calls, and the run has not said so")?;
        let missing = files.need(&lease.files).into_iter();
        Ok(missing.map(|bulk| (bulk, files.place())).collect())
    }

    /// Something has come that leases may have waited for. Without it this machine can't serve the run.
    pub(in crate::serve) fn arrived(
        &mut self,
        bulk: Bulk,
        come: Result<Fetched, String>,
    ) -> Answer {
        let kept = come.and_then(|fetched| self.keep(bulk, fetched));
        if let Err(why) = kept {
            return Answer {
                cannot: Some(format!("what calls need can't be had: {why}")),
                ..Answer::default()
            };
        }
        for under in self.leases.values_mut() {
            if let Under::Waiting(awaited) = under {
                awaited.missing.remove(&bulk);
            }
        }
        self.start_ready()
    }

    /// Whether a lease waits for something.
    pub(in crate::serve) fn waits_for(&self, bulk: &Bulk) -> bool {
        let mut leases = self.leases.values();
        leases
            .any(|under| matches!(under, Under::Waiting(awaited) if awaited.missing.contains(bulk)))
    }

    /// The coordinator does not have something any more that leases have waited for. The calls that it was to go along with end,
    /// and the others go back.
    pub(in crate::serve) fn gone(&mut self, bulk: Bulk, why: &str) -> Answer {
        let waits = |under: &Under| matches!(under, Under::Waiting(awaited) if awaited.missing.contains(&bulk));
        let leases = self.leases.iter().filter(|(_, under)| waits(under));
        let leases: Vec<u64> = leases.map(|(number, _)| *number).collect();
        let mut deeds = Vec::new();
        for number in leases {
            let Some(Under::Waiting(awaited)) = self.leases.remove(&number) else {
                continue;
            };
            let Lease {
                first, files, lens, ..
            } = awaited.lease;
            self.forget_files(&files);
            let mut next = first;
            for call in &files {
                let mut sent = call.send.iter();
                if let Some(sent) = sent.find(|sent| sent.bulk == bulk) {
                    let what = without(call.index, &sent.name, why);
                    deeds.extend(self.returned(number, next..call.index));
                    deeds.extend(self.member.ended(number, 1, what, Told::default()));
                    next = call.index + 1;
                }
            }
            deeds.extend(self.returned(number, next..first.saturating_add(lens.count())));
        }
        let letters = deeds.into_iter().filter_map(|deed| self.sent(deed));
        Answer {
            letters: letters.collect(),
            ..Answer::default()
        }
    }

    fn returned(&mut self, lease: u64, calls: Range<u64>) -> Option<Deed> {
        match calls.is_empty() {
            true => None,
            false => self.member.returned(lease, calls),
        }
    }

    pub(super) fn keep(&mut self, bulk: Bulk, fetched: Fetched) -> Result<(), String> {
        if !self.waits_for(&bulk) {
            // Its lease was taken back meanwhile.
            return Ok(());
        }
        let files = self.files.as_mut();
        if let Some(files) = files.filter(|files| files.needs(&bulk)) {
            let Fetched::Named(file) = fetched else {
                return Err("it was put somewhere else".to_owned());
            };
            return files.keep(&bulk, file).map_err(|error| error.to_string());
        }
        let bytes = fetched.into_bytes().map_err(|error| error.to_string())?;
        for under in self.leases.values_mut() {
            let Under::Waiting(awaited) = under else {
                continue;
            };
            let values = awaited.lease.shared.iter();
            for value in values.filter(|value| value.bulk == bulk) {
                if self.values.iter().all(|(known, _)| known.id != value.id) {
                    let kept = Kept::copy_of(value.id, &bytes);
                    self.values
                        .push((*value, kept.map_err(|error| error.to_string())?));
                }
            }
        }
        // Two leases may have the same inputs, but hardly do: they are large, and are not copied for the last.
        let is_wanted = |under: &&mut Under| matches!(under, Under::Waiting(awaited) if awaited.lease.inputs == Carried::Apart(bulk) && awaited.inputs.is_none());
        let mut wanted = self.leases.values_mut().filter(is_wanted).peekable();
        let mut bytes = Some(bytes);
        while let Some(under) = wanted.next() {
            if let Under::Waiting(awaited) = under {
                awaited.inputs = match wanted.peek() {
                    Some(_) => bytes.clone(),
                    None => bytes.take(),
                };
            }
        }
        Ok(())
    }

    /// Begins what has waited, and waits for nothing any more.
    pub(super) fn start_ready(&mut self) -> Answer {
        let is_ready =
            |under: &Under| matches!(under, Under::Waiting(awaited) if awaited.missing.is_empty());
        let ready = self.leases.iter().filter(|(_, under)| is_ready(under));
        let ready: Vec<u64> = ready.map(|(number, _)| *number).collect();
        let mut answer = Answer::default();
        for number in ready {
            let Some(Under::Waiting(awaited)) = self.leases.remove(&number) else {
                continue;
            };
            let begun = match awaited.lease.files.is_empty() {
                true => self.start(*awaited),
                false => self.lay_out(awaited),
            };
            if let Err(why) = begun {
                answer.cannot = Some(format!("calls can't be begun: {why}"));
            }
        }
        self.forget_values();
        answer
    }

    /// Puts the files of a lease's calls in their places, on a thread: it takes as long as copying does.
    pub(super) fn lay_out(&mut self, awaited: Box<Awaited>) -> Result<(), String> {
        let files = self.files.as_ref().ok_or("there is no place for files")?;
        let plan = files.plan(&awaited.lease.files);
        let (epoch, lease, to) = (self.member.epoch(), awaited.lease.number, self.to.clone());
        let laying = plan.begin(move |done| {
            // Nobody hears it if the agent has ended.
            let _ = to.send(Event::LaidOut { epoch, lease, done });
        });
        let under = Under::LayingOut {
            laying: laying.map_err(|error| format!("a thread could not be started: {error}"))?,
            awaited,
            is_unwanted: false,
        };
        self.leases.insert(lease, under);
        Ok(())
    }

    /// The files of a lease's calls are in their places, or can't be put there, or need not any more.
    pub(in crate::serve) fn laid_out(
        &mut self,
        epoch: u64,
        lease: u64,
        done: io::Result<()>,
        now: Duration,
    ) -> Answer {
        let mut answer = Answer::default();
        if epoch != self.member.epoch() {
            return answer;
        }
        let Some(Under::LayingOut {
            awaited,
            is_unwanted,
            ..
        }) = self.leases.remove(&lease)
        else {
            return answer;
        };
        if is_unwanted {
            answer.letters = self.give_back(&awaited.lease);
            answer.letters.extend(self.look_whether_dead(now));
            return answer;
        }
        let begun = done
            .map_err(|error| error.to_string())
            .and_then(|()| self.start(*awaited));
        answer.cannot = begun.err();
        answer
    }

    /// None of a lease has begun, and it is no more among the leases: all of it goes back.
    fn give_back(&mut self, lease: &Lease) -> Vec<Letter> {
        self.forget_files(&lease.files);
        self.idle_since = Instant::now();
        self.refuse(lease)
    }

    /// All of a lease goes back, for which nothing was done yet.
    pub(super) fn refuse(&mut self, lease: &Lease) -> Vec<Letter> {
        let calls = lease.first..lease.first.saturating_add(lease.lens.count());
        let deed = self.member.returned(lease.number, calls);
        deed.into_iter()
            .filter_map(|deed| self.sent(deed))
            .collect()
    }

    /// Waits until no files are put anywhere any more, which it hurries.
    pub(in crate::serve) fn end_laying_out(&mut self) {
        let unwanted = self.leases.values_mut().filter_map(|under| match under {
            Under::LayingOut { laying, .. } => Some(laying),
            Under::Waiting(_) | Under::Running { .. } => None,
        });
        unwanted.for_each(Laying::end);
    }

    pub(super) fn start(&mut self, awaited: Awaited) -> Result<(), String> {
        let Awaited { lease, inputs, .. } = awaited;
        if lease.lens.count() > MOST_CALLS {
            return Err(format!("a lease has {} calls", lease.lens.count()));
        }
        let lens = lease.lens.to_vec();
        let values = self.values.iter();
        let values = values.filter(|(value, _)| lease.shared.contains(value));
        let kept = values.map(|(_, kept)| kept.clone()).collect();
        let inputs = EncodedInputs::several(inputs.unwrap_or_default(), &lens, kept)?;
        let job = Job {
            task: lease.task.into(),
            types: lease.types,
            encoding: lease.encoding,
            place: Place {
                lease: lease.number,
                first: lease.first,
                attempts: lease.attempt.saturating_sub(1),
            },
        };
        let grace = Duration::from_nanos(lease.grace.min(self.open.grace));
        let limits = Limits {
            timeout: lease.timeout.map(Duration::from_nanos),
            grace,
            memory: lease.memory,
            ..Limits::default()
        };
        let (map, ends) = self.pool.run_encoded(job, limits, inputs)?;
        let of = (self.member.epoch(), lease.number, lease.first);
        let files = self.files.as_ref().map(|known| CallFiles {
            calls: known.calls(),
            files: lease
                .files
                .iter()
                .map(|files| (files.index, files.clone()))
                .collect(),
        });
        calls::follow(of, ends, files, self.to.clone()).map_err(|error| error.to_string())?;
        let under = Under::Running {
            map,
            first: lease.first,
            is_killed: false,
            files: lease.files,
            shared: lease.shared,
        };
        self.leases.insert(lease.number, under);
        Ok(())
    }

    /// Forgets the oldest of the values that no lease refers to, if they are too large together.
    pub(super) fn forget_values(&mut self) {
        let mut all: u64 = self.values.iter().map(|(value, _)| value.bulk.len).sum();
        let leases = self.leases.values().flat_map(Under::shared);
        let named: BTreeSet<u64> = leases.map(|value| value.id).collect();
        self.values.retain(|(value, _)| {
            let is_kept = all <= KEPT || named.contains(&value.id);
            if !is_kept {
                all -= value.bulk.len;
            }
            is_kept
        });
    }

    /// Calls are wanted back.
    pub(super) fn recall(&mut self, recall: Recall) -> Vec<Letter> {
        match self.leases.get_mut(&recall.lease) {
            Some(Under::Running {
                map,
                first,
                is_killed,
                ..
            }) => {
                *is_killed |= recall.kill;
                map.take_back(recall.from.saturating_sub(*first), recall.kill);
                Vec::new()
            }
            // None of it has begun, so all of it goes back: at once, or as soon as nothing is done for it any more.
            Some(Under::LayingOut {
                laying,
                is_unwanted,
                ..
            }) => {
                *is_unwanted = true;
                laying.stop();
                Vec::new()
            }
            Some(Under::Waiting(_)) => match self.leases.remove(&recall.lease) {
                Some(Under::Waiting(awaited)) => self.give_back(&awaited.lease),
                _ => Vec::new(),
            },
            None => Vec::new(),
        }
    }

    pub(super) fn sent(&self, deed: Deed) -> Option<Letter> {
        match deed {
            Deed::Send(up) => Some(self.letter(up)),
            _ => None,
        }
    }

    /// Takes back all that has not begun. With `kill` what runs is ended, too.
    pub(super) fn take_back_all(&mut self, kill: bool) -> Vec<Letter> {
        self.is_ended_here |= kill;
        let leases: Vec<u64> = self.leases.keys().copied().collect();
        let letters = leases.into_iter().flat_map(|lease| {
            self.recall_here(Recall {
                epoch: 0,
                lease,
                from: 0,
                kill,
            })
        });
        letters.collect()
    }

    /// As [`recall`](Self::recall), by this machine's own wish.
    pub(super) fn recall_here(&mut self, recall: Recall) -> Vec<Letter> {
        let was_killed = self.is_killed(recall.lease);
        let letters = self.recall(recall);
        if let Some(Under::Running { is_killed, .. }) = self.leases.get_mut(&recall.lease) {
            *is_killed = was_killed;
        }
        letters
    }

    pub(super) fn is_killed(&self, lease: u64) -> bool {
        matches!(
            self.leases.get(&lease),
            Some(Under::Running {
                is_killed: true,
                ..
            })
        )
    }

    /// Ends all calls. When all are dead, a new life begins.
    pub(super) fn end_all(&mut self, now: Duration) -> Vec<Letter> {
        self.is_ending = true;
        let leases: Vec<u64> = self.leases.keys().copied().collect();
        for lease in leases {
            // What is waited for is given up. Nobody is told of what goes back so: the new life says all.
            self.recall_here(Recall {
                epoch: 0,
                lease,
                from: 0,
                kill: true,
            });
        }
        // What is stopped hears no SIGTERM.
        self.pool.resume();
        self.look_whether_dead(now)
    }

    pub(super) fn look_whether_dead(&mut self, now: Duration) -> Vec<Letter> {
        if !self.is_ending || !self.leases.is_empty() {
            return Vec::new();
        }
        self.is_ending = false;
        let deeds = self.member.all_dead(now);
        self.prune();
        deeds
            .into_iter()
            .filter_map(|deed| self.sent(deed))
            .collect()
    }

    /// A lease is over: its files are not needed any more, but for those of reports that were not heard.
    pub(super) fn forget_files(&mut self, files: &[Files]) {
        let Some(known) = &mut self.files else {
            return;
        };
        known.forget(files);
        let told: BTreeSet<u64> = self
            .payloads
            .values()
            .filter_map(|payload| payload.index)
            .collect();
        let held = with_files(&self.leases);
        let left = files.iter().map(|files| files.index);
        let left = left.filter(|index| !told.contains(index) && !held.contains(index));
        left.for_each(|index| known.remove(index));
    }
}

/// The calls of leases that have files: one may have come again before all is over that was before.
pub(super) fn with_files(leases: &BTreeMap<u64, Under>) -> BTreeSet<u64> {
    let files = leases.values().flat_map(Under::files);
    files.map(|files| files.index).collect()
}

/// A call that has not begun, because a file of this name can't go along with it.
fn without(index: u64, name: &[u8], why: &str) -> What {
    let name = OsStr::from_bytes(name);
    What::Ended {
        index,
        ending: Ending::Undecodable(format!("the file {name:?} can't go along: {why}")),
        nanos: 0,
        slot: 0,
        worker: 0,
        stdout: 0,
        stderr: 0,
        note: None,
    }
}
