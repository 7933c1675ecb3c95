//! What this side is asking of one peer.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use protocol::agent::{Bulk, PIECE, Want};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::store::{length, pieces};

/// How many pieces of one bulk are asked for at once.
pub(super) const AT_ONCE: u64 = 4;
/// How many pieces are under way from one peer.
pub(super) const OF_ONE: usize = 8;
/// How long a piece may take before it is asked for again, and how long all that is under way from a peer should take.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often the patience is doubled for a piece that does not come.
const MOST_DOUBLED: u32 = 4;
/// What is larger goes into a file without a name.
const IN_MEMORY: u64 = 4 << 20;

/// A point in time, by any clock.
pub(super) type Time = Duration;

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

/// A piece that was asked for.
struct Asked {
    first: Time,
    last: Time,
    /// How often it was asked for again.
    again: u32,
}

/// What is asked of one peer.
#[derive(Default)]
pub(super) struct Peer {
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
    /// Begins to fetch something, unless that is under way.
    pub(super) fn begin(&mut self, bulk: Bulk, target: Target) {
        if self.fetches.contains_key(&bulk) {
            return;
        }
        let fetch = Fetch {
            next: 0,
            early: BTreeMap::new(),
            done: 0,
            hasher: Sha256::new(),
            target: Some(target),
            so_far: None,
        };
        self.fetches.insert(bulk, fetch);
        self.queue.push_back(bulk);
    }

    /// Only some of it is still wanted.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Bulk) -> bool) {
        self.fetches.retain(|bulk, _| is_wanted(bulk));
        let fetches = &self.fetches;
        self.asked.retain(|(bulk, _), _| fetches.contains_key(bulk));
        self.queue.retain(|bulk| fetches.contains_key(bulk));
    }

    /// How many pieces are under way. Nobody waits for those of a peer that does not answer.
    pub(super) fn under_way(&self) -> usize {
        match self.is_silent {
            true => 0,
            false => self.asked.len(),
        }
    }

    pub(super) fn arrived(&mut self, want: Want, bytes: &[u8], now: Time) -> Progress {
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

    pub(super) fn has_room(&self) -> bool {
        !self.queue.is_empty() && self.asked.len() < self.most()
    }

    pub(super) fn ask(&mut self, room: usize, now: Time) -> Vec<Want> {
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
    pub(super) fn overdue(&mut self, now: Time) -> Vec<Want> {
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

    /// It does not have something any more. Returns whether that was being fetched.
    pub(super) fn gone(&mut self, bulk: &Bulk) -> bool {
        self.forget(bulk).is_some()
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
    target: Option<Target>,
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
        if let Some(target) = self.target.take() {
            self.so_far = Some(target.open(bulk)?);
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
