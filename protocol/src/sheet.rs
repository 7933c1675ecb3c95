//! Where an output is written.
//!
//! Outputs stand one behind the other in a buffer, until some of them are sent together. A large one goes
//! where it will be read: into the [lane](crate::lane), while it is being encoded, so that it need not be
//! copied once more.

use postcard::Serializer;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

use crate::encode::{FEW, extend_few};
use crate::lane::{OpenDraft, Outbox, Placed};

/// How much has to come at once to make an output a large one, in bytes.
const LARGE: usize = 128 << 10;

/// What one call's output is written on.
#[derive(Debug)]
pub struct Sheet<'s> {
    buffer: &'s mut Vec<u8>,
    /// Where in the buffer this output begins.
    start: usize,
    lane: Lane<'s>,
}

#[derive(Debug)]
enum Lane<'s> {
    /// There is none, or no room in it.
    None,
    Empty(&'s mut Outbox),
    /// All of the output is there.
    Begun(OpenDraft<'s>),
}

impl<'s> Sheet<'s> {
    /// One at the end of a buffer.
    pub fn new(buffer: &'s mut Vec<u8>) -> Self {
        Self::with_lane(buffer, None)
    }

    #[inline]
    pub(crate) fn with_lane(buffer: &'s mut Vec<u8>, outbox: Option<&'s mut Outbox>) -> Self {
        Sheet {
            start: buffer.len(),
            buffer,
            lane: outbox.map_or(Lane::None, Lane::Empty),
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
    /// Sheet::new(&mut buffer).encode(&(1_u8, true))?;
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
        self.lane = Lane::None;
    }

    /// What is written on it, if it is in the lane; else it stands at the end of the buffer.
    #[must_use]
    #[inline]
    pub fn placed(self) -> Option<Placed> {
        match self.lane {
            Lane::Begun(draft) => Some(draft.close()),
            Lane::None | Lane::Empty(_) => None,
        }
    }

    #[inline]
    fn is_in_buffer(&self) -> bool {
        !matches!(self.lane, Lane::Begun(_))
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() >= LARGE && self.move_to_lane(bytes) {
            return;
        }
        if let Lane::Begun(draft) = &mut self.lane {
            if draft.append(bytes) {
                return;
            }
            draft.copy_to(self.buffer);
            self.lane = Lane::None;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Goes on in the lane with a large piece, if nothing is there yet.
    fn move_to_lane(&mut self, piece: &[u8]) -> bool {
        if !matches!(self.lane, Lane::Empty(_)) {
            return false;
        }
        let Lane::Empty(outbox) = std::mem::replace(&mut self.lane, Lane::None) else {
            return false;
        };
        let Some(draft) = outbox.draft(&self.buffer[self.start..], piece) else {
            return false;
        };
        self.buffer.truncate(self.start);
        self.lane = Lane::Begun(draft);
        true
    }
}

struct Writing<'w, 's>(&'w mut Sheet<'s>);

impl Flavor for Writing<'_, '_> {
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
