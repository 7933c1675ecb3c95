//! Decoding: the format of postcard, with the error texts that its own deserializer lacks. That reads single numbers here.
//!
//! A large piece of a value, bytes or a text, may have been received apart. It is given to the visitor as its own, so that it is
//! not copied. A visitor that wants to borrow refuses it, by an error that shows the bytes; by then the vector is
//! gone. So the address of the piece that is being given away is kept in `GIVEN`, and the error, if it shows
//! just these bytes, leaves a copy of them in `REFUSED`. The caller finds it there, and reads once more from memory in one piece.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use postcard::{Deserializer, Error};
use serde::Deserialize;
use serde::de::value::U32Deserializer;
use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::error::ValueError;
use super::packed::{Integer, PackedItems};
use super::whole::{self, WholeOf};

thread_local! {
    /// The address of the piece that is being given away. It is only compared.
    static GIVEN: Cell<Option<Range<*const u8>>> = const { Cell::new(None) };
    /// A piece that a visitor refused, because it wanted to borrow it and got it as its own.
    static REFUSED: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Takes back the piece that was given away and refused.
pub(crate) fn take_refused() -> Option<Vec<u8>> {
    GIVEN.set(None);
    REFUSED.take()
}

impl de::Error for ValueError {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }

    /// The error of a visitor that wants to borrow bytes or text.
    #[cold]
    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let refused = match unexpected {
            de::Unexpected::Bytes(bytes) => bytes,
            de::Unexpected::Str(text) => text.as_bytes(),
            _ => &[],
        };
        // Only if it is the piece itself: a visitor may refuse any other bytes, too.
        if GIVEN.take() == Some(refused.as_ptr_range()) {
            REFUSED.set(Some(refused.to_vec()));
        }
        Self::new(format_args!(
            "invalid type: {unexpected}, expected {expected}"
        ))
    }
}

type Result<T> = std::result::Result<T, ValueError>;

/// A value that is being read in postcard's encoding.
#[derive(Debug)]
pub(crate) struct Reading<'d> {
    /// The bytes to read next: those up to the piece, or those behind it once it has been given away.
    rest: &'d [u8],
    behind: &'d [u8],
    piece: Option<Vec<u8>>,
}

impl<'d> Reading<'d> {
    #[inline]
    pub(crate) fn of(bytes: &'d [u8]) -> Self {
        Reading {
            rest: bytes,
            behind: &[],
            piece: None,
        }
    }

    /// Begins to read a value of which a piece stands apart.
    pub(crate) fn around(before: &'d [u8], piece: Vec<u8>, behind: &'d [u8]) -> Self {
        take_refused();
        Reading {
            rest: before,
            behind,
            piece: Some(piece),
        }
    }

    /// The bytes that have not been read, and the piece if nobody has taken it.
    #[inline]
    pub(crate) fn left(self) -> (&'d [u8], Option<Vec<u8>>) {
        (self.rest, self.piece)
    }

    /// Lets postcard read something that the piece is no part of.
    #[inline]
    fn small<T: Deserialize<'d>>(&mut self) -> Result<T> {
        let mut deserializer = Deserializer::from_bytes(self.rest);
        let value = T::deserialize(&mut deserializer)?;
        self.rest = deserializer.finalize()?;
        Ok(value)
    }

    /// Reads how many items follow.
    #[inline]
    fn count(&mut self) -> Result<usize> {
        self.small()
    }

    /// The next bytes.
    fn take(&mut self, len: usize) -> Result<&'d [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The claimed number of items, or none if fewer bytes than that are left: a false length must not make a collection
    /// reserve memory.
    fn hint(&self, claimed: usize) -> Option<usize> {
        let bytes = self.rest.len() + self.behind.len();
        (claimed <= bytes).then_some(claimed)
    }

    /// Reads a long sequence: whole if its items are numbers, or else item by item.
    #[inline(never)]
    fn many<V: Visitor<'d>>(&mut self, count: u64, visitor: V) -> Result<V::Value> {
        let integer = Integer::of_mark(count);
        let count = match integer {
            Some(_) => self.count()?,
            None => usize::try_from(count).map_err(|_| Error::DeserializeUnexpectedEnd)?,
        };
        if let Some(way) = whole::read_by::<V>()
            && way.whole().integer == integer
        {
            return self.whole(&way, count);
        }
        match integer {
            None => self.items(count, visitor),
            Some(integer) => visitor.visit_seq(PackedItems {
                rest: &mut self.rest,
                integer,
                left: count,
            }),
        }
    }

    /// Reads a vector of numbers.
    fn whole<T>(&mut self, way: &WholeOf<T>, count: usize) -> Result<T> {
        let len = count.checked_mul(way.whole().size);
        let len = len.ok_or(Error::DeserializeUnexpectedEnd)?;
        let is_apart =
            self.rest.is_empty() && self.piece.as_ref().is_some_and(|piece| piece.len() == len);
        let read = match self.piece.take_if(|_| is_apart) {
            Some(piece) => {
                self.rest = self.behind;
                way.read_owned(piece)
            }
            None => way.read(self.take(len)?),
        };
        read.ok_or_else(|| Error::DeserializeBadBool.into())
    }

    /// Gives the piece away, if it comes next.
    fn give(&mut self) -> Option<Vec<u8>> {
        let (len, behind) = postcard::take_from_bytes::<usize>(self.rest).ok()?;
        if !behind.is_empty() || self.piece.as_ref()?.len() != len {
            return None;
        }
        self.rest = self.behind;
        let piece = self.piece.take()?;
        GIVEN.set(Some(piece.as_ptr_range()));
        Some(piece)
    }

    #[inline]
    fn bytes<V: Visitor<'d>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.give() {
            Some(piece) => visitor.visit_byte_buf(piece),
            None => visitor.visit_borrowed_bytes(self.small()?),
        }
    }

    #[inline]
    fn text<V: Visitor<'d>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.give() {
            Some(piece) => {
                let text = String::from_utf8(piece).map_err(|_| Error::DeserializeBadUtf8)?;
                visitor.visit_string(text)
            }
            None => visitor.visit_borrowed_str(self.small()?),
        }
    }

    #[inline]
    fn items<V: Visitor<'d>>(&mut self, left: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Items {
            reading: self,
            left,
        })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
            visitor.$visit(self.small()?)
        })*
    };
}

impl<'d> de::Deserializer<'d> for &mut Reading<'d> {
    type Error = ValueError;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_bool visit_bool
        deserialize_char visit_char
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
        deserialize_f32 visit_f32
        deserialize_f64 visit_f64
    }

    fn deserialize_any<V: Visitor<'d>>(self, _: V) -> Result<V::Value> {
        Err(ValueError::not_described(
            "its type asks what comes next (as `serde_json::Value` does, and `#[serde(untagged)]`, \
             `#[serde(tag = …)]` and `#[serde(flatten)]`)",
        ))
    }

    fn deserialize_ignored_any<V: Visitor<'d>>(self, _: V) -> Result<V::Value> {
        Err(ValueError::not_described(
            "its type skips what it does not know",
        ))
    }

    fn deserialize_identifier<V: Visitor<'d>>(self, _: V) -> Result<V::Value> {
        Err(ValueError::not_described(
            "its type asks for names of fields",
        ))
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.bytes(visitor)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.bytes(visitor)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        match self.small::<u8>()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(Error::DeserializeBadOption.into()),
        }
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let count: u64 = self.small()?;
        match count < whole::MANY as u64 {
            true => self.items(count as usize, visitor),
            false => self.many(count, visitor),
        }
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'d>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.items(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.items(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.items(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let left = self.count()?;
        visitor.visit_map(Items {
            reading: self,
            left,
        })
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'d>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(self)
    }
}

/// Parts that are read one after another: the items of a sequence, the fields of a struct, keys and values.
struct Items<'r, 'd> {
    reading: &'r mut Reading<'d>,
    left: usize,
}

impl<'d> SeqAccess<'d> for Items<'_, 'd> {
    type Error = ValueError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reading).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.reading.hint(self.left)
    }
}

impl<'d> MapAccess<'d> for Items<'_, 'd> {
    type Error = ValueError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.next_element_seed(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.reading)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.reading.hint(self.left)
    }
}

impl<'d> EnumAccess<'d> for &mut Reading<'d> {
    type Error = ValueError;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'d>>(self, seed: S) -> Result<(S::Value, Self)> {
        let variant = self.small::<u32>()?;
        let variant: U32Deserializer<ValueError> = variant.into_deserializer();
        let value = seed.deserialize(variant)?;
        Ok((value, self))
    }
}

impl<'d> VariantAccess<'d> for &mut Reading<'d> {
    type Error = ValueError;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'d>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'d>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.items(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'d>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.items(fields.len(), visitor)
    }
}
