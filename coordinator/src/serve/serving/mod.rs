//! A run that this agent serves: its pool, the leases that it has, and what it has told and was not heard yet.

mod leases;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use protocol::agent::{
    All, Bulk, Carried, Down, Ending, Files, Lease, Named, Open, Recall, SharedValue, Up, Want,
    What,
};
use worker::private::Kept;

use crate::agents::bulk::{Store, Target};
use crate::agents::carriage::fits;
use crate::agents::member::{Deed, Member, Told};
use crate::pool::{EncodedMap, Pool};
use crate::serve::event::{Event, News};
use crate::serve::files::{Laying, RunFiles};

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
    /// The files of its calls are put in their places, on a thread. Until that has ended nobody else may get its calls: they would
    /// find their files replaced, or gone, while they run.
    LayingOut {
        awaited: Box<Awaited>,
        laying: Laying,
        /// It goes back, or its life ends.
        is_unwanted: bool,
    },
    Running {
        map: EncodedMap,
        /// The index of its first call in the map of the coordinator.
        first: u64,
        /// The coordinator wants what runs to be ended.
        is_killed: bool,
        files: Vec<Files>,
        /// The values that its inputs refer to.
        shared: Vec<SharedValue>,
    },
}

impl Under {
    /// The files of its calls.
    fn files(&self) -> &[Files] {
        match self {
            Under::Waiting(awaited) | Under::LayingOut { awaited, .. } => &awaited.lease.files,
            Under::Running { files, .. } => files,
        }
    }

    /// The values that the inputs of its calls refer to.
    fn shared(&self) -> &[SharedValue] {
        match self {
            Under::Waiting(awaited) | Under::LayingOut { awaited, .. } => &awaited.lease.shared,
            Under::Running { shared, .. } => shared,
        }
    }
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
    /// Its agent goes: what is not begun goes back, and so do leases that come now.
    is_leaving: bool,
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
    /// Fetch these.
    pub(super) fetch: Vec<(Bulk, Target)>,
    /// This machine can't serve the run: why.
    pub(super) cannot: Option<String>,
    /// The coordinator will have nothing to do with this agent.
    pub(super) refused: Option<String>,
}

impl Answer {
    /// Adds what became of something else.
    fn add(&mut self, more: Answer) {
        self.letters.extend(more.letters);
        self.fetch.extend(more.fetch);
        self.cannot = self.cannot.take().or(more.cannot);
        self.refused = self.refused.take().or(more.refused);
    }
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
            is_leaving: false,
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

    /// This agent goes: it gives back what has not begun, and with `kill` ends what runs. That it takes nothing more is said first,
    /// or what it gives back would be sent again.
    pub(super) fn leaves(&mut self, kill: bool, now: Duration) -> Vec<Letter> {
        self.is_leaving = true;
        self.member.takes_none(true);
        let beat = match self.member.is_working() {
            true => self.sent(self.member.beat(now, self.running())),
            false => None,
        };
        let letters = self.take_back_all(kill);
        beat.into_iter().chain(letters).collect()
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
            All::Pause { patience, turns } => {
                self.member.pause(Duration::from_nanos(patience), turns)
            }
            All::Resume { turns } => self.member.resume(turns),
            All::End => None,
        };
        self.do_all(deed.into_iter().collect(), Vec::new(), now)
    }

    fn give_piece(&self, want: Want) -> Answer {
        let letter = match self.store.piece(&want) {
            Ok(payload) => Letter {
                up: Up::Piece(want),
                payload,
            },
            Err(why) => Letter {
                up: Up::Gone {
                    epoch: self.member.epoch(),
                    bulk: want.bulk,
                    why,
                },
                payload: Vec::new(),
            },
        };
        Answer {
            letters: vec![letter],
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
            leases,
            ..
        } = self;
        let mut held = None;
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
                if let (Some(files), Some(index)) = (&files, payload.index)
                    && !held
                        .get_or_insert_with(|| leases::with_files(leases))
                        .contains(&index)
                {
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
                // It was sent before its coordinator heard that this agent goes.
                Deed::Run(lease) if self.is_leaving => {
                    answer.letters.extend(self.refuse(&lease));
                }
                Deed::Run(lease) => {
                    answer.add(self.take(lease, payload.take().unwrap_or_default()));
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

    // ---- Calls -----------------------------------------------------------------------------

    /// Something became of calls.
    pub(super) fn news(&mut self, news: News) -> Vec<Letter> {
        if news.epoch != self.member.epoch() {
            return Vec::new();
        }
        let (mut what, mut files) = (news.what, news.made);
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
            // A call without an output has not succeeded.
            files.clear();
            (Carried::Here, Carriage::Here(Vec::new()))
        });
        let index = match what {
            What::Ended { index, .. } => Some(index),
            _ => None,
        };
        let made: Vec<Bulk> = files.iter().map(|(bulk, _)| *bulk).collect();
        let told = Told {
            bytes: match &place {
                Carriage::Here(bytes) => bytes.len(),
                Carriage::Apart(_) => 0,
            },
            payload: carried,
            files: made.clone(),
        };
        // It is kept before it is told, because it may have to be sent at once.
        let serial = self.member.last_serial() + 1;
        let deed = self.member.ended(news.lease, news.calls, what, told);
        if self.member.is_unheard(serial) {
            for (bulk, file) in files {
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
