//! Framing: a header and a payload, each with a length in front of it and a cap on that length.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};

use crate::memory::board::View;
use crate::memory::ferry::Ferry;
use crate::memory::lane::Inbox;
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
/// The least room that a read offers, in bytes, so that a small frame takes one read.
const CHUNK: usize = 16 << 10;
/// The most memory that a length prefix alone can reserve, in bytes.
const TRUST: usize = 1 << 20;
/// A buffer that grew beyond this size is freed after the frame that needed it.
const KEEP: usize = 4 << 20;

/// Why a frame could not be read.
#[derive(Debug)]
pub enum FrameError {
    /// The stream ended between two frames.
    Closed,
    /// The stream ended within a frame, or could not be read.
    Io(io::Error),
    /// A length was above its cap.
    TooLong {
        /// The length it claimed, in bytes.
        claimed: u32,
        /// The cap, in bytes.
        cap: u32,
    },
    /// The frame named a place that shared memory does not have.
    NoSuchPlace,
}

/// Why nothing of a frame was written. It stands inside an [`io::Error`].
#[derive(Debug)]
pub(crate) struct TooLarge(String);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooLarge {}

/// The caps on the lengths of frames, at one stage of a link.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// The cap on the header, in bytes.
    pub header: u32,
    /// The cap on the payload, in bytes.
    pub payload: u32,
}

impl Caps {
    /// The caps before the end of the handshake.
    pub const GREETING: Caps = Caps {
        header: MAX_GREETING,
        payload: MAX_GREETING,
    };
    /// The caps after the handshake.
    pub const FULL: Caps = Caps {
        header: MAX_HEADER,
        payload: MAX_PAYLOAD,
    };
}

/// Writes one frame, `header` and then `payload`, in as few writes as the stream allows.
///
/// # Errors
///
/// The stream's own errors, and [`io::ErrorKind::InvalidInput`] if a part is longer than its cap. Nothing has been
/// written in the second case.
pub fn write(stream: &mut impl Write, header: &[u8], payload: &[&[u8]]) -> io::Result<()> {
    let payload_len = check(header, payload)?;
    write_parts(stream, header, payload_len, payload)
}

/// Checks the lengths of a frame's parts, and returns that of its payload. So a frame that is too large leaves nothing
/// behind, neither on the stream nor in shared memory.
pub(super) fn check(header: &[u8], payload: &[&[u8]]) -> io::Result<u32> {
    let total = payload.iter().map(|piece| piece.len()).sum::<usize>();
    checked("header", header.len(), MAX_HEADER)?;
    checked("payload", total, MAX_PAYLOAD)
}

/// Writes a frame whose payload stands in shared memory already.
pub(crate) fn write_placed(
    stream: &mut impl Write,
    header: &[u8],
    placed: Placed,
) -> io::Result<()> {
    write_parts(stream, header, placed.len | SHARED, &[&placed.to_bytes()])
}

/// The most pieces of a payload that one system call gathers.
const GATHERED: usize = 16;

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
    // Letting the system gather many small pieces takes longer than copying them.
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
    // A write of empty slices alone returns 0, which would look like a closed stream.
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

/// Reads frames. Bytes that it has read beyond the end of a frame, it keeps for the next.
#[derive(Debug, Default)]
pub struct Reader {
    /// The bytes read so far stand at its beginning. The rest is room that is initialized already, so that it need not
    /// be cleared again.
    buffer: Vec<u8>,
    /// How many bytes have been read.
    filled: usize,
    /// Where the payload begins of the frame that was handed out last.
    payload: usize,
    /// Where that frame ends. Bytes behind it have not been looked at.
    used: usize,
    /// The shared memory from which payloads come that do not stand in their frames.
    inbox: Option<Inbox>,
    /// The last such payload.
    parcel: Vec<u8>,
    /// Where the payload stands that will be handed over, if not in its frame.
    elsewhere: Option<Placed>,
}

impl Reader {
    /// Reads one frame: its header and its payload.
    ///
    /// # Errors
    ///
    /// See [`FrameError`]. After an error the stream can't be read any further.
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

    /// The payload of the frame whose [header](Self::read_header) was read, without copying it out of the lane where that is
    /// possible. The caller must answer before it reads on, and must put its answers behind the word that is returned.
    pub(crate) fn in_place(&mut self) -> Result<(&[u8], usize), FrameError> {
        let Some(placed) = self.elsewhere.take() else {
            return Ok((&self.buffer[self.payload..self.used], 0));
        };
        let inbox = self.inbox.as_ref().ok_or(FrameError::NoSuchPlace)?;
        if let Some(payload) = inbox.on_board(placed) {
            return Ok((payload, 0));
        }
        if let Some(lent) = inbox.in_place(placed) {
            return Ok(lent);
        }
        match inbox.take(placed, &mut self.parcel) {
            true => Ok((&self.parcel, 0)),
            false => Err(FrameError::NoSuchPlace),
        }
    }

    /// The place of the payload, if it crosses the lane in parts. Whoever asks has to receive it.
    pub(super) fn in_parts(&mut self) -> Option<Placed> {
        self.elsewhere.take_if(|placed| placed.is_in_parts())
    }

    /// The payload of the frame whose [header](Self::read_header) was read. It is taken out of shared memory.
    pub(super) fn take(&mut self) -> Result<&[u8], FrameError> {
        let Some(placed) = self.elsewhere.take() else {
            return Ok(&self.buffer[self.payload..self.used]);
        };
        match &self.inbox {
            Some(inbox) if inbox.take(placed, &mut self.parcel) => Ok(&self.parcel),
            _ => Err(FrameError::NoSuchPlace),
        }
    }

    /// Keeps a payload that has come in parts for one who borrows it.
    pub(super) fn keep(&mut self, parcel: &Parcel) -> &[u8] {
        self.parcel = parcel.join().into_owned();
        &self.parcel
    }

    pub(super) fn ferry(&self) -> Option<Ferry> {
        Ferry::new(self.inbox.as_ref()?.shared())
    }

    /// Reads a byte behind the frame.
    pub(super) fn read_byte(&mut self, stream: &mut impl Read) -> Result<(), FrameError> {
        let end = || FrameError::Io(io::ErrorKind::UnexpectedEof.into());
        self.fill(stream, self.used + 1, end())?;
        self.used += 1;
        Ok(())
    }

    /// Reads one frame and returns its header. The caller takes the payload before it reads anything else: [over](Self::hand_over),
    /// or [where it stands](Self::in_place).
    pub(crate) fn read_header(
        &mut self,
        stream: &mut impl Read,
        caps: Caps,
    ) -> Result<&[u8], FrameError> {
        self.elsewhere = self.read_head(stream, caps)?;
        Ok(&self.buffer[PREFIX..self.payload])
    }

    /// Reads a frame. If its payload stands in shared memory, returns the place.
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

    /// Gives away the payload of the frame that was read last. A small payload is copied. With a large payload the reader
    /// gives its buffer away and goes on with the one from `spare`, whose content does not matter.
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

    /// Accepts payloads in this memory from now on.
    pub(crate) fn share(&mut self, inbox: Inbox) {
        self.inbox = Some(inbox);
    }

    pub(crate) fn share_board(&mut self, board: View) {
        if let Some(inbox) = &mut self.inbox {
            inbox.set_board(board);
        }
    }

    /// Whether bytes have been read behind the frames handed out so far.
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

    /// Reads until the buffer holds `want` bytes. `at_start` is the error for a stream that ends
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
            // A little more than is missing, because the next frame may have arrived already. Where a length claims a lot,
            // the buffer at most doubles.
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

    /// Reads once, into `room` bytes behind those that are there already.
    fn read_some(&mut self, stream: &mut impl Read, room: usize) -> io::Result<usize> {
        let end = self.filled + room;
        if self.buffer.len() < end {
            // Not `resize` alone: it would abort where memory can't be had, and this returns an error.
            self.buffer.try_reserve(end - self.buffer.len())?;
            self.buffer.resize(end, 0);
        }
        let read = stream.read(&mut self.buffer[self.filled..end])?;
        self.filled += read;
        Ok(read)
    }
}

/// A length that its sender claims, if it is within the cap.
fn within(claimed: u32, cap: u32) -> Result<usize, FrameError> {
    match claimed <= cap {
        // A u32 fits into the usize of every platform with sockets.
        true => Ok(claimed as usize),
        false => Err(FrameError::TooLong { claimed, cap }),
    }
}
