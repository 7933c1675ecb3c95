//! Integers as postcard writes them: seven bits in each byte, the lowest first, and a mark on each byte but the last.
//!
//! postcard writes them byte by byte, which is most of what it takes to encode a short value. Nearly all integers fit into one
//! word of such bytes, and are written at once. To read them so took no less time: the place of what follows depends on
//! all of the word, where a processor guesses the bytes one by one.

/// Marks a byte that another one follows.
const MARKS: u64 = 0x8080_8080_8080_8080;
/// The bits that fit into one word.
const MOST_BITS: u32 = 56;

/// The bytes of an integer as a word, little-endian, and their number. `None` if they don't fit into a word.
#[inline]
pub(super) fn spread(value: u64) -> Option<(u64, usize)> {
    if value < 0x80 {
        return Some((value, 1));
    }
    let bits = u64::BITS - value.leading_zeros();
    if bits > MOST_BITS {
        return None;
    }
    let len = bits.div_ceil(7);
    // Each step moves the upper half of each group apart from the lower one: groups of 56 bits, of 28, and of 14.
    let word = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x0fff_c000_0fff_c000) << 2;
    let word = word & 0x007f_007f_007f_007f | (word & 0x3f80_3f80_3f80_3f80) << 1;
    let marks = MARKS & ((1 << (8 * (len - 1))) - 1);
    Some((word | marks, len as usize))
}

/// An integer that postcard writes as a varint, signed ones by turns with the unsigned.
pub(super) trait Varint: Copy {
    /// What is written for it.
    fn zigzag(self) -> u64;
}

macro_rules! varints {
    ($($unsigned:ident $signed:ident)*) => {
        $(impl Varint for $unsigned {
            #[inline]
            fn zigzag(self) -> u64 {
                self.into()
            }
        }

        impl Varint for $signed {
            #[inline]
            fn zigzag(self) -> u64 {
                ((self << 1) ^ (self >> ($signed::BITS - 1))).cast_unsigned().into()
            }
        })*
    };
}

varints! { u16 i16 u32 i32 u64 i64 }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::fmt::Debug;

    use serde::Serialize;

    use super::*;

    /// Integers of all lengths: those around each power of two.
    fn interesting() -> impl Iterator<Item = u64> {
        (0..u64::BITS)
            .map(|bits| 1_u64 << bits)
            .flat_map(|power| (0..5).map(move |more| power.wrapping_add(more).wrapping_sub(2)))
            .flat_map(|value| [value, value.wrapping_mul(0x9e37_79b9_7f4a_7c15)])
    }

    fn is_as_postcard<T: Varint + Serialize + Debug>(value: T) {
        let bytes = postcard::to_stdvec(&value).unwrap();
        let spread = spread(value.zigzag());
        assert_eq!(spread.is_some(), bytes.len() <= 8, "{value:?}");
        if let Some((word, len)) = spread {
            assert_eq!(word.to_le_bytes()[..len], bytes, "{value:?}");
        }
    }

    #[test]
    fn integers_are_written_as_postcard_writes_them() {
        for value in interesting() {
            is_as_postcard(value);
            is_as_postcard(value.cast_signed());
            is_as_postcard(value as u32);
            is_as_postcard(value as i32);
            is_as_postcard(value as u16);
            is_as_postcard(value as i16);
        }
    }
}
