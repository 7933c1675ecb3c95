//! Encoding: postcard's serializer, with the error texts that it lacks.
//!
//! postcard drops the text of an error. It also accepts a struct that leaves out a field, and then the reader takes the
//! next field for the missing one. This serializer keeps the text, and refuses such a struct.

use std::fmt::Display;

use postcard::ser_flavors::Flavor;
use serde::ser::{self, Serialize};

use super::error::ValueError;
use super::packed::Integer;
use super::whole::{self, MANY};

/// Writes values to the postcard flavour `F`.
pub(crate) struct Writer<F: Flavor>(postcard::Serializer<F>);

impl<F: Flavor> Writer<F> {
    #[inline]
    pub(crate) fn to(output: F) -> Self {
        Writer(postcard::Serializer { output })
    }

    /// Writes a sequence of numbers, which have these bytes.
    #[inline(never)]
    fn whole(&mut self, count: usize, bytes: &[u8], integer: Option<Integer>) -> Result {
        if let Some(integer) = integer {
            ser::Serializer::serialize_u64(&mut self.0, integer.mark())?;
        }
        ser::Serializer::serialize_u64(&mut self.0, count as u64)?;
        Ok(self.0.output.try_extend(bytes)?)
    }
}

type Result = std::result::Result<(), ValueError>;

macro_rules! as_postcard {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(#[inline]
        fn $method(self, $($name: $type),*) -> Result {
            Ok(self.0.$method($($name),*)?)
        })*
    };
}

macro_rules! compound {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(#[inline]
        fn $method(self, $($name: $type),*) -> std::result::Result<Self, ValueError> {
            self.0.$method($($name),*)?;
            Ok(self)
        })*
    };
}

impl<F: Flavor> ser::Serializer for &mut Writer<F> {
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

    as_postcard! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    compound! {
        serialize_tuple(len: usize);
        serialize_tuple_struct(name: &'static str, len: usize);
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize);
        serialize_struct(name: &'static str, len: usize);
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize);
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        self.0.serialize_bool(true)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result {
        self.0.serialize_unit_variant(name, index, variant)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> std::result::Result<Self, ValueError> {
        match len {
            Some(_) => self.0.serialize_seq(len)?,
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
            Some(_) => self.0.serialize_map(len)?,
            None => return Err(uncounted("a map, or a struct with `#[serde(flatten)]`,")),
        };
        Ok(self)
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result {
        Ok(self.0.collect_str(value)?)
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
        $(impl<F: Flavor> ser::$trait for &mut Writer<F> {
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
        $(impl<F: Flavor> ser::$trait for &mut Writer<F> {
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

impl<F: Flavor> ser::SerializeMap for &mut Writer<F> {
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
