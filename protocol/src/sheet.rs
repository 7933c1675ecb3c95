//! Where a value is written that is to be sent.
//!
//! Values stand one behind the other in a buffer, until some of them are sent together. A large one goes
//! where it will be read, while it is being encoded, so that it need not be copied once more: an output
//! into the [lane](crate::lane), an input onto the [board](crate::board).

use std::fmt::Debug;
use std::sync::Arc;

use postcard::Serializer;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

use crate::board::{Board, Region};
use crate::encode::{FEW, extend_few};
use crate::lane::{OpenDraft, Outbox, Placed};

/// How much has to come at once to make a value a large one, in bytes.
const LARGE: usize = 128 << 10;

/// Where there may be room for a large value.
pub trait Room: Debug {
    /// One that is being written there.
    type Begun: Begun + Debug;

    /// Begins with a large piece and what is before it. `None` if they find no room.
    fn begin(self, before: &[u8], piece: &[u8]) -> Option<Self::Begun>;
}

/// A large value that is being written where it will be read. Dropped, it has never been there.
pub trait Begun {
    /// Adds bytes. `false`, and nothing is added, if there is no room for them.
    #[must_use]
    fn append(&mut self, bytes: &[u8]) -> bool;

    /// Adds what has been written so far to a buffer.
    fn copy_to(&self, buffer: &mut Vec<u8>);
}

/// What one call's output is written on.
pub type Sheet<'s> = SheetIn<'s, &'s mut Outbox>;
/// What one call's input is written on.
pub type InputSheet<'s> = SheetIn<'s, &'s Arc<Board>>;

/// What one value is written on.
#[derive(Debug)]
pub struct SheetIn<'s, R: Room> {
    buffer: &'s mut Vec<u8>,
    /// Where in the buffer this value begins.
    start: usize,
    large: Large<R>,
}

#[derive(Debug)]
enum Large<R: Room> {
    /// There is no room for one.
    No,
    Perhaps(R),
    /// All of the value is there.
    Begun(R::Begun),
}

impl<'s> Sheet<'s> {
    /// What is written on it, if it is in the lane; else it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn placed(self) -> Option<Placed> {
        self.begun().map(OpenDraft::close)
    }
}

impl InputSheet<'_> {
    /// What is written on it, if it is on the board; else it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn region(self) -> Option<Region> {
        self.begun()
    }
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
    /// use protocol::sheet::Sheet;
    ///
    /// let mut buffer = vec![7];
    /// Sheet::new(&mut buffer, None).encode(&(1_u8, true))?;
    /// assert_eq!(buffer, [7, 1, 1]);
    /// # Ok::<(), postcard::Error>(())
    /// ```
    #[inline]
    pub fn encode<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), postcard::Error> {
        value.serialize(&mut Serializer {
            output: Writing(self),
        })
    }

    /// Forgets what is written on it.
    pub fn clear(&mut self) {
        self.buffer.truncate(self.start);
        self.large = Large::No;
    }

    #[inline]
    fn begun(self) -> Option<R::Begun> {
        match self.large {
            Large::Begun(begun) => Some(begun),
            Large::No | Large::Perhaps(_) => None,
        }
    }

    #[inline]
    fn is_in_buffer(&self) -> bool {
        !matches!(self.large, Large::Begun(_))
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        if bytes.len() >= LARGE && self.begin(bytes) {
            return;
        }
        if let Large::Begun(begun) = &mut self.large {
            if begun.append(bytes) {
                return;
            }
            begun.copy_to(self.buffer);
            self.large = Large::No;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Goes on elsewhere with a large piece, if nothing is there yet.
    fn begin(&mut self, piece: &[u8]) -> bool {
        self.large = match std::mem::replace(&mut self.large, Large::No) {
            Large::Perhaps(room) => match room.begin(&self.buffer[self.start..], piece) {
                Some(begun) => {
                    self.buffer.truncate(self.start);
                    self.large = Large::Begun(begun);
                    return true;
                }
                None => Large::No,
            },
            large => large,
        };
        false
    }
}

struct Writing<'w, 's, R: Room>(&'w mut SheetIn<'s, R>);

impl<R: Room> Flavor for Writing<'_, '_, R> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.0.is_in_buffer() {
            true => self.0.buffer.push(byte),
            false => self.0.write(&[byte]),
        }
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes.len() <= FEW && self.0.is_in_buffer() {
            true => extend_few(self.0.buffer, bytes),
            false => self.0.write(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
