//! A run that this agent serves: its pool, the leases that it has, and what it has told and was not heard yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::{
    All, Bulk, Carried, Down, Ending, Files, Lease, Named, Open, Recall, SharedValue, Up, Want,
    What,
};
use tempfile::NamedTempFile;
use worker::private::Kept;

use super::calls::{self, CallFiles};
use super::event::{Event, News};
use super::files::RunFiles;
use crate::agents::bulk::{Fetched, Store};
use crate::agents::carriage::{MOST_CALLS, fits};
use crate::agents::member::{Deed, Member, Told};
use crate::payload::{EncodedInputs, Job, Place};
use crate::pool::{EncodedMap, Pool};
use crate::scheduler::Limits;

/// How long a call runs before its coordinator is told that it does.
const NAMED: Duration = Duration::from_millis(100);
/// How many bytes of values that no lease refers to are kept, because another may.
const KEPT: u64 = 1 << 30;

/// A lease that waits for its inputs, or for what they refer to.
struct Awaited {
    lease: Lease,
    inputs: Option<Vec<u8>>,
    missing: BTreeSet<Bulk>,
}

/// A lease that this agent has.
enum Under {
    /// It waits for inputs, or for what they refer to.
    Waiting(Box<Awaited>),
    /// The files of its calls are put in their places.
    LayingOut(Box<Awaited>),
    Running {
        map: EncodedMap,
        /// The index of its first call in the map of the coordinator.
        first: u64,
        /// The coordinator wants what runs to be ended.
        is_killed: bool,
        files: Vec<Files>,
    },
}

/// Something to send to the coordinator.
pub(super) struct Letter {
    pub(super) up: Up,
    pub(super) payload: Vec<u8>,
}

pub(super) struct Serving {
    pub(super) open: Open,
    pub(super) pool: Arc<Pool>,
    pub(super) member: Member,
    pub(super) since: Instant,
    /// Since when it has held no lease.
    pub(super) idle_since: Instant,
    leases: BTreeMap<u64, Under>,
    /// The payloads of reports that were not heard, by serial number, and those that are offered as bulks.
    payloads: BTreeMap<u64, Payload>,
    pub(super) store: Store,
    /// Values that inputs have referred to, by number; and of what size. The oldest first.
    values: Vec<(SharedValue, Kept)>,
    named: BTreeSet<(u64, u64)>,
    /// The files of calls, if they have some.
    files: Option<RunFiles>,
    /// It ends all of its calls.
    is_ending: bool,
    /// This machine wants to be rid of it: what runs is ended, and returned.
    pub(super) is_ended_here: bool,
    to: Sender<Event>,
}

/// What belongs to a report that was not heard yet.
struct Payload {
    place: Carriage,
    /// What its call has made, and which call that was.
    made: Vec<Bulk>,
    index: Option<u64>,
}

enum Carriage {
    Here(Vec<u8>),
    Apart(Bulk),
}

/// What became of something that was heard.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) letters: Vec<Letter>,
    /// Fetch these, into a file if there is one for it.
    pub(super) fetch: Vec<(Bulk, Option<NamedTempFile>)>,
    /// This machine can't serve the run: why.
    pub(super) cannot: Option<String>,
    /// The coordinator will have nothing to do with this agent.
    pub(super) refused: Option<String>,
}

impl Serving {
    pub(super) fn new(
        open: Open,
        pool: Arc<Pool>,
        member: Member,
        files: Option<RunFiles>,
        to: Sender<Event>,
    ) -> Self {
        Serving {
            open,
            pool,
            member,
            since: Instant::now(),
            idle_since: Instant::now(),
            leases: BTreeMap::new(),
            payloads: BTreeMap::new(),
            store: Store::default(),
            values: Vec::new(),
            named: BTreeSet::new(),
            files,
            is_ending: false,
            is_ended_here: false,
            to,
        }
    }

    /// Whether calls of it may run here.
    pub(super) fn has_calls(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: Duration) -> Answer {
        let running = self.running();
        let fresh = running
            .iter()
            .any(|named| !self.named.contains(&(named.lease, named.index)));
        let mut deeds = self.member.tick(now, running.clone());
        let has_beaten = |deed: &Deed| matches!(deed, Deed::Send(Up::Beat(_)));
        if fresh && self.member.is_working() && !deeds.iter().any(has_beaten) {
            deeds.push(self.member.beat(now, running.clone()));
        }
        self.named = running
            .iter()
            .map(|named| (named.lease, named.index))
            .collect();
        self.do_all(deeds, Vec::new(), now)
    }

    /// The calls that have run for a while.
    fn running(&self) -> Vec<Named> {
        if self.leases.is_empty() {
            return Vec::new();
        }
        let places = self.pool.running_places().into_iter();
        places
            .filter(|place| place.elapsed >= NAMED && self.leases.contains_key(&place.lease))
            .map(|place| Named {
                lease: place.lease,
                index: place.index,
                slot: u32::try_from(place.slot).unwrap_or(0),
                worker: place.worker,
                nanos: u64::try_from(place.elapsed.as_nanos()).unwrap_or(u64::MAX),
            })
            .collect()
    }

    /// The coordinator says something to this agent.
    pub(super) fn hear(&mut self, down: Down, payload: &[u8], now: Duration) -> Answer {
        if let Down::Want(want) = down {
            return self.give_piece(want);
        }
        let deeds = self.member.hear(down, now);
        self.prune();
        self.do_all(deeds, payload.to_vec(), now)
    }

    /// The coordinator says something to all of its agents. Its end is the service's business.
    pub(super) fn hear_all(&mut self, all: All, now: Duration) -> Answer {
        let deed = match all {
            All::Pause { patience } => self.member.pause(Duration::from_nanos(patience), now),
            All::Resume => self.member.resume(now),
            All::End => None,
        };
        self.do_all(deed.into_iter().collect(), Vec::new(), now)
    }

    fn give_piece(&self, want: Want) -> Answer {
        let piece = self.store.piece(&want);
        let letter = piece.map(|payload| Letter {
            up: Up::Piece(want),
            payload,
        });
        Answer {
            letters: letter.into_iter().collect(),
            ..Answer::default()
        }
    }

    /// Forgets what belongs to reports that were heard.
    fn prune(&mut self) {
        let Serving {
            payloads,
            member,
            store,
            files,
            ..
        } = self;
        payloads.retain(|serial, payload| {
            let is_kept = member.is_unheard(*serial);
            if !is_kept {
                let apart = match &payload.place {
                    Carriage::Apart(bulk) => Some(bulk),
                    Carriage::Here(_) => None,
                };
                for bulk in apart.into_iter().chain(&payload.made) {
                    store.withdraw(bulk);
                }
                if let (Some(files), Some(index)) = (&files, payload.index) {
                    files.remove(index);
                }
            }
            is_kept
        });
    }

    fn do_all(&mut self, deeds: Vec<Deed>, payload: Vec<u8>, now: Duration) -> Answer {
        let mut answer = Answer::default();
        let mut payload = Some(payload);
        for deed in deeds {
            match deed {
                Deed::Send(up) => answer.letters.push(self.letter(up)),
                Deed::Run(lease) => {
                    let more = self.take(lease, payload.take().unwrap_or_default());
                    answer.letters.extend(more.letters);
                    answer.fetch.extend(more.fetch);
                    answer.cannot = answer.cannot.or(more.cannot);
                }
                Deed::Recall { lease, from, kill } => {
                    let more = self.recall(Recall {
                        epoch: 0,
                        lease,
                        from,
                        kill,
                    });
                    answer.letters.extend(more);
                }
                Deed::EndAll => answer.letters.extend(self.end_all(now)),
                Deed::Pause(true) => self.pool.pause(),
                Deed::Pause(false) => self.pool.resume(),
                Deed::Refused(why) => answer.refused = Some(why),
            }
        }
        answer
    }

    fn letter(&self, up: Up) -> Letter {
        let payload = match &up {
            Up::Report(report) => {
                let known = self.payloads.get(&report.serial);
                match known.map(|payload| &payload.place) {
                    Some(Carriage::Here(bytes)) => bytes.clone(),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        Letter { up, payload }
    }

    // ---- Leases ----------------------------------------------------------------------------

    /// A lease may be run: begins to, if all that it needs is here.
    fn take(&mut self, lease: Lease, payload: Vec<u8>) -> Answer {
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
            fetch: missing.iter().map(|bulk| (*bulk, None)).collect(),
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
        answer.letters = self.start_ready().letters;
        answer
    }

    /// Places for the files of a lease that are not here yet.
    fn places_for(&mut self, lease: &Lease) -> Result<Vec<(Bulk, Option<NamedTempFile>)>, String> {
        if lease.files.is_empty() {
            return Ok(Vec::new());
        }
        let files = self
            .files
            .as_mut()
            .ok_or("files go along with calls, and the run has not said so")?;
        let missing = files.need(&lease.files).into_iter();
        let places = missing.map(|bulk| Ok((bulk, Some(files.place()?))));
        places
            .collect::<io::Result<_>>()
            .map_err(|error| format!("the files of calls can't be kept here: {error}"))
    }

    /// Something has come that leases may have waited for. Without it this machine can't serve the run.
    pub(super) fn arrived(&mut self, bulk: Bulk, come: Result<Fetched, String>) -> Answer {
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

    fn keep(&mut self, bulk: Bulk, fetched: Fetched) -> Result<(), String> {
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
            if awaited.lease.inputs == Carried::Apart(bulk) {
                awaited.inputs = Some(bytes.clone());
            }
            let values = awaited.lease.shared.iter();
            for value in values.filter(|value| value.bulk == bulk) {
                if self.values.iter().all(|(known, _)| known.id != value.id) {
                    let kept = Kept::copy_of(value.id, &bytes);
                    self.values
                        .push((*value, kept.map_err(|error| error.to_string())?));
                }
            }
        }
        Ok(())
    }

    /// Begins what has waited, and waits for nothing any more.
    fn start_ready(&mut self) -> Answer {
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
    fn lay_out(&mut self, awaited: Box<Awaited>) -> Result<(), String> {
        let files = self.files.as_ref().ok_or("there is no place for files")?;
        let plan = files.plan(&awaited.lease.files);
        let (files, to) = (awaited.lease.files.clone(), self.to.clone());
        let (epoch, lease) = (self.member.epoch(), awaited.lease.number);
        let body = move || {
            let done = plan.carry_out(&files);
            // Nobody hears it if the agent has ended.
            let _ = to.send(Event::LaidOut { epoch, lease, done });
        };
        let spawned = thread::Builder::new().name("files".to_owned()).spawn(body);
        spawned.map_err(|error| format!("a thread could not be started: {error}"))?;
        self.leases.insert(lease, Under::LayingOut(awaited));
        Ok(())
    }

    /// The files of a lease's calls are in their places, or can't be put there.
    pub(super) fn laid_out(&mut self, epoch: u64, lease: u64, done: io::Result<()>) -> Answer {
        let mut answer = Answer::default();
        if epoch != self.member.epoch() {
            return answer;
        }
        if let Some(Under::LayingOut(awaited)) = self.leases.remove(&lease) {
            let begun = done
                .map_err(|error| error.to_string())
                .and_then(|()| self.start(*awaited));
            answer.cannot = begun.err();
        }
        answer
    }

    fn start(&mut self, awaited: Awaited) -> Result<(), String> {
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
            task: lease.task,
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
        };
        self.leases.insert(lease.number, under);
        Ok(())
    }

    /// Forgets the oldest of the values that no lease refers to, if they are too large together.
    fn forget_values(&mut self) {
        let mut all: u64 = self.values.iter().map(|(value, _)| value.bulk.len).sum();
        while all > KEPT && self.values.len() > 1 && self.leases.is_empty() {
            all -= self.values.remove(0).0.bulk.len;
        }
    }

    /// Calls are wanted back.
    fn recall(&mut self, recall: Recall) -> Vec<Letter> {
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
            // None of it has begun, so all of it goes back.
            Some(Under::Waiting(awaited) | Under::LayingOut(awaited)) => {
                let first = awaited.lease.first;
                let calls = first..first.saturating_add(awaited.lease.lens.count());
                self.leases.remove(&recall.lease);
                let deed = self.member.returned(recall.lease, calls);
                deed.into_iter()
                    .filter_map(|deed| self.sent(deed))
                    .collect()
            }
            None => Vec::new(),
        }
    }

    fn sent(&self, deed: Deed) -> Option<Letter> {
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
    fn recall_here(&mut self, recall: Recall) -> Vec<Letter> {
        let was_killed = self.is_killed(recall.lease);
        let letters = self.recall(recall);
        if let Some(Under::Running { is_killed, .. }) = self.leases.get_mut(&recall.lease) {
            *is_killed = was_killed;
        }
        letters
    }

    fn is_killed(&self, lease: u64) -> bool {
        matches!(
            self.leases.get(&lease),
            Some(Under::Running {
                is_killed: true,
                ..
            })
        )
    }

    /// Ends all calls. When all are dead, a new life begins.
    fn end_all(&mut self, now: Duration) -> Vec<Letter> {
        self.is_ending = true;
        self.leases.retain(|_, under| match under {
            Under::Running { map, .. } => {
                map.take_back(0, true);
                true
            }
            Under::Waiting(_) | Under::LayingOut(_) => false,
        });
        // What is stopped hears no SIGTERM.
        self.pool.resume();
        self.look_whether_dead(now)
    }

    fn look_whether_dead(&mut self, now: Duration) -> Vec<Letter> {
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

    // ---- Calls -----------------------------------------------------------------------------

    /// Something became of calls.
    pub(super) fn news(&mut self, news: News) -> Vec<Letter> {
        if news.epoch != self.member.epoch() {
            return Vec::new();
        }
        let mut what = news.what;
        // What this machine has ended is no outcome of the call.
        if let What::Ended {
            index,
            ending: Ending::Cancelled,
            ..
        } = what
            && !self.is_killed(news.lease)
        {
            what = What::Returned(vec![(index, index + 1)]);
        }
        let content = match what {
            What::Returned(_) => Box::new(Vec::new()),
            _ => news.payload,
        };
        let kept = match fits(content.len()) {
            true => content
                .read(0, usize::try_from(content.len()).unwrap_or(0))
                .map(|bytes| (Carried::Here, Carriage::Here(bytes))),
            false => self
                .store
                .offer(Arc::from(content))
                .map(|bulk| (Carried::Apart(bulk), Carriage::Apart(bulk))),
        };
        let (carried, place) = kept.unwrap_or_else(|error| {
            let why = format!("what it has returned and printed can't be read any more: {error}");
            what = unreadable(
                std::mem::replace(&mut what, What::Returned(Vec::new())),
                why,
            );
            (Carried::Here, Carriage::Here(Vec::new()))
        });
        let index = match what {
            What::Ended { index, .. } => Some(index),
            _ => None,
        };
        let made: Vec<Bulk> = news.made.iter().map(|(bulk, _)| *bulk).collect();
        let told = Told {
            payload: carried,
            files: made.clone(),
        };
        // It is kept before it is told, because it may have to be sent at once.
        let serial = self.member.last_serial() + 1;
        let deed = self.member.ended(news.lease, news.calls, what, told);
        if self.member.is_unheard(serial) {
            for (bulk, file) in news.made {
                self.store.offer_as(bulk, file);
            }
            self.payloads.insert(serial, Payload { place, made, index });
        }
        deed.into_iter()
            .filter_map(|deed| self.sent(deed))
            .collect()
    }

    /// All calls of a lease have ended, or came back.
    pub(super) fn over(&mut self, epoch: u64, lease: u64, now: Duration) -> Vec<Letter> {
        if epoch == self.member.epoch()
            && let Some(Under::Running { files, .. }) = self.leases.remove(&lease)
        {
            self.forget_files(&files);
        }
        self.idle_since = Instant::now();
        self.look_whether_dead(now)
    }
}

impl Serving {
    /// A lease is over: its files are not needed any more, but for those of reports that were not heard.
    fn forget_files(&mut self, files: &[Files]) {
        let Some(known) = &mut self.files else {
            return;
        };
        known.forget(files);
        let told: BTreeSet<u64> = self
            .payloads
            .values()
            .filter_map(|payload| payload.index)
            .collect();
        let left = files.iter().filter(|files| !told.contains(&files.index));
        left.for_each(|files| known.remove(files.index));
    }
}

/// A call whose output is lost.
fn unreadable(what: What, why: String) -> What {
    match what {
        What::Ended {
            index,
            nanos,
            slot,
            worker,
            ..
        } => What::Ended {
            index,
            ending: Ending::Undecodable(why),
            nanos,
            slot,
            worker,
            stdout: 0,
            stderr: 0,
            note: None,
        },
        other => other,
    }
}
