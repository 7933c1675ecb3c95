//! Values in postcard encoding: appended to what is there already, and read again.
//!
//! Neither uses the functions that postcard has for it: those are a call for each number, which is a good
//! part of what a short call costs.

use serde::{Deserialize, Serialize};

use super::reader::Reading;
use super::writer::{ValueError, Writer};

/// Appends a value to a buffer. If it can't be encoded, the buffer is as it was.
///
/// # Errors
///
/// What the value's own `Serialize` says.
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

/// Reads a value that bytes are the encoding of, all of them.
///
/// # Errors
///
/// They are not; in words.
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

/// A value that was read, if nothing is left.
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

/// As many bytes as the longest number of 64 bits.
pub(crate) const FEW: usize = 10;

/// Appends a few bytes. Numbers come as such, just written one by one: to copy them like that costs less than
/// a call, or than to load them as words, which would have to wait for all of them to be there.
#[inline]
#[expect(clippy::map_clone, reason = "`copied` would make a call of it")]
pub(crate) fn extend_few(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend(bytes.iter().map(|byte| *byte));
}

struct Append<'b>(&'b mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes.len() <= FEW {
            true => extend_few(self.0, bytes),
            false => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
