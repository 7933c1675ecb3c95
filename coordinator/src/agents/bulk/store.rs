//! What this side can be asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::agent::{Bulk, PIECE, Want};
use sha2::{Digest as _, Sha256};

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

pub(super) fn length(left: u64) -> usize {
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

    /// The piece that is wanted. An error says why nobody can have it.
    pub(crate) fn piece(&self, want: &Want) -> Result<Vec<u8>, String> {
        let content = self.0.get(&want.bulk).map(|(_, content)| content);
        let content = content.ok_or("nobody offers it any more")?;
        let at = want.piece.checked_mul(PIECE);
        let left = at.and_then(|at| Some((at, want.bulk.len.checked_sub(at)?)));
        let is_there = want.piece < pieces(want.bulk);
        let (at, left) = left.filter(|_| is_there).ok_or("it has no such piece")?;
        let read = content.read(at, length(left));
        read.map_err(|error| format!("it can't be read any more: {error}"))
    }
}

/// How many pieces a bulk has: an empty one, too, has to be asked for.
pub(super) fn pieces(bulk: Bulk) -> u64 {
    bulk.len.div_ceil(PIECE).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn what_is_offered_twice_is_withdrawn_twice() {
        let mut store = Store::default();
        let bulk = store.offer(Arc::new(b"x".to_vec())).unwrap();
        store.offer(Arc::new(b"x".to_vec())).unwrap();
        let want = Want { bulk, piece: 0 };
        store.withdraw(&bulk);
        assert_eq!(store.piece(&want).unwrap(), b"x");
        let beyond = Want { bulk, piece: 1 };
        assert!(store.piece(&beyond).is_err());
        store.withdraw(&bulk);
        assert!(store.piece(&want).is_err());
    }
}
