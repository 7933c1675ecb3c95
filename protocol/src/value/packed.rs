//! Packed integers: a long sequence of them has each in its full width, so that it can be copied whole.
//!
//! postcard writes an integer in as few bytes as its value needs, one by one. In the place of the length of a packed sequence
//! stands a mark that no length reaches. The length follows, and then the integers, little-endian. Items may also be arrays of
//! integers, or arrays of such arrays.

use postcard::Error;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};

use super::error::ValueError;

/// The type of the integers of a packed sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Integer {
    /// How many bytes each has: 2, 4, 8 or 16.
    bytes: usize,
    is_signed: bool,
}

/// Above all lengths.
const LAST_MARK: u64 = u64::MAX;
/// How many types there are.
const TYPES: u64 = 8;

impl Integer {
    pub(super) const fn new(bytes: usize, is_signed: bool) -> Self {
        Integer { bytes, is_signed }
    }

    /// What stands in the place of the length.
    pub(super) fn mark(self) -> u64 {
        let number = 2 * (self.bytes.trailing_zeros() - 1) + u32::from(self.is_signed);
        LAST_MARK - u64::from(number)
    }

    /// The type that a mark stands for. `None` for a length.
    #[inline]
    pub(super) fn of_mark(mark: u64) -> Option<Self> {
        let number = LAST_MARK - mark;
        (number < TYPES).then(|| Integer {
            bytes: 2 << (number / 2),
            is_signed: number % 2 == 1,
        })
    }
}

type Result<T> = std::result::Result<T, ValueError>;

/// The items of a packed sequence, or of an array in it, which are read one by one: their reader is no plain vector of
/// the type that was written.
pub(super) struct PackedItems<'r, 'd> {
    pub(super) rest: &'r mut &'d [u8],
    pub(super) integer: Integer,
    pub(super) left: usize,
}

impl<'d> SeqAccess<'d> for PackedItems<'_, 'd> {
    type Error = ValueError;

    fn next_element_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let item = PackedItem {
            rest: self.rest,
            integer: self.integer,
        };
        seed.deserialize(item).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // An item has a byte at least, so a false length does not make a collection reserve memory.
        (self.left <= self.rest.len()).then_some(self.left)
    }
}

/// An integer of a packed sequence, or an array of them.
struct PackedItem<'r, 'd> {
    rest: &'r mut &'d [u8],
    integer: Integer,
}

impl PackedItem<'_, '_> {
    /// Reads an integer, as one of another type if its value allows that. So does postcard.
    fn read<T: TryFrom<i128> + TryFrom<u128>>(self) -> Result<T> {
        let Integer { bytes, is_signed } = self.integer;
        let (read, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        *self.rest = rest;
        let is_negative = is_signed && read.last().is_some_and(|byte| *byte >= 0x80);
        let mut all = [if is_negative { 0xff } else { 0 }; 16];
        all[..bytes].copy_from_slice(read);
        let converted = match is_signed {
            true => T::try_from(i128::from_le_bytes(all)).ok(),
            false => T::try_from(u128::from_le_bytes(all)).ok(),
        };
        converted.ok_or_else(|| Error::DeserializeBadVarint.into())
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident)*) => {
        $(fn $method<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
            visitor.$visit(self.read()?)
        })*
    };
}

impl<'d> de::Deserializer<'d> for PackedItem<'_, 'd> {
    type Error = ValueError;

    fn is_human_readable(&self) -> bool {
        false
    }

    integers! {
        deserialize_i8 visit_i8
        deserialize_i16 visit_i16
        deserialize_i32 visit_i32
        deserialize_i64 visit_i64
        deserialize_i128 visit_i128
        deserialize_u8 visit_u8
        deserialize_u16 visit_u16
        deserialize_u32 visit_u32
        deserialize_u64 visit_u64
        deserialize_u128 visit_u128
    }

    fn deserialize_newtype_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'d>>(self, len: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(PackedItems {
            rest: self.rest,
            integer: self.integer,
            left: len,
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_any<V: Visitor<'d>>(self, _: V) -> Result<V::Value> {
        Err(ValueError::new(
            "integers were written, and something else is to be read",
        ))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'d>>
        bool f32 f64 char str string bytes byte_buf option unit unit_struct seq map enum identifier ignored_any
    }
}
