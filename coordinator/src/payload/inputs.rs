//! Encoded inputs on their way to the workers.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use protocol::board::InputSheet;
use protocol::board::{Board, Region};
use worker::private::Kept;

use crate::payload::{Files, buffers};
use crate::scheduler;

/// The encoded inputs of consecutive calls. Shared, because a call that is tried again needs its input
/// again.
#[derive(Debug, Clone)]
pub(crate) struct EncodedInputs(Arc<Chunk>);

/// How large the inputs of a chunk are, all together, before it is closed.
const CHUNK: usize = 64 << 10;

/// Inputs being gathered, one after another.
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u32>,
    /// A large input that follows them, and gets a chunk of its own.
    large: Option<Region>,
    /// The large piece of the last of them, in its bytes.
    last_piece: Range<usize>,
    /// The shared values that the inputs refer to.
    kept: Vec<Kept>,
    /// What goes along with its one input.
    files: Option<Box<Files>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.bytes));
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk {
            bytes: buffers::take(),
            ends: Vec::new(),
            large: None,
            last_piece: 0..0,
            kept: Vec::new(),
            files: None,
        }
    }
}

impl Chunk {
    /// Adds an input by encoding it, on the board if it is large. One that can't be encoded leaves nothing
    /// behind. The chunk must not be full.
    #[inline]
    pub(crate) fn add(
        &mut self,
        board: Option<&Arc<Board>>,
        encode: impl FnOnce(&mut InputSheet<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        debug_assert!(!self.is_full(), "it takes no more");
        let start = self.bytes.len();
        let mut sheet = InputSheet::new(&mut self.bytes, board);
        let encoded = encode(&mut sheet);
        if encoded.is_err() {
            sheet.clear();
        }
        let piece = sheet.piece();
        let large = sheet.region();
        worker::private::take_kept(|kept| {
            // Neighbouring calls usually refer to the same values.
            if self.kept.last().is_none_or(|last| last.id() != kept.id()) {
                self.kept.push(kept);
            }
        });
        encoded?;
        if large.is_some() {
            self.large = large;
            return Ok(());
        }
        self.last_piece = piece;
        match u32::try_from(self.bytes.len()) {
            Ok(end) => self.ends.push(end),
            Err(_) => {
                self.bytes.truncate(start);
                return Err("the input is too large: it has more than 4 GiB".to_owned());
            }
        }
        Ok(())
    }

    /// These go along with the input, which is the only one.
    pub(crate) fn accompany(&mut self, files: Files) {
        self.files = (!files.is_empty()).then(|| Box::new(files));
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK || self.large.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.large.is_none()
    }

    /// What was gathered; the chunk is empty afterwards. A large input comes by itself, so that nothing
    /// else keeps its region.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = EncodedInputs> + use<> {
        let large = self.large.take().map(|region| Chunk {
            bytes: Vec::new(),
            // This fits, because a region is far smaller than 4 GiB.
            ends: vec![region.len() as u32],
            large: Some(region),
            last_piece: 0..0,
            kept: self.kept.clone(),
            files: self.files.take(),
        });
        let small = (!self.ends.is_empty()).then(|| {
            let bytes = match self.bytes.len() {
                0..CHUNK => Vec::with_capacity(self.bytes.len()),
                _ => buffers::take(),
            };
            let next = Chunk {
                bytes,
                ends: Vec::with_capacity(self.ends.len()),
                large: None,
                last_piece: 0..0,
                kept: Vec::new(),
                files: None,
            };
            std::mem::replace(self, next)
        });
        self.kept.clear();
        let chunks = small.into_iter().chain(large);
        chunks.map(|chunk| EncodedInputs(Arc::new(chunk)))
    }
}

impl EncodedInputs {
    /// One input, and what it refers to.
    pub(crate) fn one(bytes: Vec<u8>, kept: Vec<Kept>) -> Self {
        let ends = vec![u32::try_from(bytes.len()).unwrap_or(u32::MAX)];
        EncodedInputs(Arc::new(Chunk {
            bytes,
            ends,
            large: None,
            last_piece: 0..0,
            kept,
            files: None,
        }))
    }

    /// Several inputs, one behind the other, and what they refer to. Fails if their lengths do not add up.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    pub(crate) fn several(
        bytes: Vec<u8>,
        lens: &[u32],
        kept: Vec<Kept>,
    ) -> Result<Self, &'static str> {
        let mut end = 0_u32;
        let ends = lens.iter().map(|len| {
            end = end.checked_add(*len)?;
            Some(end)
        });
        let ends: Vec<u32> = ends
            .collect::<Option<_>>()
            .ok_or("the inputs have more than 4 GiB")?;
        if end as usize != bytes.len() {
            return Err("the lengths of the inputs do not add up");
        }
        Ok(EncodedInputs(Arc::new(Chunk {
            bytes,
            ends,
            large: None,
            last_piece: 0..0,
            kept,
            files: None,
        })))
    }

    /// The files that go along with the one input.
    #[cfg_attr(
        not(feature = "agents"),
        allow(dead_code, reason = "only agents need it")
    )]
    pub(crate) fn files(&self) -> Option<&Files> {
        self.0.files.as_deref()
    }

    /// The shared values that they refer to.
    pub(crate) fn kept(&self) -> &[Kept] {
        &self.0.kept
    }

    fn start(&self, at: u32) -> usize {
        match at.checked_sub(1) {
            Some(before) => self.0.ends[before as usize] as usize,
            None => 0,
        }
    }

    /// Some of them, one after another.
    pub(crate) fn piece(&self, at: u32, count: u32) -> Piece<'_> {
        match &self.0.large {
            Some(region) => Piece::OnBoard(region),
            None => {
                let bytes = &self.0.bytes[self.start(at)..self.start(at + count)];
                let is_last = count == 1 && at as usize + 1 == self.0.ends.len();
                match is_last && !self.0.last_piece.is_empty() {
                    true => Piece::Large(bytes, self.0.last_piece.clone()),
                    false => Piece::Bytes(bytes),
                }
            }
        }
    }

    /// Whether this is a large one, on the board.
    pub(crate) fn is_on_board(&self) -> bool {
        self.0.large.is_some()
    }

    /// How long each of some of them is.
    pub(crate) fn lens(&self, at: u32, count: u32) -> impl Iterator<Item = u32> {
        let mut start = self.start(at) as u32;
        self.0.ends[at as usize..(at + count) as usize]
            .iter()
            .map(move |end| end - std::mem::replace(&mut start, *end))
    }
}

/// Inputs that stand one behind the other.
#[derive(Debug)]
pub(crate) enum Piece<'c> {
    Bytes(&'c [u8]),
    /// One that has a large piece, and where.
    Large(&'c [u8], Range<usize>),
    /// One that is large.
    OnBoard(&'c Region),
}

impl Deref for Piece<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) | Piece::Large(bytes, _) => bytes,
            Piece::OnBoard(region) => region,
        }
    }
}

impl Chunk {
    /// Adds the inputs of a chunk behind its own, if they may stand together. Larger ones are not worth being copied, and
    /// those on the board must not keep each other there.
    fn join(&mut self, behind: &Chunk) -> bool {
        let is_alone = |chunk: &Chunk| chunk.large.is_some() || chunk.files.is_some();
        if is_alone(self) || is_alone(behind) || self.is_full() || behind.is_full() {
            return false;
        }
        // Both are smaller than a chunk is at most, so this fits.
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&behind.bytes);
        self.ends
            .extend(behind.ends.iter().map(|end| start as u32 + end));
        let Range { start: from, end } = behind.last_piece;
        self.last_piece = start + from..start + end;
        for kept in &behind.kept {
            if self.kept.last().is_none_or(|last| last.id() != kept.id()) {
                self.kept.push(kept.clone());
            }
        }
        true
    }
}

impl scheduler::Bundle for EncodedInputs {
    fn count(&self) -> u32 {
        // This fits, because a chunk is closed long before it has so many.
        u32::try_from(self.0.ends.len()).unwrap_or(u32::MAX)
    }

    fn bytes(&self, from: u32, count: u32) -> usize {
        let files = self.0.files.as_ref().map_or(0, |files| files.size());
        self.start(from + count) - self.start(from) + files
    }

    fn join(&mut self, behind: &Self) -> bool {
        Arc::get_mut(&mut self.0).is_some_and(|chunk| chunk.join(&behind.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;
    use crate::scheduler::Bundle as _;

    #[test]
    fn inputs_stand_one_behind_the_other() {
        let mut chunk = Chunk::default();
        for input in [&b"one"[..], b"", b"three"] {
            chunk
                .add(None, |sheet| {
                    sheet.write(input);
                    Ok(())
                })
                .unwrap();
        }
        assert!(chunk.add(None, |_| Err("no".to_owned())).is_err());
        let inputs = chunk.take().next().unwrap();
        assert!(chunk.is_empty());
        assert_eq!(chunk.take().count(), 0);
        assert_eq!(inputs.count(), 3);
        assert_eq!(*inputs.piece(0, 3), *b"onethree");
        assert_eq!(*inputs.piece(2, 1), *b"three");
        assert_eq!(inputs.lens(0, 3).collect::<Vec<_>>(), [3, 0, 5]);
        assert_eq!(inputs.lens(1, 2).collect::<Vec<_>>(), [0, 5]);
        assert_eq!(inputs.bytes(1, 2), 5);
    }

    #[test]
    fn a_large_input_is_a_chunk_of_its_own() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * protocol::board::REGION as u64).unwrap();
        let board = Board::map(&file).unwrap();
        let large: Vec<u8> = (0..1_u32 << 20).map(|at| at as u8).collect();
        let fill = |chunk: &mut Chunk| -> Vec<EncodedInputs> {
            for input in [&b"one"[..], b"two", &large] {
                assert!(!chunk.is_full());
                let write = |sheet: &mut InputSheet<'_>| {
                    sheet.write(input);
                    Ok(())
                };
                chunk.add(Some(&board), write).unwrap();
            }
            let taken = chunk.take().collect();
            assert!(chunk.is_empty() && !chunk.is_full());
            taken
        };
        let mut chunk = Chunk::default();
        let both = [fill(&mut chunk), fill(&mut chunk)];
        for taken in &both {
            let [small, alone] = &taken[..] else {
                panic!("{} chunks", taken.len())
            };
            assert!(!small.is_on_board() && alone.is_on_board());
            assert_eq!((small.count(), alone.count()), (2, 1));
            assert_eq!(*small.piece(0, 2), *b"onetwo");
            assert!(*alone.piece(0, 1) == *large);
            assert_eq!(alone.lens(0, 1).collect::<Vec<_>>(), [1 << 20]);
            assert_eq!(alone.bytes(0, 1), 1 << 20);
        }
        // There is room for two on the board: the third stands with the others.
        let [all] = &fill(&mut chunk)[..] else {
            panic!("a third region")
        };
        assert!(!all.is_on_board() && *all.piece(2, 1) == *large);
        drop(both);
        assert_eq!(fill(&mut chunk).len(), 2);
        // An input that can't be encoded gives its place on the board back.
        for _ in 0..3 {
            let write = |sheet: &mut InputSheet<'_>| {
                sheet.write(&large);
                Err("no".to_owned())
            };
            assert!(chunk.add(Some(&board), write).is_err());
            assert!(chunk.is_empty() && !chunk.is_full());
        }
        assert_eq!(fill(&mut chunk).len(), 2);
    }
}
