//! A payload that the link hands over to its receiver, instead of lending it.
//!
//! A large output is mostly one large piece: a buffer, or a text. The worker says where in the payload that piece
//! [stands](crate::memory::place::Placed). The coordinator receives the piece into memory of its own, and that memory
//! becomes part of the decoded value. So the piece is not copied once more, and not kept twice.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;

use super::encode;
use super::reader::{Reading, take_refused};

/// A frame that was handed over, payload and all.
#[derive(Debug, Default)]
pub struct Owned {
    buffer: Vec<u8>,
    payload: Range<usize>,
}

impl Owned {
    /// A payload that did not come in a frame.
    #[must_use]
    pub fn new(payload: Vec<u8>) -> Self {
        Owned {
            payload: 0..payload.len(),
            buffer: payload,
        }
    }

    /// The payload in a part of a buffer.
    pub(crate) fn within(buffer: Vec<u8>, payload: Range<usize>) -> Self {
        Owned { buffer, payload }
    }

    /// The payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// The buffer, for another frame.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

/// A payload that was handed over.
#[derive(Debug)]
pub enum Parcel {
    /// In one buffer.
    Whole(Owned),
    /// In two buffers: its large piece stands apart.
    Apart(Apart),
}

impl Parcel {
    /// The length of the payload, in bytes.
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

/// A payload that was received, and that is lent or given.
#[derive(Debug)]
pub enum Received<'r> {
    /// It stands where it came.
    Lent(&'r [u8]),
    /// It was handed over.
    Given(Parcel),
}

impl Received<'_> {
    /// The length of the payload, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Received::Lent(bytes) => bytes.len(),
            Received::Given(parcel) => parcel.len(),
        }
    }

    /// All of it, in one piece.
    #[must_use]
    pub fn join(&self) -> Cow<'_, [u8]> {
        match self {
            Received::Lent(bytes) => Cow::Borrowed(bytes),
            Received::Given(parcel) => parcel.join(),
        }
    }

    /// Decodes the value. A field that holds exactly the large piece takes it over.
    ///
    /// # Errors
    ///
    /// As [`decode`](crate::decode) has them for the whole encoding.
    #[inline]
    pub fn decode<V: DeserializeOwned>(self) -> Result<V, String> {
        match self {
            Received::Lent(bytes) => encode::decode(bytes),
            Received::Given(Parcel::Whole(owned)) => encode::decode(owned.payload()),
            Received::Given(Parcel::Apart(apart)) => apart.decode(),
        }
    }
}

/// An encoded value in two buffers: a large piece, and the bytes around it.
#[derive(Debug, Clone, Default)]
pub struct Apart {
    /// The bytes before the piece and behind it.
    around: Vec<u8>,
    /// How many of those bytes stand before the piece.
    at: usize,
    piece: Vec<u8>,
}

impl Apart {
    /// A piece, and the bytes around it, of which the first `at` stand before it. `None` if there are not so many.
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

    /// Decodes the value. If one of its fields holds exactly the piece, the field takes the piece over. If not, the value
    /// is decoded a second time, from one buffer.
    ///
    /// # Errors
    ///
    /// As [`decode`](crate::decode) has them for the whole encoding.
    ///
    /// ```
    /// use protocol::value::parcel::Apart;
    ///
    /// let text = "a long text".to_owned();
    /// let at = text.as_ptr();
    /// let apart = Apart::new(vec![7, 11, 1], 2, text.into_bytes()).unwrap();
    /// let value: (u8, String, bool) = apart.decode()?;
    /// assert_eq!(value, (7, "a long text".to_owned(), true));
    /// assert_eq!(value.1.as_ptr(), at);
    /// # Ok::<(), String>(())
    /// ```
    pub fn decode<V: DeserializeOwned>(self) -> Result<V, String> {
        let Apart { around, at, piece } = self;
        let (rest, behind) = around.split_at(at);
        let mut reading = Reading::around(rest, piece, behind);
        let value = V::deserialize(&mut reading);
        let (rest, piece) = reading.left();
        match (value, piece.or_else(take_refused)) {
            (Ok(value), None) => encode::all_read(value, rest),
            (Err(error), None) => Err(error.of::<V>().to_string()),
            // No field took the piece: the worker named a wrong one, or the type's `Deserialize` reads in a way of its own.
            (_, Some(piece)) => encode::decode(&Apart { around, at, piece }.join()),
        }
    }
}
