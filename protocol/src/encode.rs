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
const FEW: usize = 10;

struct Append<'b>(&'b mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    #[expect(clippy::map_clone, reason = "`copied` would make a call of it")]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Numbers come as a few bytes, just written one by one. To copy them as such costs less than a call, or
        // than to load them as words, which would have to wait for all of them to be there.
        if bytes.len() <= FEW {
            self.0.extend(bytes.iter().map(|byte| *byte));
        } else {
            self.0.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
