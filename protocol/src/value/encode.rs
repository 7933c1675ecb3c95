//! Encoding values in postcard, behind what a buffer already holds, and decoding them.
//!
//! Neither direction uses postcard's own functions for whole values: those take a function call for each number, which is a
//! good part of what a short call of a task costs. What is rare is left to postcard, and so is each number that is read.

use serde::{Deserialize, Serialize};

use super::error::ValueError;
use super::reader::Reading;
use super::writer::{Output, Writer, push_word};

/// Appends a value to a buffer. If the value can't be encoded, the buffer stays as it was.
///
/// # Errors
///
/// The error of the value's own `Serialize`.
///
/// ```
/// let mut buffer = vec![7];
/// protocol::encode(&(1_u8, true), &mut buffer)?;
/// assert_eq!(buffer, [7, 1, 1]);
/// # Ok::<(), protocol::ValueError>(())
/// ```
#[inline]
pub fn encode<V: Serialize + ?Sized>(value: &V, buffer: &mut Vec<u8>) -> Result<(), ValueError> {
    let start = buffer.len();
    let encoded = value.serialize(&mut Writer::to(Append(buffer)));
    encoded.map_err(|error| {
        buffer.truncate(start);
        error.of::<V>()
    })
}

/// Decodes a value from bytes, all of which have to belong to it.
///
/// # Errors
///
/// Says in words why the bytes are no encoding of such a value.
///
/// ```
/// assert_eq!(protocol::decode::<(u8, bool)>(&[7, 1]), Ok((7, true)));
/// assert_eq!(protocol::decode::<u8>(&[7, 1]), Err("1 bytes too many".to_owned()));
/// assert!(protocol::decode::<(u8, bool)>(&[7]).is_err());
/// ```
#[inline]
pub fn decode<'d, V: Deserialize<'d>>(bytes: &'d [u8]) -> Result<V, String> {
    let mut reading = Reading::of(bytes);
    let value = V::deserialize(&mut reading).map_err(in_words::<V>)?;
    all_read(value, reading.left().0)
}

/// The value that was read, or an error if bytes are left.
#[inline]
pub(crate) fn all_read<V>(value: V, rest: &[u8]) -> Result<V, String> {
    match rest {
        [] => Ok(value),
        rest => Err(too_many(rest.len())),
    }
}

#[cold]
fn in_words<V>(error: ValueError) -> String {
    error.of::<V>().to_string()
}

#[cold]
fn too_many(bytes: usize) -> String {
    format!("{bytes} bytes too many")
}

struct Append<'b>(&'b mut Vec<u8>);

impl Output for Append<'_> {
    #[inline]
    fn word(&mut self, word: u64, len: usize) {
        push_word(self.0, word, len);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}
