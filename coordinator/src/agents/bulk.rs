//! Large things in pieces: what this side can be asked for, and what it is asking for.
//!
//! A bulk is named by its content. Whoever wants it asks for a few pieces at a time, and for each again if it does not come;
//! so what is large is taken as fast as it is read, and goes on where a cut ended it. It is checked when it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use protocol::agent::{Bulk, PIECE, Want};
use sha2::{Digest as _, Sha256};

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
        self.0.entry(bulk).or_insert((0, content)).0 += 1;
        Ok(bulk)
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
        let left = want.bulk.len.checked_sub(at).filter(|left| *left > 0)?;
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
    /// Begins to fetch something from somebody, unless that is under way. Ask for these pieces.
    pub(crate) fn begin(&mut self, bulk: Bulk, from: &str, now: Time) -> io::Result<Vec<Want>> {
        if self.0.contains_key(&bulk) {
            return Ok(Vec::new());
        }
        let so_far = match bulk.len {
            0..=IN_MEMORY => Fetched::Memory(Vec::new()),
            _ => Fetched::File(tempfile::tempfile()?, 0),
        };
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
        Ok(wants)
    }

    /// A piece has come.
    pub(crate) fn arrived(&mut self, want: Want, bytes: Vec<u8>, now: Time) -> Progress {
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
        fetch.early.insert(want.piece, bytes);
        while let Some(bytes) = fetch.early.remove(&fetch.done) {
            if let Err(error) = fetch.take(&bytes) {
                self.0.remove(&bulk);
                return Progress::Failed(format!("it can't be kept: {error}"));
            }
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
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.done += 1;
        match &mut self.so_far {
            Fetched::Memory(all) => all.extend_from_slice(bytes),
            Fetched::File(file, len) => {
                file.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
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
    bulk.len.div_ceil(PIECE)
}
