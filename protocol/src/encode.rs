//! Appends values in postcard encoding to what is there already.

use serde::Serialize;

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
/// # Ok::<(), postcard::Error>(())
/// ```
pub fn encode<V: Serialize + ?Sized>(
    value: &V,
    buffer: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    let start = buffer.len();
    let encoded = postcard::serialize_with_flavor(value, Append(buffer));
    if encoded.is_err() {
        buffer.truncate(start);
    }
    encoded
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
