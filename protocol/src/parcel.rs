//! A payload that is handed over to whoever received it.
//!
//! A large output is mostly one thing: a buffer, or a text. Its worker says where in the payload that
//! [stands](crate::lane::Placed); it is received into memory of its own, and this becomes part of the value
//! that is decoded. So it is not copied once more, and not kept twice.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use postcard::de_flavors::Slice;
use postcard::{Deserializer, Error};
use serde::Deserialize;
use serde::de::value::U32Deserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::frame::Owned;

/// A payload that was handed over.
#[derive(Debug)]
pub enum Parcel {
    /// As it came.
    Whole(Owned),
    /// With its large piece apart.
    Apart(Apart),
}

impl Parcel {
    /// How large it is, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Parcel::Whole(owned) => owned.payload().len(),
            Parcel::Apart(apart) => apart.around.len() + apart.piece.len(),
        }
    }

    /// All of it, in one piece.
    #[must_use]
    pub fn join(&self) -> Cow<'_, [u8]> {
        match self {
            Parcel::Whole(owned) => Cow::Borrowed(owned.payload()),
            Parcel::Apart(apart) => Cow::Owned(apart.join()),
        }
    }
}

impl Default for Parcel {
    fn default() -> Self {
        Parcel::Whole(Owned::default())
    }
}

/// An encoded value, and a piece of it that stands apart.
#[derive(Debug, Clone, Default)]
pub struct Apart {
    /// What stands before the piece and behind it.
    around: Vec<u8>,
    /// Where between the two it belongs.
    at: usize,
    piece: Vec<u8>,
}

impl Apart {
    /// Both parts of what is around a piece, one behind the other, with the length of the first; and the
    /// piece. `None` if there is less around it.
    #[must_use]
    pub fn new(around: Vec<u8>, at: usize, piece: Vec<u8>) -> Option<Self> {
        let fits = at <= around.len();
        fits.then_some(Apart { around, at, piece })
    }

    /// All of it, in one piece.
    #[must_use]
    pub fn join(&self) -> Vec<u8> {
        let (before, behind) = self.around.split_at(self.at);
        [before, &self.piece, behind].concat()
    }

    /// Reads the value that this is the encoding of. If the piece is what some field of it holds, it is put
    /// there; if not, the value is read a second time, from one piece.
    ///
    /// # Errors
    ///
    /// As [`decode`](crate::decode) of the whole.
    ///
    /// ```
    /// use protocol::parcel::Apart;
    ///
    /// let text = "a long text".to_owned();
    /// let at = text.as_ptr();
    /// let apart = Apart::new(vec![7, 11, 1], 2, text.into_bytes()).unwrap();
    /// let value: (u8, String, bool) = apart.decode()?;
    /// assert_eq!(value, (7, "a long text".to_owned(), true));
    /// assert_eq!(value.1.as_ptr(), at);
    /// # Ok::<(), String>(())
    /// ```
    pub fn decode<V: DeserializeOwned>(self) -> std::result::Result<V, String> {
        let Apart { around, at, piece } = self;
        let (rest, behind) = around.split_at(at);
        let mut reading = Reading {
            rest,
            behind,
            piece: Some(piece),
        };
        REFUSED.set(None);
        let value = V::deserialize(&mut reading);
        let Reading { rest, piece, .. } = reading;
        match (value, piece.or_else(|| REFUSED.take())) {
            (Ok(value), None) => crate::encode::all_read(value, rest),
            (Err(error), None) => Err(error.0.to_string()),
            // It is no field's: the worker was wrong, or whoever reads it goes ways of its own.
            (_, Some(piece)) => crate::decode(&Apart { around, at, piece }.join()),
        }
    }
}

thread_local! {
    /// Where the piece is that is being given away. It is compared only.
    static GIVEN: Cell<Option<Range<*const u8>>> = const { Cell::new(None) };
    /// A piece that somebody would not have, because it was not lent to him but given.
    static REFUSED: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// Why a value could not be read so.
#[derive(Debug)]
struct Unread(Error);

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unread {}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Unread(error)
    }
}

impl de::Error for Unread {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unread(Error::custom(message))
    }

    /// What a visitor says to bytes or text that it wants to borrow.
    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let refused = match unexpected {
            de::Unexpected::Bytes(bytes) => bytes,
            de::Unexpected::Str(text) => text.as_bytes(),
            _ => &[],
        };
        // And nothing else that somebody may complain of.
        if GIVEN.take() == Some(refused.as_ptr_range()) {
            REFUSED.set(Some(refused.to_vec()));
        }
        Unread(Error::invalid_type(unexpected, expected))
    }
}

type Result<T> = std::result::Result<T, Unread>;

/// A value that is being read, as postcard would.
struct Reading<'d> {
    /// What is to be read next: up to the piece, or behind it when it has been given away.
    rest: &'d [u8],
    behind: &'d [u8],
    piece: Option<Vec<u8>>,
}

impl<'d> Reading<'d> {
    /// Has postcard read something that the piece is no part of.
    fn small<T>(
        &mut self,
        read: impl FnOnce(&mut Deserializer<'d, Slice<'d>>) -> postcard::Result<T>,
    ) -> Result<T> {
        let mut deserializer = Deserializer::from_bytes(self.rest);
        let value = read(&mut deserializer)?;
        self.rest = deserializer.finalize()?;
        Ok(value)
    }

    /// How many things follow.
    fn count(&mut self) -> Result<usize> {
        self.small(|rest| usize::deserialize(rest))
    }

    /// Gives the piece away, if it is what comes next.
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

    fn bytes<V: Visitor<'d>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.give() {
            Some(piece) => visitor.visit_byte_buf(piece),
            None => self.small(|rest| de::Deserializer::deserialize_bytes(rest, visitor)),
        }
    }

    fn text<V: Visitor<'d>>(&mut self, visitor: V) -> Result<V::Value> {
        match self.give() {
            Some(piece) => {
                let text = String::from_utf8(piece).map_err(|_| Error::DeserializeBadUtf8)?;
                visitor.visit_string(text)
            }
            None => self.small(|rest| de::Deserializer::deserialize_str(rest, visitor)),
        }
    }

    fn items<V: Visitor<'d>>(&mut self, left: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Items {
            reading: self,
            left,
        })
    }
}

macro_rules! small {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
            self.small(|rest| de::Deserializer::$method(rest, visitor))
        })*
    };
}

impl<'d> de::Deserializer<'d> for &mut Reading<'d> {
    type Error = Unread;

    fn is_human_readable(&self) -> bool {
        false
    }

    small! {
        deserialize_any deserialize_bool deserialize_char deserialize_unit
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_bytes<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.bytes(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.bytes(visitor)
    }

    fn deserialize_str<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        match self.small(|rest| u8::deserialize(rest))? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(Error::DeserializeBadOption.into()),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let count = self.count()?;
        self.items(count, visitor)
    }

    fn deserialize_tuple<V: Visitor<'d>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.items(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.items(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.items(fields.len(), visitor)
    }

    fn deserialize_map<V: Visitor<'d>>(self, visitor: V) -> Result<V::Value> {
        let left = self.count()?;
        visitor.visit_map(Items {
            reading: self,
            left,
        })
    }

    fn deserialize_enum<V: Visitor<'d>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(self)
    }
}

/// What is read one after another: the items of a sequence, the fields of a struct, keys and values.
struct Items<'r, 'd> {
    reading: &'r mut Reading<'d>,
    left: usize,
}

impl Items<'_, '_> {
    /// What they claim to be is not believed beyond what there is.
    fn hint(&self) -> Option<usize> {
        let bytes = self.reading.rest.len() + self.reading.behind.len();
        (self.left <= bytes).then_some(self.left)
    }
}

impl<'d> SeqAccess<'d> for Items<'_, 'd> {
    type Error = Unread;

    fn next_element_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reading).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'d> MapAccess<'d> for Items<'_, 'd> {
    type Error = Unread;

    fn next_key_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'d>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.reading)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'d> EnumAccess<'d> for &mut Reading<'d> {
    type Error = Unread;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'d>>(self, seed: S) -> Result<(S::Value, Self)> {
        let variant = self.small(|rest| u32::deserialize(rest))?;
        let variant: U32Deserializer<Unread> = variant.into_deserializer();
        let value = seed.deserialize(variant)?;
        Ok((value, self))
    }
}

impl<'d> VariantAccess<'d> for &mut Reading<'d> {
    type Error = Unread;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'d>>(self, seed: S) -> Result<S::Value> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'d>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.items(len, visitor)
    }

    fn struct_variant<V: Visitor<'d>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.items(fields.len(), visitor)
    }
}
