//! Framing: a header and a payload, each with its length before it and a cap upon it.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};

use crate::memory::board::View;
use crate::memory::lane::{Inbox, Outbox};
use crate::memory::place::Placed;
use crate::value::parcel::{Owned, Parcel};

/// The longest header, in bytes: room for a batch of a million calls, or a very long error message.
pub const MAX_HEADER: u32 = 64 << 20;
/// The longest payload, in bytes.
pub const MAX_PAYLOAD: u32 = 1 << 30;
/// The longest header and the longest payload until the handshake is over, in bytes.
pub const MAX_GREETING: u32 = 1 << 20;

/// Set in a payload's length if the payload stands in the [lane](crate::memory::lane) or on the
/// [board](crate::memory::board). In its place come twelve
/// bytes that say where.
pub const SHARED: u32 = 1 << 31;

/// The two lengths in front of each frame.
const PREFIX: usize = 8;
/// How much is read at least, where the sender may have sent more: small frames take one read.
const CHUNK: usize = 16 << 10;
/// The most that is reserved on the word of a length prefix alone.
const TRUST: usize = 1 << 20;
/// A buffer that grew beyond this is given back after the frame that needed it.
const KEEP: usize = 4 << 20;

/// Why no frame could be read.
#[derive(Debug)]
pub enum FrameError {
    /// The stream ended between two frames.
    Closed,
    /// The stream ended within a frame, or could not be read.
    Io(io::Error),
    /// A length stood above its cap.
    TooLong {
        /// The length it claimed, in bytes.
        claimed: u32,
        /// The cap, in bytes.
        cap: u32,
    },
    /// It spoke of a place in shared memory where there is none.
    NoSuchPlace,
}

/// Why a frame was not written at all; inside an [`io::Error`].
#[derive(Debug)]
pub(crate) struct TooLarge(String);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooLarge {}

/// The caps of one stage of a link.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// For the header.
    pub header: u32,
    /// For the payload.
    pub payload: u32,
}

impl Caps {
    /// Before the handshake is over.
    pub const GREETING: Caps = Caps {
        header: MAX_GREETING,
        payload: MAX_GREETING,
    };
    /// After it.
    pub const FULL: Caps = Caps {
        header: MAX_HEADER,
        payload: MAX_PAYLOAD,
    };
}

/// Writes one frame, `header` and then `payload`, in as few writes as the stream allows.
///
/// # Errors
///
/// What the stream says, and [`io::ErrorKind::InvalidInput`] if a part is longer than its cap; then
/// nothing has been written.
pub fn write(stream: &mut impl Write, header: &[u8], payload: &[&[u8]]) -> io::Result<()> {
    write_with(stream, header, payload, None)
}

/// Writes one frame. If there is an outbox, a large payload is put there.
/// How many pieces of a payload are left to the system to gather.
const GATHERED: usize = 16;

pub(crate) fn write_with(
    stream: &mut impl Write,
    header: &[u8],
    payload: &[&[u8]],
    outbox: Option<&mut Outbox>,
) -> io::Result<()> {
    let total = payload.iter().map(|piece| piece.len()).sum::<usize>();
    // Before anything is put anywhere.
    checked("header", header.len(), MAX_HEADER)?;
    let payload_len = checked("payload", total, MAX_PAYLOAD)?;
    match outbox.and_then(|outbox| outbox.put(payload, total)) {
        Some(placed) => write_placed(stream, header, placed),
        None => write_parts(stream, header, payload_len, payload),
    }
}

/// Writes a frame whose payload stands in shared memory already.
pub(crate) fn write_placed(
    stream: &mut impl Write,
    header: &[u8],
    placed: Placed,
) -> io::Result<()> {
    write_parts(stream, header, placed.len | SHARED, &[&placed.to_bytes()])
}

fn write_parts(
    stream: &mut impl Write,
    header: &[u8],
    payload_len: u32,
    payload: &[&[u8]],
) -> io::Result<()> {
    let header_len = checked("header", header.len(), MAX_HEADER)?;
    let mut prefix = [0; PREFIX];
    prefix[..4].copy_from_slice(&header_len.to_le_bytes());
    prefix[4..].copy_from_slice(&payload_len.to_le_bytes());
    // To have the system gather many small pieces takes longer than to copy them.
    let joined = (payload.len() > GATHERED).then(|| payload.concat());
    let joined = joined.as_deref().into_iter();
    let apart = payload
        .iter()
        .copied()
        .filter(|_| payload.len() <= GATHERED);
    let mut slices = Vec::with_capacity(3 + payload.len().min(GATHERED));
    slices.push(IoSlice::new(&prefix));
    slices.push(IoSlice::new(header));
    slices.extend(joined.chain(apart).map(IoSlice::new));
    write_all_vectored(stream, &mut slices)?;
    stream.flush()
}

fn checked(what: &str, len: usize, cap: u32) -> io::Result<u32> {
    let fits = u32::try_from(len).ok().filter(|len| *len <= cap);
    fits.ok_or_else(|| {
        let text = format!("a {what} of {len} bytes is above the limit of {cap} bytes");
        io::Error::new(io::ErrorKind::InvalidInput, TooLarge(text))
    })
}

fn write_all_vectored(stream: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Empty slices in front would make a write of nothing, which reads as a closed stream.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads frames, keeping what it has read beyond the end of one for the next.
#[derive(Debug, Default)]
pub struct Reader {
    /// What has been read stands at its beginning. The rest is room that has been written before: it
    /// need not be cleared again.
    buffer: Vec<u8>,
    /// How much has been read.
    filled: usize,
    /// Where the payload of the frame handed out last begins.
    payload: usize,
    /// Where that frame ends; what follows has not been looked at.
    used: usize,
    /// Where payloads come from that do not stand in their frames.
    inbox: Option<Inbox>,
    /// The last of these.
    parcel: Vec<u8>,
    /// Where the payload stands that is to be handed over, if not in its frame.
    elsewhere: Option<Placed>,
}

impl Reader {
    /// Reads one frame: its header and its payload.
    ///
    /// # Errors
    ///
    /// See [`FrameError`]. After an error the stream is of no further use.
    pub fn read(
        &mut self,
        stream: &mut impl Read,
        caps: Caps,
    ) -> Result<(&[u8], &[u8]), FrameError> {
        let placed = self.read_head(stream, caps)?;
        let header = &self.buffer[PREFIX..self.payload];
        let Some(placed) = placed else {
            return Ok((header, &self.buffer[self.payload..self.used]));
        };
        match &self.inbox {
            Some(inbox) if inbox.take(placed, &mut self.parcel) => Ok((header, &self.parcel)),
            _ => Err(FrameError::NoSuchPlace),
        }
    }

    /// As [`read`](Self::read), for whoever answers before he reads on and puts nothing into the lane before
    /// the word that is returned, too: the payload is where it came, if that may be.
    pub(crate) fn read_in_place(
        &mut self,
        stream: &mut impl Read,
        caps: Caps,
    ) -> Result<(&[u8], &[u8], usize), FrameError> {
        let placed = self.read_head(stream, caps)?;
        let header = &self.buffer[PREFIX..self.payload];
        let Some(placed) = placed else {
            return Ok((header, &self.buffer[self.payload..self.used], 0));
        };
        let inbox = self.inbox.as_ref().ok_or(FrameError::NoSuchPlace)?;
        if let Some(payload) = inbox.on_board(placed) {
            return Ok((header, payload, 0));
        }
        if let Some((payload, behind)) = inbox.in_place(placed) {
            return Ok((header, payload, behind));
        }
        match inbox.take(placed, &mut self.parcel) {
            true => Ok((header, &self.parcel, 0)),
            false => Err(FrameError::NoSuchPlace),
        }
    }

    /// Reads one frame, to have its header here and its payload [handed over](Self::hand_over), before
    /// anything else is read.
    pub(crate) fn read_header(
        &mut self,
        stream: &mut impl Read,
        caps: Caps,
    ) -> Result<&[u8], FrameError> {
        self.elsewhere = self.read_head(stream, caps)?;
        Ok(&self.buffer[PREFIX..self.payload])
    }

    /// Reads a frame. If its payload stands elsewhere, says where.
    fn read_head(
        &mut self,
        stream: &mut impl Read,
        caps: Caps,
    ) -> Result<Option<Placed>, FrameError> {
        self.forget_last();
        self.fill(stream, PREFIX, FrameError::Closed)?;
        let [header, payload] = [0, 4].map(|at| u32::from_le_bytes(self.array(at)));
        let shared = payload & SHARED != 0;
        let payload = payload & !SHARED;
        self.payload = PREFIX + within(header, caps.header)?;
        let len = within(payload, caps.payload)?;
        let end = self.payload + if shared { Placed::SIZE } else { len };
        self.fill(
            stream,
            end,
            FrameError::Io(io::ErrorKind::UnexpectedEof.into()),
        )?;
        self.used = end;
        Ok(shared.then(|| Placed::from_bytes(self.array(self.payload), payload)))
    }

    /// Gives away the payload of the frame that was read last. A small one is copied; for a large one the
    /// reader goes on with the buffer that `spare` gives, whatever stands in it.
    pub(crate) fn hand_over(
        &mut self,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> Result<Parcel, FrameError> {
        if let Some(placed) = self.elsewhere.take() {
            let inbox = self.inbox.as_ref().ok_or(FrameError::NoSuchPlace)?;
            let parcel = inbox.hand_over(placed, spare);
            return parcel.ok_or(FrameError::NoSuchPlace);
        }
        let payload = self.payload..self.used;
        if payload.len() < CHUNK {
            let copy = self.buffer[payload].to_vec();
            return Ok(Parcel::Whole(Owned::new(copy)));
        }
        let rest = self.filled - self.used;
        let mut next = spare();
        if next.len() < rest {
            next.resize(rest, 0);
        }
        next[..rest].copy_from_slice(&self.buffer[self.used..self.filled]);
        self.filled = rest;
        self.used = 0;
        let buffer = std::mem::replace(&mut self.buffer, next);
        Ok(Parcel::Whole(Owned::within(buffer, payload)))
    }

    /// From now on payloads may stand in this memory.
    pub(crate) fn share(&mut self, inbox: Inbox) {
        self.inbox = Some(inbox);
    }

    pub(crate) fn share_board(&mut self, board: View) {
        if let Some(inbox) = &mut self.inbox {
            inbox.set_board(board);
        }
    }

    /// Whether bytes have been read that no frame handed out so far contains.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.filled > self.used
    }

    fn forget_last(&mut self) {
        let rest = self.filled - self.used;
        self.buffer.copy_within(self.used..self.filled, 0);
        self.filled = rest;
        self.used = 0;
        if self.buffer.capacity() > KEEP && rest < KEEP {
            self.buffer.truncate(KEEP);
            self.buffer.shrink_to(KEEP);
        }
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[at..at + N]);
        bytes
    }

    /// Reads until `want` bytes are in the buffer. `at_start` is the error for a stream that ends
    /// before the first of them.
    fn fill(
        &mut self,
        stream: &mut impl Read,
        want: usize,
        at_start: FrameError,
    ) -> Result<(), FrameError> {
        let had = self.filled;
        while self.filled < want {
            let missing = want - self.filled;
            // A little more than is missing, which the sender may have sent already; and, where a length
            // claims a lot, no more than has arrived again.
            let room = missing.clamp(CHUNK, self.filled.max(TRUST));
            match self.read_some(stream, room) {
                Ok(0) if self.filled == 0 && had == 0 => return Err(at_start),
                Ok(0) => return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
        Ok(())
    }

    /// One read of whatever has arrived, into so much room behind what is there already.
    fn read_some(&mut self, stream: &mut impl Read, room: usize) -> io::Result<usize> {
        let end = self.filled + room;
        if self.buffer.len() < end {
            // Not `resize` alone: memory that can't be had is an error here, not an abort.
            self.buffer.try_reserve(end - self.buffer.len())?;
            self.buffer.resize(end, 0);
        }
        let read = stream.read(&mut self.buffer[self.filled..end])?;
        self.filled += read;
        Ok(read)
    }
}

/// A length that its sender claims, if it is allowed.
fn within(claimed: u32, cap: u32) -> Result<usize, FrameError> {
    match claimed <= cap {
        // A u32 fits into the usize of every platform with sockets.
        true => Ok(claimed as usize),
        false => Err(FrameError::TooLong { claimed, cap }),
    }
}
