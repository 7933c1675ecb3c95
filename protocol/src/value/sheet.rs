//! Where a value is written that is to be sent.
//!
//! Values stand one behind the other in a buffer, until some of them are sent together. A large one goes
//! where it will be read, while it is being encoded, so that it need not be copied once more: an output
//! into the [lane](crate::memory::lane), an input onto the [board](crate::memory::board).

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::encode::{FEW, extend_few};
use super::room::{Begun, Room};
use super::writer::{ValueError, Writer};

/// How much has to come at once to make a value a large one, in bytes.
const LARGE: usize = 128 << 10;

/// What one value is written on.
#[derive(Debug)]
pub struct SheetIn<'s, R: Room> {
    /// Ends with the value, or if it is large with what is to be added to it.
    buffer: &'s mut Vec<u8>,
    /// Where in the buffer that begins.
    start: usize,
    large: Large<R>,
}

#[derive(Debug)]
enum Large<R: Room> {
    /// There is no room for one.
    No,
    Perhaps(R),
    /// Up to its last large piece, the value is there.
    Begun(R::Begun),
}

impl<'s, R: Room> SheetIn<'s, R> {
    /// One at the end of a buffer, if there is no room for it elsewhere.
    #[inline]
    pub fn new(buffer: &'s mut Vec<u8>, room: Option<R>) -> Self {
        SheetIn {
            start: buffer.len(),
            buffer,
            large: room.map_or(Large::No, Large::Perhaps),
        }
    }

    /// The buffer, for whoever writes at its end in another way.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer
    }

    /// Encodes a value in postcard.
    ///
    /// # Errors
    ///
    /// What the value's own `Serialize` says. What is written then is to be [cleared](Self::clear).
    ///
    /// ```
    /// use protocol::memory::lane::Sheet;
    ///
    /// let mut buffer = vec![7];
    /// Sheet::new(&mut buffer, None).encode(&(1_u8, true))?;
    /// assert_eq!(buffer, [7, 1, 1]);
    /// # Ok::<(), protocol::ValueError>(())
    /// ```
    #[inline]
    pub fn encode<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), ValueError> {
        let mut writer = Writer::to(Writing {
            buffer: self.buffer,
            start: self.start,
            large: &mut self.large,
        });
        value.serialize(&mut writer).map_err(ValueError::of::<V>)
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        write(self.buffer, self.start, &mut self.large, bytes);
    }

    /// Forgets what is written on it.
    pub fn clear(&mut self) {
        self.buffer.truncate(self.start);
        self.large = Large::No;
    }

    /// What is written on it, if it is where it will be read; else it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn begun(self) -> Option<R::Begun> {
        match self.large {
            Large::Begun(begun) => add_rest(self.buffer, self.start, begun),
            Large::No | Large::Perhaps(_) => None,
        }
    }
}

/// Adds what stands in the buffer to a large value. If there is no room for it, all of the value is in the
/// buffer.
#[cold]
fn add_rest<B: Begun>(buffer: &mut Vec<u8>, start: usize, mut begun: B) -> Option<B> {
    if begun.append(&buffer[start..]) {
        buffer.truncate(start);
        return Some(begun);
    }
    let rest = buffer.split_off(start);
    begun.copy_to(buffer);
    buffer.extend_from_slice(&rest);
    None
}

fn write<R: Room>(buffer: &mut Vec<u8>, start: usize, large: &mut Large<R>, bytes: &[u8]) {
    if bytes.len() < LARGE || !write_large(buffer, start, large, bytes) {
        buffer.extend_from_slice(bytes);
    }
}

/// Writes a large piece where the value is to be, if there is room; `false` if it belongs into the buffer.
#[cold]
fn write_large<R: Room>(
    buffer: &mut Vec<u8>,
    start: usize,
    large: &mut Large<R>,
    piece: &[u8],
) -> bool {
    *large = match std::mem::replace(large, Large::No) {
        Large::No => return false,
        Large::Perhaps(room) => match room.begin(&buffer[start..], piece) {
            None => return false,
            Some(begun) => {
                buffer.truncate(start);
                Large::Begun(begun)
            }
        },
        Large::Begun(begun) => {
            let Some(mut begun) = add_rest(buffer, start, begun) else {
                return false;
            };
            if !begun.append(piece) {
                begun.copy_to(buffer);
                return false;
            }
            Large::Begun(begun)
        }
    };
    true
}

/// Small pieces go into the buffer in any case, so that nothing has to be asked for them.
struct Writing<'w, R: Room> {
    buffer: &'w mut Vec<u8>,
    start: usize,
    large: &'w mut Large<R>,
}

impl<R: Room> Flavor for Writing<'_, R> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.buffer.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes.len() <= FEW {
            true => extend_few(self.buffer, bytes),
            false => write(self.buffer, self.start, self.large, bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
