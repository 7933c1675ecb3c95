//! Encoding: the format of postcard, with the error texts that its own serializer lacks.
//!
//! That one drops the text of an error. It also accepts a struct that leaves out a field, and then the reader takes the
//! next field for the missing one. This serializer keeps the text, and refuses such a struct. And it writes a number at
//! once, not byte by byte.

use std::fmt::Display;

use serde::ser::{self, Serialize};

use super::error::ValueError;
use super::packed::Integer;
use super::varint::{self, Varint};
use super::whole::{self, MANY};

/// Where bytes are written.
pub(super) trait Output {
    /// Appends the first bytes of a word, little-endian: 8 at most.
    fn word(&mut self, word: u64, len: usize);

    /// Appends bytes.
    fn bytes(&mut self, bytes: &[u8]);
}

/// Appends the first bytes of a word, little-endian, to a buffer.
#[inline]
pub(super) fn push_word(buffer: &mut Vec<u8>, word: u64, len: usize) {
    let end = buffer.len() + len;
    // The whole word at once: a part of it would be copied by a call of `memcpy`.
    buffer.extend_from_slice(&word.to_le_bytes());
    buffer.truncate(end);
}

/// Writes values to an output.
pub(super) struct Writer<O>(O);

impl<O: Output> Writer<O> {
    #[inline]
    pub(super) fn to(output: O) -> Self {
        Writer(output)
    }

    #[inline]
    fn byte(&mut self, byte: u8) -> Result {
        self.0.word(byte.into(), 1);
        Ok(())
    }

    #[inline]
    fn varint(&mut self, value: impl Varint) -> Result {
        let value = value.zigzag();
        match varint::spread(value) {
            Some((word, len)) => self.0.word(word, len),
            None => self.rare(&value)?,
        }
        Ok(())
    }

    #[inline]
    fn count(&mut self, count: usize) -> Result {
        self.varint(count as u64)
    }

    /// Writes a number that is seldom written.
    #[cold]
    fn rare(&mut self, number: &impl Serialize) -> Result {
        // The longest varint of 128 bits.
        let mut bytes = [0; 19];
        self.0.bytes(postcard::to_slice(number, &mut bytes)?);
        Ok(())
    }

    /// Writes a sequence of numbers, which have these bytes.
    #[inline(never)]
    fn whole(&mut self, count: usize, bytes: &[u8], integer: Option<Integer>) -> Result {
        if let Some(integer) = integer {
            self.varint(integer.mark())?;
        }
        self.count(count)?;
        self.0.bytes(bytes);
        Ok(())
    }
}

type Result = std::result::Result<(), ValueError>;

macro_rules! numbers {
    ($($method:ident: $type:ty, $by:ident;)*) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result {
            self.$by(value)
        })*
    };
}

/// A part that is written like its items or fields, one behind the other.
macro_rules! compound {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(#[inline]
        fn $method(self, $(_: $type),*) -> std::result::Result<Self, ValueError> {
            Ok(self)
        })*
    };
}

macro_rules! variant {
    ($($method:ident)*) => {
        $(#[inline]
        fn $method(
            self,
            _: &'static str,
            index: u32,
            _: &'static str,
            _: usize,
        ) -> std::result::Result<Self, ValueError> {
            self.varint(index)?;
            Ok(self)
        })*
    };
}

impl<O: Output> ser::Serializer for &mut Writer<O> {
    type Ok = ();
    type Error = ValueError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        serialize_u8: u8, byte;
        serialize_i16: i16, varint;
        serialize_i32: i32, varint;
        serialize_i64: i64, varint;
        serialize_u16: u16, varint;
        serialize_u32: u32, varint;
        serialize_u64: u64, varint;
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result {
        self.byte(value.into())
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result {
        self.byte(value.cast_unsigned())
    }

    fn serialize_i128(self, value: i128) -> Result {
        self.rare(&value)
    }

    fn serialize_u128(self, value: u128) -> Result {
        self.rare(&value)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result {
        self.0.word(value.to_bits().into(), 4);
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result {
        self.0.word(value.to_bits(), 8);
        Ok(())
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result {
        self.count(value.len())?;
        self.0.bytes(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result {
        self.byte(0)
    }

    #[inline]
    fn serialize_unit(self) -> Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result {
        self.varint(index)
    }

    compound! {
        serialize_tuple(len: usize);
        serialize_tuple_struct(name: &'static str, len: usize);
        serialize_struct(name: &'static str, len: usize);
    }

    variant! { serialize_tuple_variant serialize_struct_variant }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        self.byte(1)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result {
        self.varint(index)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> std::result::Result<Self, ValueError> {
        match len {
            Some(len) => self.count(len)?,
            None => return Err(uncounted("a sequence")),
        };
        Ok(self)
    }

    #[inline]
    fn collect_seq<I>(self, items: I) -> Result
    where
        I: IntoIterator<Item: Serialize>,
    {
        let mut items = items.into_iter();
        let len = match items.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        if len.is_some_and(|len| len >= MANY)
            && let Some((bytes, integer)) = whole::bytes_of(&items)
        {
            return self.whole(items.size_hint().0, bytes, integer);
        }
        let mut seq = self.serialize_seq(len)?;
        items.try_for_each(|item| ser::SerializeSeq::serialize_element(&mut seq, &item))?;
        ser::SerializeSeq::end(seq)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> std::result::Result<Self, ValueError> {
        match len {
            Some(len) => self.count(len)?,
            None => return Err(uncounted("a map, or a struct with `#[serde(flatten)]`,")),
        };
        Ok(self)
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result {
        self.serialize_str(&value.to_string())
    }
}

#[cold]
fn uncounted(what: &str) -> ValueError {
    ValueError::not_described(format_args!("{what} does not say how long it is"))
}

#[cold]
fn left_out(field: &str) -> ValueError {
    ValueError::not_described(format_args!(
        "the field `{field}` is left out (`#[serde(skip_serializing_if)]`)"
    ))
}

macro_rules! items {
    ($($trait:ident::$method:ident)*) => {
        $(impl<O: Output> ser::$trait for &mut Writer<O> {
            type Ok = ();
            type Error = ValueError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
                value.serialize(&mut **self)
            }

            #[inline]
            fn end(self) -> Result {
                Ok(())
            }
        })*
    };
}

items! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

macro_rules! fields {
    ($($trait:ident)*) => {
        $(impl<O: Output> ser::$trait for &mut Writer<O> {
            type Ok = ();
            type Error = ValueError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result {
                value.serialize(&mut **self)
            }

            #[inline]
            fn skip_field(&mut self, key: &'static str) -> Result {
                Err(left_out(key))
            }

            #[inline]
            fn end(self) -> Result {
                Ok(())
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

impl<O: Output> ser::SerializeMap for &mut Writer<O> {
    type Ok = ();
    type Error = ValueError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        key.serialize(&mut **self)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(&mut **self)
    }

    #[inline]
    fn end(self) -> Result {
        Ok(())
    }
}
