//! A sheet takes the encoding of one value that will be sent.
//!
//! Small values stand one behind the other in a buffer, until several of them are sent together. A large value is
//! encoded directly where it will be read, so that it need not be copied once more: an output
//! into the [lane](crate::memory::lane), an input onto the [board](crate::memory::board).

use std::ops::Range;

use serde::Serialize;

use super::error::ValueError;
use super::room::{Begun, Room};
use super::writer::{Output, Writer, push_word};
use crate::pages;

/// The least piece, written at once, that makes a value a large one, in bytes.
const LARGE: usize = 128 << 10;

/// The place that one value is written on.
#[derive(Debug)]
pub struct SheetIn<'s, R: Room> {
    /// The buffer. It ends with the value, or with what is still to be added to it if it is large.
    buffer: &'s mut Vec<u8>,
    /// Where in the buffer that end begins.
    start: usize,
    large: Large<R>,
    /// The largest piece in the buffer, from where the value begins.
    piece: Range<usize>,
}

#[derive(Debug)]
enum Large<R: Room> {
    /// There is no room for a large value.
    No,
    Perhaps(R),
    /// A large value is being written, and is complete up to its last large piece.
    Begun(R::Begun),
}

impl<'s, R: Room> SheetIn<'s, R> {
    /// A sheet at the end of a buffer, with a room for a large value if there is one.
    #[inline]
    pub fn new(buffer: &'s mut Vec<u8>, room: Option<R>) -> Self {
        SheetIn {
            start: buffer.len(),
            buffer,
            large: room.map_or(Large::No, Large::Perhaps),
            piece: 0..0,
        }
    }

    /// Where the largest piece of the value stands in it, if the value stands in the buffer and the piece is large.
    #[must_use]
    #[inline]
    pub fn piece(&self) -> Range<usize> {
        match &self.large {
            Large::Begun(_) => 0..0,
            Large::No | Large::Perhaps(_) => self.piece.clone(),
        }
    }

    /// The buffer, for a caller that appends to it by other means.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer
    }

    /// Encodes a value in postcard.
    ///
    /// # Errors
    ///
    /// The error of the value's own `Serialize`. [Clear](Self::clear) the sheet then.
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
        let mut writer = Writer::to(self.writing());
        value.serialize(&mut writer).map_err(ValueError::of::<V>)
    }

    /// Appends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.writing().bytes(bytes);
    }

    #[inline]
    fn writing(&mut self) -> Writing<'_, R> {
        Writing {
            buffer: self.buffer,
            start: self.start,
            large: &mut self.large,
            piece: &mut self.piece,
        }
    }

    /// Takes back all that was written on the sheet.
    pub fn clear(&mut self) {
        self.buffer.truncate(self.start);
        self.large = Large::No;
        self.piece = 0..0;
    }

    /// The value, if it was written where it will be read. Otherwise it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn begun(self) -> Option<R::Begun> {
        match self.large {
            Large::Begun(begun) => add_rest(self.buffer, self.start, begun),
            Large::No | Large::Perhaps(_) => None,
        }
    }
}

/// Moves what stands in the buffer to the large value. If there is no room for it, the whole value moves into the
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

/// What is being written. Small pieces always go to the buffer, so that they cost no further check.
struct Writing<'w, R: Room> {
    buffer: &'w mut Vec<u8>,
    start: usize,
    large: &'w mut Large<R>,
    piece: &'w mut Range<usize>,
}

impl<R: Room> Writing<'_, R> {
    /// Writes a large piece where it will be read, or else into the buffer.
    #[cold]
    fn push_large(&mut self, piece: &[u8]) {
        if self.place(piece) {
            return;
        }
        let at = self.buffer.len() - self.start;
        if piece.len() > self.piece.len() {
            *self.piece = at..at + piece.len();
        }
        // If there is no memory the next line says so as any vector does.
        let _ = pages::reserve(self.buffer, piece.len());
        self.buffer.extend_from_slice(piece);
    }

    /// Writes a large piece into the room. Returns `false` if there is no room, and the piece belongs into the buffer.
    fn place(&mut self, piece: &[u8]) -> bool {
        let Self { buffer, start, .. } = self;
        *self.large = match std::mem::replace(self.large, Large::No) {
            Large::No => return false,
            Large::Perhaps(room) => match room.begin(&buffer[*start..], piece) {
                None => return false,
                Some(begun) => {
                    buffer.truncate(*start);
                    Large::Begun(begun)
                }
            },
            Large::Begun(begun) => {
                let Some(mut begun) = add_rest(buffer, *start, begun) else {
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
}

impl<R: Room> Output for Writing<'_, R> {
    #[inline]
    fn word(&mut self, word: u64, len: usize) {
        push_word(self.buffer, word, len);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        match bytes.len() < LARGE {
            true => self.buffer.extend_from_slice(bytes),
            false => self.push_large(bytes),
        }
    }
}
