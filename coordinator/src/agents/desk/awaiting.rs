//! What belongs to reports and is large: it is fetched from the agent that has told of it. And what agents fetch from here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use protocol::agent::{Bulk, Down, Ending, Report, Want, What};

use super::Desk;
use crate::agents::awaited::Awaited;
use crate::agents::bulk::{Fetched, Progress};
use crate::os::boot_time;
use crate::scheduler::LeaseId;

/// How many reports of one agent may wait for what belongs to them, and with how much payload that has come with them. One that
/// finds no room comes again.
const MOST_WAITING: usize = 256;
const MOST_PAYLOAD: usize = 16 << 20;

impl Desk {
    /// Hears a report when all that belongs to it is here.
    pub(super) fn await_report(&mut self, from: &str, report: Report, payload: &[u8]) {
        let waiting = self.waiting.entry(from.to_owned()).or_default();
        if waiting.iter().any(|known| known.is(&report)) {
            return;
        }
        let size: usize = waiting.iter().map(Awaited::size).sum();
        let is_full = waiting.len() >= MOST_WAITING || size >= MOST_PAYLOAD;
        let places = self.places_of(&report);
        if places.len() != report.files.len() {
            return self.turn_away(from, "it has not sent the files that were wanted");
        }
        let awaited = Awaited::new(report, payload, places);
        if is_full && !awaited.is_complete() {
            return;
        }
        let missing: Vec<Bulk> = awaited.missing().collect();
        self.waiting
            .entry(from.to_owned())
            .or_default()
            .push(awaited);
        for bulk in missing {
            self.fetch(from, bulk);
        }
        self.hear_complete(from);
        self.ask_due();
    }

    /// Where the files of a report go.
    fn places_of(&self, report: &Report) -> Vec<PathBuf> {
        let What::Ended {
            index,
            ending: Ending::Value,
            ..
        } = report.what
        else {
            return Vec::new();
        };
        let out = self.out.get(&LeaseId(report.lease));
        let files = out.and_then(|out| out.files.iter().find(|files| files.index == index));
        let names = files.into_iter().flat_map(|files| &files.fetch);
        names
            .map(|name| self.wanted.directory.join(OsStr::from_bytes(name)))
            .collect()
    }

    /// Begins to fetch something for the first report of an agent that waits for it.
    fn fetch(&mut self, from: &str, bulk: Bulk) {
        let mut waiting = self.waiting.get_mut(from).into_iter().flatten();
        let Some(awaited) = waiting.find(|awaited| awaited.misses(&bulk)) else {
            return;
        };
        match awaited.place_for(&bulk) {
            Ok(place) => self.fetching.begin(bulk, from, place),
            Err(why) => awaited.arrived(bulk, Err(why)),
        }
    }

    /// Hears the reports of an agent to which nothing is missing.
    fn hear_complete(&mut self, from: &str) {
        loop {
            let Some(waiting) = self.waiting.get_mut(from) else {
                return;
            };
            let Some(at) = waiting.iter().position(Awaited::is_complete) else {
                return self.forget_stale(from);
            };
            let awaited = waiting.remove(at);
            let counts = self.counts(from, &awaited.report);
            let (report, payload) = awaited.finish(counts);
            self.hear_report(from, report, payload);
        }
    }

    /// Whether the outcome that a report tells of will be one.
    fn counts(&self, from: &str, report: &Report) -> bool {
        let lease = LeaseId(report.lease);
        self.fleet.expects(from, report)
            && match report.what {
                What::Ended { index, .. } => self.ledger.holds(lease, index),
                _ => true,
            }
    }

    /// Reports that will not count any more wait for nothing: their agent is lost, has begun another life, or does not hold their
    /// lease any more. Nothing is asked for that none of the others waits for.
    fn forget_stale(&mut self, from: &str) {
        let Some(waiting) = self.waiting.get_mut(from) else {
            return;
        };
        waiting.retain(|awaited| self.fleet.expects(from, &awaited.report));
        let misses = |bulk: &Bulk| waiting.iter().any(|awaited| awaited.misses(bulk));
        self.fetching.retain(from, misses);
        if waiting.is_empty() {
            self.waiting.remove(from);
        }
    }

    /// The same for all agents.
    pub(super) fn forget_all_stale(&mut self) {
        let names: Vec<String> = self.waiting.keys().cloned().collect();
        names.iter().for_each(|name| self.forget_stale(name));
    }

    /// Nothing of an agent is waited for any more.
    pub(super) fn forget_awaited(&mut self, from: &str) {
        self.waiting.remove(from);
        self.fetching.forget(from);
    }

    /// Asks for what is to be asked for now.
    pub(super) fn ask_due(&mut self) {
        for (to, want) in self.fetching.due(boot_time()) {
            self.send(&to, &Down::Want(want), &[]);
        }
    }

    /// An agent wants a piece of something. If nobody can have it any more, it is told so: a file may have changed meanwhile.
    pub(super) fn give_piece(&mut self, to: &str, want: Want) {
        let bulk = want.bulk;
        match self.store.piece(&want) {
            Ok(piece) => self.send(to, &Down::Piece(want), &piece),
            Err(why) => self.send(to, &Down::Gone { bulk, why }, &[]),
        }
    }

    pub(super) fn take_piece(&mut self, from: &str, want: Want, bytes: &[u8]) {
        let bulk = want.bulk;
        match self.fetching.arrived(from, want, bytes, boot_time()) {
            Progress::More => {}
            Progress::Failed(why) | Progress::Gone(why) => self.has_come(from, bulk, Err(why)),
            Progress::Whole(fetched) => self.has_come(from, bulk, Ok(fetched)),
        }
        self.ask_due();
    }

    /// An agent does not have something any more that it has told of.
    pub(super) fn is_gone(&mut self, from: &str, bulk: Bulk, why: String) {
        if self.fetching.gone(from, &bulk) {
            self.has_come(from, bulk, Err(why));
            self.ask_due();
        }
    }

    fn has_come(&mut self, from: &str, bulk: Bulk, come: Result<Fetched, String>) {
        let mut waiting = self.waiting.get_mut(from).into_iter().flatten();
        if let Some(awaited) = waiting.find(|awaited| awaited.misses(&bulk)) {
            awaited.arrived(bulk, come);
        }
        // Whichever else waits for the same has to fetch it anew, because it is given away.
        self.fetch(from, bulk);
        self.hear_complete(from);
    }
}
