//! Places in shared memory, as both sides and the frames between them name them.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// The least payload that travels by the lane, in bytes.
pub const LEAST: usize = 32 << 10;
/// The size of the lane, in bytes, unless the box's file is shorter.
pub const SIZE: usize = 4 << 20;
pub(crate) const WORDS: usize = SIZE / 8;
/// Which side of a link one is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It sends inputs.
    Coordinator,
    /// It sends outputs.
    Worker,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Side::Coordinator => Side::Worker,
            Side::Worker => Side::Coordinator,
        }
    }
}

/// In the place of a word: the payload crosses the lane in parts.
const IN_PARTS: u32 = u32::MAX;

/// Where in shared memory a payload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// The word at which its large piece stands, or its beginning if it has no large piece. Words behind the lane's
    /// last belong to the [board](super::board).
    pub(crate) at: u32,
    /// How long it is, in bytes.
    pub(crate) len: u32,
    /// How many of its bytes stand before that word.
    pub(crate) before: u32,
    /// How long its large piece is, in bytes. The receiver may put that piece into memory of its own.
    pub(crate) piece: u32,
}

impl Placed {
    /// How a frame encodes the place: three numbers, little-endian.
    pub(crate) const SIZE: usize = 12;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let numbers = [self.at, self.before, self.piece];
        for (bytes, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
            *bytes = number.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::SIZE], len: u32) -> Self {
        let [a, b, c] =
            [0, 4, 8].map(|at| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Placed {
            at: u32::from_le_bytes(a),
            len,
            before: u32::from_le_bytes(b),
            piece: u32::from_le_bytes(c),
        }
    }

    /// A payload that crosses the lane in parts.
    pub(crate) fn in_parts(len: u32, piece: &Range<usize>) -> Self {
        // A piece of the payload is below 4 GiB, as the payload is.
        Placed {
            at: IN_PARTS,
            len,
            before: piece.start as u32,
            piece: piece.len() as u32,
        }
    }

    pub(crate) fn is_in_parts(&self) -> bool {
        self.at == IN_PARTS
    }

    /// The place's range in the lane, in bytes, or `None` if the lane has no such place.
    pub(crate) fn range(&self, lane: &[AtomicU64]) -> Option<Range<usize>> {
        let inside = u64::from(self.before) + u64::from(self.piece) <= u64::from(self.len);
        let start = (u64::from(self.at) * 8).checked_sub(self.before.into())?;
        let end = start + u64::from(self.len);
        // Where the condition holds, both ends are within the lane, so the casts lose nothing.
        (inside && end <= size_of_val(lane) as u64).then_some(start as usize..end as usize)
    }
}
