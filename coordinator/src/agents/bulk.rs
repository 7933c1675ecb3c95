//! Large things in pieces: what this side can be asked for, and what it is asking for.
//!
//! A bulk is named by its content. Whoever wants it asks for a few pieces at a time, and for each again if it does not come;
//! so what is large is taken as fast as it is read, and goes on where a cut ended it. It is checked when it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{Bulk, PIECE, Want};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// How many pieces are asked for at once.
const AT_ONCE: usize = 4;
/// How long a piece may take before it is asked for again.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is larger goes into a file without a name.
const IN_MEMORY: u64 = 4 << 20;

/// A point in time, by any clock.
type Time = Duration;

/// Something that can be read from any place on.
pub(crate) trait Content: Send + Sync {
    /// How long it is, in bytes.
    fn len(&self) -> u64;
    /// Some bytes of it, which it has.
    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>>;
}

impl Content for Vec<u8> {
    fn len(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = self.get(at..).and_then(|rest| rest.get(..len));
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A file by its path: it is opened for each piece, because there may be many.
pub(crate) struct AtPath {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

impl Content for AtPath {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        Content::read(&File::open(&self.path)?, at, len)
    }
}

impl Content for File {
    fn len(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

/// What a content is called.
pub(crate) fn name_of(content: &dyn Content) -> io::Result<Bulk> {
    let len = content.len();
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < len {
        let bytes = content.read(at, length(len - at))?;
        hasher.update(&bytes);
        at += bytes.len() as u64;
    }
    Ok(Bulk {
        hash: hasher.finalize().into(),
        len,
    })
}

fn length(left: u64) -> usize {
    // A piece fits into memory.
    left.min(PIECE) as usize
}

/// What this side can be asked for.
#[derive(Default)]
pub(crate) struct Store(BTreeMap<Bulk, (u32, Arc<dyn Content>)>);

impl Store {
    /// Offers a content until it is withdrawn as often.
    pub(crate) fn offer(&mut self, content: Arc<dyn Content>) -> io::Result<Bulk> {
        let bulk = name_of(&*content)?;
        self.offer_as(bulk, content);
        Ok(bulk)
    }

    /// The same, where it is known what the content is called.
    pub(crate) fn offer_as(&mut self, bulk: Bulk, content: Arc<dyn Content>) {
        self.0.entry(bulk).or_insert((0, content)).0 += 1;
    }

    pub(crate) fn withdraw(&mut self, bulk: &Bulk) {
        if let Some((count, _)) = self.0.get_mut(bulk) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(bulk);
            }
        }
    }

    /// The piece that is wanted; `None` if nobody could have it.
    pub(crate) fn piece(&self, want: &Want) -> Option<Vec<u8>> {
        let (_, content) = self.0.get(&want.bulk)?;
        let at = want.piece.checked_mul(PIECE)?;
        let left = want.bulk.len.checked_sub(at)?;
        if want.piece >= pieces(want.bulk) {
            return None;
        }
        let read = content.read(at, length(left));
        read.inspect_err(|error| log::warn!("something large can't be read any more: {error}"))
            .ok()
    }
}

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

struct Fetch {
    from: String,
    /// The next piece to ask for.
    next: u64,
    asked: BTreeMap<u64, Time>,
    /// Pieces that have come before their turn.
    early: BTreeMap<u64, Vec<u8>>,
    /// How many pieces are there.
    done: u64,
    hasher: Sha256,
    so_far: Fetched,
}

/// What became of a piece.
pub(crate) enum Progress {
    /// It was not wanted, or more of its bulk has to come: ask for these.
    More(Vec<Want>),
    Whole(Fetched),
    /// What has come is not what was named, or there is no room for it.
    Failed(String),
}

/// What this side is asking for.
#[derive(Default)]
pub(crate) struct Fetching(BTreeMap<Bulk, Fetch>);

impl Fetching {
    /// Begins to fetch something from somebody, unless that is under way. Ask for these pieces. What is large is kept in a file.
    pub(crate) fn begin(&mut self, bulk: Bulk, from: &str, now: Time) -> io::Result<Vec<Want>> {
        let so_far = match bulk.len {
            0..=IN_MEMORY => Fetched::Memory(Vec::new()),
            _ => Fetched::File(tempfile::tempfile()?, 0),
        };
        Ok(self.begin_into(bulk, from, so_far, now))
    }

    /// The same, for what has to be in memory anyway. Its memory grows with what comes, whatever is said of its size.
    pub(crate) fn begin_in_memory(&mut self, bulk: Bulk, from: &str, now: Time) -> Vec<Want> {
        self.begin_into(bulk, from, Fetched::Memory(Vec::new()), now)
    }

    /// The same, into a place.
    pub(crate) fn begin_into(
        &mut self,
        bulk: Bulk,
        from: &str,
        so_far: Fetched,
        now: Time,
    ) -> Vec<Want> {
        if self.0.contains_key(&bulk) {
            return Vec::new();
        }
        let mut fetch = Fetch {
            from: from.to_owned(),
            next: 0,
            asked: BTreeMap::new(),
            early: BTreeMap::new(),
            done: 0,
            hasher: Sha256::new(),
            so_far,
        };
        let wants = fetch.ask(bulk, now);
        self.0.insert(bulk, fetch);
        wants
    }

    /// A piece has come.
    pub(crate) fn arrived(&mut self, want: Want, bytes: &[u8], now: Time) -> Progress {
        let bulk = want.bulk;
        let Some(fetch) = self.0.get_mut(&bulk) else {
            return Progress::More(Vec::new());
        };
        let left = bulk.len.saturating_sub(want.piece.saturating_mul(PIECE));
        if fetch.asked.remove(&want.piece).is_none() {
            return Progress::More(Vec::new());
        }
        if bytes.len() != length(left) {
            self.0.remove(&bulk);
            return Progress::Failed("a piece of it has the wrong length".to_owned());
        }
        if let Err(error) = fetch.take_in_order(want.piece, bytes) {
            self.0.remove(&bulk);
            return Progress::Failed(format!("it can't be kept: {error}"));
        }
        if fetch.done < pieces(bulk) {
            return Progress::More(fetch.ask(bulk, now));
        }
        let Some(fetch) = self.0.remove(&bulk) else {
            return Progress::More(Vec::new());
        };
        match <[u8; 32]>::from(fetch.hasher.finalize()) == bulk.hash {
            true => Progress::Whole(fetch.so_far),
            false => Progress::Failed("it is not what it was said to be".to_owned()),
        }
    }

    /// Pieces that have not come in time, and whom to ask for them again.
    pub(crate) fn again(&mut self, now: Time) -> Vec<(String, Want)> {
        let mut again = Vec::new();
        for (bulk, fetch) in &mut self.0 {
            for (piece, asked) in &mut fetch.asked {
                if now.saturating_sub(*asked) >= PATIENCE {
                    *asked = now;
                    let (bulk, piece) = (*bulk, *piece);
                    again.push((fetch.from.clone(), Want { bulk, piece }));
                }
            }
        }
        again
    }
}

impl Fetch {
    /// Takes a piece, and those that have come before their turn and follow it.
    fn take_in_order(&mut self, piece: u64, bytes: &[u8]) -> io::Result<()> {
        if piece != self.done {
            self.early.insert(piece, bytes.to_vec());
            return Ok(());
        }
        self.take(bytes)?;
        while let Some(bytes) = self.early.remove(&self.done) {
            self.take(&bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.done += 1;
        match &mut self.so_far {
            Fetched::Memory(all) => all.extend_from_slice(bytes),
            Fetched::File(file, len) => {
                file.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
            Fetched::Named(file) => file.write_all(bytes)?,
        }
        Ok(())
    }

    fn ask(&mut self, bulk: Bulk, now: Time) -> Vec<Want> {
        let mut wants = Vec::new();
        while self.asked.len() + self.early.len() < AT_ONCE && self.next < pieces(bulk) {
            let piece = self.next;
            self.next += 1;
            self.asked.insert(piece, now);
            wants.push(Want { bulk, piece });
        }
        wants
    }
}

/// How many pieces a bulk has: an empty one, too, has to be asked for.
fn pieces(bulk: Bulk) -> u64 {
    bulk.len.div_ceil(PIECE).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::collections::BTreeSet;

    use super::*;

    /// Fetches something where each third piece is lost, comes twice, or comes late.
    fn fetch(content: Vec<u8>, into_file: bool) -> Result<Fetched, String> {
        let mut store = Store::default();
        let bulk = store.offer(Arc::new(content)).unwrap();
        let mut fetching = Fetching::default();
        let mut now = Duration::ZERO;
        let mut wanted = match into_file {
            true => fetching.begin_into(
                bulk,
                "a",
                Fetched::Named(NamedTempFile::new().unwrap()),
                now,
            ),
            false => fetching.begin(bulk, "a", now).unwrap(),
        };
        // It is under way: nobody asks twice.
        assert!(fetching.begin(bulk, "a", now).unwrap().is_empty());
        let mut turn = 0;
        loop {
            let distinct: BTreeSet<u64> = wanted.iter().map(|want| want.piece).collect();
            assert!(distinct.len() <= AT_ONCE, "{distinct:?} at once");
            wanted.reverse();
            for want in std::mem::take(&mut wanted) {
                turn += 1;
                let piece = store.piece(&want).unwrap();
                for _ in 0..turn % 3 {
                    match fetching.arrived(want, &piece, now) {
                        Progress::More(more) => wanted.extend(more),
                        Progress::Whole(fetched) => return Ok(fetched),
                        Progress::Failed(why) => return Err(why),
                    }
                }
            }
            now += PATIENCE;
            wanted.extend(fetching.again(now).into_iter().map(|(_, want)| want));
        }
    }

    #[test]
    fn what_is_lost_doubled_or_late_comes_through() {
        let piece = PIECE as usize;
        for len in [0, 1, piece - 1, piece, piece + 1, 7 * piece + 5, 20 * piece] {
            let content: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
            for into_file in [false, true] {
                let fetched = fetch(content.clone(), into_file).unwrap();
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
        for bytes in [&b"abc"[..], b"ab", b"abcd"] {
            let mut fetching = Fetching::default();
            let wants = fetching.begin(bulk, "a", Duration::ZERO).unwrap();
            let progress = fetching.arrived(wants[0], bytes, Duration::ZERO);
            assert!(matches!(progress, Progress::Failed(_)), "{bytes:?}");
        }
        // A piece that nobody asked for is nothing.
        let mut fetching = Fetching::default();
        fetching.begin(bulk, "a", Duration::ZERO).unwrap();
        let want = Want { bulk, piece: 1 };
        let progress = fetching.arrived(want, &[], Duration::ZERO);
        assert!(matches!(progress, Progress::More(more) if more.is_empty()));
        let store = Store::default();
        assert!(store.piece(&want).is_none());
    }

    #[test]
    fn what_is_offered_twice_is_withdrawn_twice() {
        let mut store = Store::default();
        let bulk = store.offer(Arc::new(b"x".to_vec())).unwrap();
        store.offer(Arc::new(b"x".to_vec())).unwrap();
        let want = Want { bulk, piece: 0 };
        store.withdraw(&bulk);
        assert_eq!(store.piece(&want).unwrap(), b"x");
        store.withdraw(&bulk);
        assert!(store.piece(&want).is_none());
    }
}
