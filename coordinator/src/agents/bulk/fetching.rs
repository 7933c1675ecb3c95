//! What this side is asking for, and of whom.
//!
//! Each peer is asked for by itself: that another has the same content helps nobody when this one is lost. A few pieces are under
//! way from each, and fewer where they come slowly, so that what is urgent finds the way free; and a limited number from all
//! together, because the broker cuts off whoever does not read fast enough.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use protocol::agent::{Bulk, PIECE, Want};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::store::{length, pieces};

/// How many pieces of one bulk are asked for at once.
const AT_ONCE: u64 = 4;
/// How many pieces are under way from one peer.
const OF_ONE: usize = 8;
/// How many pieces are under way from all: 16 MiB, where a broker holds 64 MiB for whoever is slow.
const OF_ALL: usize = 64;
/// How long a piece may take before it is asked for again, and how long all that is under way from a peer should take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the patience is doubled for a piece that does not come.
const MOST_DOUBLED: u32 = 4;
/// What is larger goes into a file without a name.
const IN_MEMORY: u64 = 4 << 20;

/// A point in time, by any clock.
type Time = Duration;

/// A bulk that has come.
#[derive(Debug)]
pub(crate) enum Fetched {
    Memory(Vec<u8>),
    /// In a file without a name, of this length.
    File(File, u64),
    /// In the file that it was to be put in.
    Named(NamedTempFile),
}

impl Fetched {
    /// All of it.
    pub(crate) fn into_bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Fetched::Memory(bytes) => Ok(bytes),
            Fetched::File(file, len) => {
                let mut bytes = Vec::new();
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                bytes.try_reserve_exact(len)?;
                bytes.resize(len, 0);
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes)
            }
            Fetched::Named(file) => {
                let len = file.as_file().metadata()?.len();
                Fetched::File(file.reopen()?, len).into_bytes()
            }
        }
    }
}

/// Where a bulk is to be put. No file is opened before something has come for it: thousands may be asked for.
pub(crate) enum Target {
    /// Into memory, which grows with what comes, whatever is said of its size.
    Memory,
    /// Into memory if it is small, and else into a file without a name.
    Anywhere,
    /// Into the file that this makes.
    Named(Box<dyn FnOnce() -> io::Result<NamedTempFile> + Send>),
}

impl Target {
    fn open(self, bulk: Bulk) -> io::Result<Fetched> {
        Ok(match self {
            Target::Anywhere if bulk.len > IN_MEMORY => Fetched::File(tempfile::tempfile()?, 0),
            Target::Memory | Target::Anywhere => Fetched::Memory(Vec::new()),
            Target::Named(make) => Fetched::Named(make()?),
        })
    }
}

/// What became of a piece.
pub(crate) enum Progress {
    /// It was not wanted, or more of its bulk has to come.
    More,
    Whole(Fetched),
    /// Whoever has offered it does not have it: what has come is not what was named.
    Gone(String),
    /// There is no room for it here.
    Failed(String),
}

/// What this side is asking for. Whenever that may have changed, and each second, [`due`](Self::due) says what to send.
#[derive(Default)]
pub(crate) struct Fetching {
    peers: BTreeMap<String, Peer>,
    /// Who was asked last: when few may be asked, the others come first.
    last: String,
}

impl Fetching {
    /// Begins to fetch something from somebody, unless that is under way.
    pub(crate) fn begin(&mut self, bulk: Bulk, from: &str, place: Target) {
        let peer = self.peers.entry(from.to_owned()).or_default();
        if peer.fetches.contains_key(&bulk) {
            return;
        }
        let fetch = Fetch {
            next: 0,
            early: BTreeMap::new(),
            done: 0,
            hasher: Sha256::new(),
            place: Some(place),
            so_far: None,
        };
        peer.fetches.insert(bulk, fetch);
        peer.queue.push_back(bulk);
    }

    /// A piece has come from somebody.
    pub(crate) fn arrived(&mut self, from: &str, want: Want, bytes: &[u8], now: Time) -> Progress {
        match self.peers.get_mut(from) {
            Some(peer) => peer.arrived(want, bytes, now),
            None => Progress::More,
        }
    }

    /// Somebody says that he does not have something any more. Returns whether it was being fetched from him.
    pub(crate) fn gone(&mut self, from: &str, bulk: &Bulk) -> bool {
        let peer = self.peers.get_mut(from);
        peer.is_some_and(|peer| peer.forget(bulk).is_some())
    }

    /// Only some of what is being fetched from somebody is still wanted.
    pub(crate) fn retain(&mut self, from: &str, is_wanted: impl Fn(&Bulk) -> bool) {
        let Some(peer) = self.peers.get_mut(from) else {
            return;
        };
        peer.fetches.retain(|bulk, _| is_wanted(bulk));
        let fetches = &peer.fetches;
        peer.asked.retain(|(bulk, _), _| fetches.contains_key(bulk));
        peer.queue.retain(|bulk| fetches.contains_key(bulk));
    }

    /// Nothing is wanted of somebody any more.
    pub(crate) fn forget(&mut self, from: &str) {
        self.peers.remove(from);
    }

    /// Pieces to ask for, and of whom: for the first time, or because they have not come in time.
    pub(crate) fn due(&mut self, now: Time) -> Vec<(String, Want)> {
        let mut due = Vec::new();
        for (name, peer) in &mut self.peers {
            let again = peer.overdue(now).into_iter();
            due.extend(again.map(|want| (name.clone(), want)));
        }
        let mut room = OF_ALL.saturating_sub(self.under_way());
        for _ in 0..self.peers.len() {
            let Some(name) = self.next_peer().filter(|_| room > 0) else {
                break;
            };
            if let Some(peer) = self.peers.get_mut(&name) {
                let wants = peer.ask(room, now);
                room -= wants.len();
                due.extend(wants.into_iter().map(|want| (name.clone(), want)));
            }
            self.last = name;
        }
        due
    }

    /// How many pieces are under way. Those of somebody who does not answer don't keep others waiting.
    fn under_way(&self) -> usize {
        let peers = self.peers.values().filter(|peer| !peer.is_silent);
        peers.map(|peer| peer.asked.len()).sum()
    }

    /// The next in turn who may be asked for more.
    fn next_peer(&self) -> Option<String> {
        let behind = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let behind = self.peers.range::<str, _>(behind);
        let mut in_turn = behind.chain(&self.peers);
        let (name, _) = in_turn.find(|(_, peer)| peer.has_room())?;
        Some(name.clone())
    }
}

/// A piece that was asked for.
struct Asked {
    first: Time,
    last: Time,
    /// How often it was asked for again.
    again: u32,
}

/// What is asked of one peer.
#[derive(Default)]
struct Peer {
    fetches: BTreeMap<Bulk, Fetch>,
    /// Those of which not all pieces were asked for. The oldest first.
    queue: VecDeque<Bulk>,
    asked: BTreeMap<(Bulk, u64), Asked>,
    /// How much time lies between two pieces, as it was seen lately.
    gap: Option<Duration>,
    /// When the last piece came.
    heard: Time,
    /// Nothing has come in time since it was asked.
    is_silent: bool,
}

impl Peer {
    fn arrived(&mut self, want: Want, bytes: &[u8], now: Time) -> Progress {
        let bulk = want.bulk;
        let Some(asked) = self.asked.remove(&(bulk, want.piece)) else {
            return Progress::More;
        };
        self.learn(&asked, now);
        let Some(fetch) = self.fetches.get_mut(&bulk) else {
            return Progress::More;
        };
        let left = bulk.len.saturating_sub(want.piece.saturating_mul(PIECE));
        if bytes.len() != length(left) {
            self.forget(&bulk);
            return Progress::Gone("a piece of it has the wrong length".to_owned());
        }
        if let Err(error) = fetch.take_in_order(bulk, want.piece, bytes) {
            self.forget(&bulk);
            return Progress::Failed(format!("it can't be kept: {error}"));
        }
        if fetch.done < pieces(bulk) {
            return Progress::More;
        }
        let Some(fetch) = self.forget(&bulk) else {
            return Progress::More;
        };
        match <[u8; 32]>::from(fetch.hasher.finalize()) == bulk.hash {
            true => Progress::Whole(fetch.so_far.unwrap_or(Fetched::Memory(Vec::new()))),
            false => Progress::Gone("it is not what it was said to be".to_owned()),
        }
    }

    /// A piece has come: how fast they come. One that had to be asked for again may have been on its way since the first time.
    fn learn(&mut self, asked: &Asked, now: Time) {
        let gap = now.saturating_sub(asked.first.max(self.heard));
        self.gap = Some(self.gap.map_or(gap, |known| (known * 3 + gap) / 4));
        self.heard = now;
        self.is_silent = false;
    }

    /// How many pieces may be under way: no more than come in time. Nobody knows that before the first has come.
    fn most(&self) -> usize {
        let in_time = |gap: Duration| PATIENCE.as_nanos() / gap.as_nanos().max(1);
        let most = self.gap.map_or(1, in_time);
        usize::try_from(most).unwrap_or(OF_ONE).clamp(1, OF_ONE)
    }

    fn has_room(&self) -> bool {
        !self.queue.is_empty() && self.asked.len() < self.most()
    }

    fn ask(&mut self, room: usize, now: Time) -> Vec<Want> {
        let room = room.min(self.most().saturating_sub(self.asked.len()));
        let mut wants = Vec::new();
        let mut at = 0;
        while let Some(bulk) = self.queue.get(at).copied().filter(|_| wants.len() < room) {
            let next = self.fetches.get_mut(&bulk);
            match next.map(|fetch| fetch.next_piece(bulk)) {
                Some(Next::Ask(piece)) => wants.push(Want { bulk, piece }),
                Some(Next::Wait) => at += 1,
                Some(Next::Nothing) | None => _ = self.queue.remove(at),
            }
        }
        for want in &wants {
            let asked = Asked {
                first: now,
                last: now,
                again: 0,
            };
            self.asked.insert((want.bulk, want.piece), asked);
        }
        wants
    }

    /// Pieces that have not come in time. Whatever is under way may be in front of one, and comes no faster for being asked for
    /// more often.
    fn overdue(&mut self, now: Time) -> Vec<Want> {
        let together = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
        let expected = self.gap.unwrap_or_default() * 2 * together;
        let patience = PATIENCE.max(expected);
        let mut again = Vec::new();
        for ((bulk, piece), asked) in &mut self.asked {
            let patience = patience * (1 << asked.again.min(MOST_DOUBLED));
            if now.saturating_sub(asked.last) >= patience {
                (asked.last, asked.again) = (now, asked.again + 1);
                self.is_silent = true;
                let (bulk, piece) = (*bulk, *piece);
                again.push(Want { bulk, piece });
            }
        }
        again
    }

    fn forget(&mut self, bulk: &Bulk) -> Option<Fetch> {
        let fetch = self.fetches.remove(bulk)?;
        self.asked.retain(|(of, _), _| of != bulk);
        self.queue.retain(|of| of != bulk);
        Some(fetch)
    }
}

/// A bulk that is being fetched.
struct Fetch {
    /// The next piece to ask for.
    next: u64,
    /// Pieces that have come before their turn.
    early: BTreeMap<u64, Vec<u8>>,
    /// How many pieces are there.
    done: u64,
    hasher: Sha256,
    /// Where it goes, before the first piece has come.
    place: Option<Target>,
    so_far: Option<Fetched>,
}

/// What to ask for next of a bulk.
enum Next {
    Ask(u64),
    /// Enough is under way.
    Wait,
    /// All was asked for.
    Nothing,
}

impl Fetch {
    fn next_piece(&mut self, bulk: Bulk) -> Next {
        if self.next >= pieces(bulk) {
            return Next::Nothing;
        }
        if self.next - self.done >= AT_ONCE {
            return Next::Wait;
        }
        self.next += 1;
        Next::Ask(self.next - 1)
    }

    /// Takes a piece, and those that have come before their turn and follow it.
    fn take_in_order(&mut self, bulk: Bulk, piece: u64, bytes: &[u8]) -> io::Result<()> {
        if piece != self.done {
            self.early.insert(piece, bytes.to_vec());
            return Ok(());
        }
        self.take(bulk, bytes)?;
        while let Some(bytes) = self.early.remove(&self.done) {
            self.take(bulk, &bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, bulk: Bulk, bytes: &[u8]) -> io::Result<()> {
        if let Some(place) = self.place.take() {
            self.so_far = Some(place.open(bulk)?);
        }
        self.hasher.update(bytes);
        self.done += 1;
        match &mut self.so_far {
            Some(Fetched::Memory(all)) => {
                all.try_reserve(bytes.len())?;
                all.extend_from_slice(bytes);
            }
            Some(Fetched::File(file, len)) => {
                file.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
            Some(Fetched::Named(file)) => file.write_all(bytes)?,
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::agents::bulk::Store;

    fn named() -> Target {
        Target::Named(Box::new(NamedTempFile::new))
    }

    /// Something of this length that nobody has.
    fn bulk(name: u8, pieces: u64) -> Bulk {
        Bulk {
            hash: [name; 32],
            len: pieces * PIECE,
        }
    }

    /// Fetches something where each third piece is lost, comes twice, or comes late.
    fn fetch(content: Vec<u8>, place: Target) -> Result<Fetched, String> {
        let mut store = Store::default();
        let bulk = store.offer(Arc::new(content)).unwrap();
        let mut fetching = Fetching::default();
        let mut now = Duration::ZERO;
        fetching.begin(bulk, "a", place);
        let mut turn = 0;
        loop {
            let mut wanted = fetching.due(now);
            // It is under way: nobody asks twice.
            fetching.begin(bulk, "a", Target::Memory);
            assert!(fetching.due(now).is_empty());
            let distinct: BTreeSet<u64> = wanted.iter().map(|(_, want)| want.piece).collect();
            assert!(distinct.len() as u64 <= AT_ONCE, "{distinct:?} at once");
            wanted.reverse();
            for (_, want) in wanted {
                turn += 1;
                let piece = store.piece(&want).unwrap();
                for _ in 0..turn % 3 {
                    match fetching.arrived("a", want, &piece, now) {
                        Progress::More => {}
                        Progress::Whole(fetched) => return Ok(fetched),
                        Progress::Gone(why) | Progress::Failed(why) => return Err(why),
                    }
                }
            }
            now += PATIENCE / 2;
        }
    }

    #[test]
    fn what_is_lost_doubled_or_late_comes_through() {
        let piece = PIECE as usize;
        for len in [0, 1, piece - 1, piece, piece + 1, 7 * piece + 5, 20 * piece] {
            let content: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
            for place in [Target::Memory, Target::Anywhere, named()] {
                let fetched = fetch(content.clone(), place).unwrap();
                assert!(fetched.into_bytes().unwrap() == content, "{len}");
            }
        }
    }

    #[test]
    fn what_is_not_what_was_named_is_refused() {
        let bulk = Bulk {
            hash: [7; 32],
            len: 3,
        };
        let want = Want { bulk, piece: 0 };
        for bytes in [&b"abc"[..], b"ab", b"abcd"] {
            let mut fetching = Fetching::default();
            fetching.begin(bulk, "a", Target::Anywhere);
            assert_eq!(fetching.due(Duration::ZERO).len(), 1);
            let progress = fetching.arrived("a", want, bytes, Duration::ZERO);
            assert!(matches!(progress, Progress::Gone(_)), "{bytes:?}");
        }
        // A piece that nobody asked for is nothing, nor is one of somebody who was not asked.
        let mut fetching = Fetching::default();
        fetching.begin(bulk, "a", Target::Anywhere);
        assert_eq!(fetching.due(Duration::ZERO).len(), 1);
        let other = Want { bulk, piece: 1 };
        for (from, want) in [("a", other), ("b", want)] {
            let progress = fetching.arrived(from, want, b"abc", Duration::ZERO);
            assert!(matches!(progress, Progress::More), "{from}");
        }
    }

    /// Two have the same: what was begun with one of them does not keep it from being asked for of the other.
    #[test]
    fn the_same_is_fetched_from_each_who_is_asked_for_it() {
        let mut fetching = Fetching::default();
        let bulk = bulk(1, 1);
        let now = Duration::ZERO;
        for from in ["a", "b"] {
            fetching.begin(bulk, from, Target::Memory);
            let want = Want { bulk, piece: 0 };
            assert_eq!(fetching.due(now), [(from.to_owned(), want)]);
        }
        // Who is forgotten is asked no more.
        fetching.forget("a");
        assert!(fetching.gone("b", &bulk) && !fetching.gone("b", &bulk));
        assert!(fetching.due(now + 10 * PATIENCE).is_empty());
    }

    #[test]
    fn so_many_pieces_are_under_way_and_no_more() {
        let mut fetching = Fetching::default();
        let mut now = Duration::ZERO;
        for peer in 0..20 {
            for name in 0..10 {
                fetching.begin(bulk(name, 100), &format!("{peer}"), Target::Memory);
            }
        }
        let mut under_way = fetching.due(now);
        assert_eq!(under_way.len(), 20, "one of each at first");
        let mut turns = BTreeMap::<String, u64>::new();
        let bytes = vec![0; PIECE as usize];
        for _ in 0..400 {
            now += Duration::from_millis(1);
            let (from, want) = under_way.remove(0);
            *turns.entry(from.clone()).or_default() += 1;
            let progress = fetching.arrived(&from, want, &bytes, now);
            assert!(matches!(progress, Progress::More));
            under_way.extend(fetching.due(now));
            assert!(under_way.len() <= OF_ALL);
            let of_one = under_way.iter().filter(|(name, _)| *name == from);
            assert!(of_one.count() <= OF_ONE);
        }
        assert_eq!(under_way.len(), OF_ALL);
        assert!(
            turns.len() == 20 && turns.values().all(|turns| *turns >= 10),
            "{turns:?}"
        );
    }

    /// Over a slow line nothing is asked for again that is only on its way, once it is known how slow the line is.
    #[test]
    fn a_slow_line_does_not_carry_the_same_again_and_again() {
        for takes in [Duration::from_secs(3), Duration::from_secs(30)] {
            let mut fetching = Fetching::default();
            let all = bulk(1, 40);
            fetching.begin(all, "a", Target::Memory);
            let mut line = VecDeque::new();
            let (mut now, mut free_at) = (Duration::ZERO, Duration::ZERO);
            let mut carried = 0;
            let bytes = vec![0; PIECE as usize];
            loop {
                for (_, want) in fetching.due(now) {
                    free_at = free_at.max(now) + takes;
                    line.push_back((free_at, want));
                }
                now += Duration::from_secs(1);
                let Some((_, want)) = line.pop_front_if(|(at, _)| *at <= now) else {
                    continue;
                };
                carried += 1;
                if let Progress::Gone(_) = fetching.arrived("a", want, &bytes, now) {
                    break;
                }
            }
            assert!(carried <= 44, "{takes:?}: {carried} pieces, of 40");
        }
    }

    #[test]
    fn nobody_who_is_silent_keeps_others_waiting() {
        let mut fetching = Fetching::default();
        for peer in 0..2 * OF_ALL {
            fetching.begin(bulk(1, 9), &format!("{peer}"), Target::Memory);
        }
        let now = Duration::ZERO;
        assert_eq!(fetching.due(now).len(), OF_ALL);
        assert_eq!(fetching.due(now + PATIENCE).len(), 2 * OF_ALL);
    }
}
