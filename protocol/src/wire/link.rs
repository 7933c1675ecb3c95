//! The link: typed messages over a local socket.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use interprocess::local_socket::ToFsName as _;
use interprocess::local_socket::traits::Stream as _;
use interprocess::local_socket::{GenericFilePath, Listener, ListenerOptions, Name, Stream};
use rustix::net::RecvFlags;
use serde::{Serialize, de::DeserializeOwned};

use super::ferry;
use super::frame::{self, Caps, FrameError, Reader, TooLarge};
use super::spin::{ReadAtOnce, Spinning};
use crate::memory::black_box::BlackBox;
use crate::memory::board::{Region, View};
use crate::memory::ferry::Ferry;
use crate::memory::lane::{Inbox, Outbox, Sheet};
use crate::memory::place::{Placed, Side};
use crate::value::parcel::{Parcel, Received};

/// Why a message could not be sent or received.
#[derive(Debug)]
pub enum LinkError {
    /// The other side closed it between two messages.
    Closed,
    /// The stream broke within a message.
    Broken(io::Error),
    /// The other side sent bytes that are no message.
    Malformed(String),
    /// The message to send is larger than the protocol allows. Nothing was sent, and the link still works.
    TooLarge(String),
}

impl LinkError {
    pub(crate) fn malformed(error: impl fmt::Display) -> Self {
        LinkError::Malformed(error.to_string())
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other side closed the link"),
            // A socket with a time limit says "temporarily unavailable", which helps nobody.
            Self::Broken(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                f.write_str("the other side kept the link waiting for too long")
            }
            Self::Broken(error) => write!(f, "the link broke: {error}"),
            Self::Malformed(what) => write!(f, "the other side sent rubbish: {what}"),
            Self::TooLarge(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for LinkError {}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Closed => LinkError::Closed,
            FrameError::Io(error) => LinkError::Broken(error),
            FrameError::NoSuchPlace => {
                LinkError::Malformed("a payload in a place that does not exist".to_owned())
            }
            FrameError::TooLong { claimed, cap } => LinkError::Malformed(format!(
                "a part of {claimed} bytes, where {cap} is the limit"
            )),
        }
    }
}

/// A link to the other side. `S` is a local socket, or anything else that reads and writes.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    reader: Reader,
    writer: Writer,
}

/// The parts of a link that sending needs besides the stream.
#[derive(Debug, Default)]
struct Writer {
    /// A buffer, kept for the next message.
    header: Vec<u8>,
    /// The part of shared memory that takes large payloads.
    outbox: Option<Outbox>,
}

impl<S: ReadAtOnce + Write> Link<Spinning<S>> {
    /// Lets a few bytes go by [mail](super::spin), too, from now on. Both sides do so before the first batch.
    pub fn share_mail(&mut self, memory: &Arc<BlackBox>, side: Side) {
        self.stream.share(memory, side);
    }
}

impl<S: Read + Write> Link<S> {
    /// Makes a link over an open stream.
    pub fn new(stream: S) -> Self {
        Link {
            stream,
            reader: Reader::default(),
            writer: Writer::default(),
        }
    }

    /// Lets large payloads travel by shared memory from now on. If another link has used that memory, nothing of that
    /// link's may be under way any more.
    pub fn share(&mut self, memory: &Arc<BlackBox>, side: Side) {
        self.reader.share(Inbox::new(Arc::clone(memory), side));
        self.writer.outbox = Some(Outbox::new(Arc::clone(memory), side));
    }

    /// Accepts inputs on this board from now on, if memory is [shared](Self::share).
    pub fn share_board(&mut self, board: View) {
        self.reader.share_board(board);
    }

    /// The stream, for setting its options. Reading from it or writing to it breaks the link.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, for sending a whole message in another way than this link does.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream, when the conversation by this link is over.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Sends a message with its payload, in one write where the system allows.
    ///
    /// # Errors
    ///
    /// [`LinkError::TooLarge`] if the message does not fit into a frame: nothing was sent, and the link still works. After
    /// any other error the link is broken.
    pub fn send(&mut self, message: &impl Serialize, payload: &[&[u8]]) -> Result<(), LinkError> {
        self.answer().send(message, payload)
    }

    /// Sends a message with its payload, of which these bytes are a large piece.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_large(
        &mut self,
        message: &impl Serialize,
        payload: &[u8],
        piece: Range<usize>,
    ) -> Result<(), LinkError> {
        self.answer().send_large(message, &[payload], piece)
    }

    /// Sends a message whose payload stands on a board that the other side [shares](Self::share_board). The
    /// caller keeps the region until the other side has answered.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_from_board(
        &mut self,
        message: &impl Serialize,
        payload: &Region,
    ) -> Result<(), LinkError> {
        self.answer().send_placed(message, payload.placed())
    }

    /// Receives a message and its payload.
    ///
    /// # Errors
    ///
    /// The link is broken, or was closed.
    pub fn receive<M: DeserializeOwned>(&mut self, caps: Caps) -> Result<(M, &[u8]), LinkError> {
        let header = self.reader.read_header(&mut self.stream, caps)?;
        let message = decode(header)?;
        if let Some(placed) = self.reader.in_parts() {
            let parcel = ferry::receive(&mut self.reader, &mut self.stream, placed)?;
            return Ok((message, self.reader.keep(&parcel)));
        }
        Ok((message, self.reader.take()?))
    }

    /// Receives a message, and a payload that the caller keeps. A large payload is handed over instead of being copied.
    /// `spare` gives the link a buffer to go on with.
    ///
    /// # Errors
    ///
    /// The link is broken, or was closed.
    pub fn receive_owned<M: DeserializeOwned>(
        &mut self,
        caps: Caps,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> Result<(M, Parcel), LinkError> {
        let header = self.reader.read_header(&mut self.stream, caps)?;
        let message = decode(header)?;
        let parcel = match self.reader.in_parts() {
            Some(placed) => ferry::receive(&mut self.reader, &mut self.stream, placed)?,
            None => self.reader.hand_over(spare)?,
        };
        Ok((message, parcel))
    }

    /// Receives a message and its payload, and the half of the link that answers while the payload is still borrowed.
    ///
    /// # Errors
    ///
    /// The link is broken, or was closed.
    pub fn receive_to_answer<M: DeserializeOwned>(
        &mut self,
        caps: Caps,
    ) -> Result<(M, Received<'_>, Answer<'_, S>), LinkError> {
        let header = self.reader.read_header(&mut self.stream, caps)?;
        let message = decode(header)?;
        let (payload, behind) = match self.reader.in_parts() {
            Some(placed) => {
                let parcel = ferry::receive(&mut self.reader, &mut self.stream, placed)?;
                (Received::Given(parcel), 0)
            }
            None => {
                let (payload, behind) = self.reader.in_place()?;
                (Received::Lent(payload), behind)
            }
        };
        if let Some(outbox) = &mut self.writer.outbox {
            outbox.begin_turn(behind);
        }
        let answer = Answer {
            stream: &mut self.stream,
            writer: &mut self.writer,
        };
        Ok((message, payload, answer))
    }

    fn answer(&mut self) -> Answer<'_, S> {
        Answer {
            stream: &mut self.stream,
            writer: &mut self.writer,
        }
    }

    /// Whether bytes have arrived behind the messages handed out. A peer that sends them speaks out of turn.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.reader.has_unread()
    }

    pub(crate) fn send_raw(&mut self, header: &[u8], payload: &[&[u8]]) -> Result<(), LinkError> {
        frame::write(&mut self.stream, header, payload).map_err(write_failed)
    }

    pub(crate) fn receive_raw(&mut self, caps: Caps) -> Result<(&[u8], &[u8]), LinkError> {
        Ok(self.reader.read(&mut self.stream, caps)?)
    }
}

/// The sending half of a [`Link`], usable while a received payload is still borrowed from it.
#[derive(Debug)]
pub struct Answer<'l, S> {
    stream: &'l mut S,
    writer: &'l mut Writer,
}

impl<S: Read + Write> Answer<'_, S> {
    /// Sends a message with its payload, in one write where the system allows.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub fn send(&mut self, message: &impl Serialize, payload: &[&[u8]]) -> Result<(), LinkError> {
        self.send_large(message, payload, 0..0)
    }

    /// Sends a message with its payload, of which these bytes are a large piece.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub fn send_large(
        &mut self,
        message: &impl Serialize,
        payload: &[&[u8]],
        piece: Range<usize>,
    ) -> Result<(), LinkError> {
        let Writer { header, outbox } = self.writer;
        header.clear();
        crate::encode(message, header).map_err(LinkError::malformed)?;
        send_with(self.stream, header, payload, piece, outbox.as_mut()).map_err(write_failed)
    }

    /// A sheet for one output: it appends to the buffer, or writes a large output into the lane.
    #[inline]
    pub fn sheet<'s>(&'s mut self, buffer: &'s mut Vec<u8>) -> Sheet<'s> {
        Sheet::new(buffer, self.writer.outbox.as_mut())
    }

    /// Sends a message whose payload stands in shared memory.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub fn send_placed(
        &mut self,
        message: &impl Serialize,
        payload: Placed,
    ) -> Result<(), LinkError> {
        let header = &mut self.writer.header;
        header.clear();
        crate::encode(message, header).map_err(LinkError::malformed)?;
        frame::write_placed(self.stream, header, payload).map_err(write_failed)
    }
}

/// Sends a frame. A large payload goes by shared memory, if there is any.
fn send_with(
    stream: &mut (impl Read + Write),
    header: &[u8],
    payload: &[&[u8]],
    piece: Range<usize>,
    outbox: Option<&mut Outbox>,
) -> io::Result<()> {
    let len = frame::check(header, payload)? as usize;
    let Some(outbox) = outbox else {
        return frame::write(stream, header, payload);
    };
    if let Some(placed) = outbox.put(payload, len) {
        return frame::write_placed(stream, header, placed);
    }
    match Ferry::new(outbox.shared()) {
        Some(way) if len >= ferry::LEAST => ferry::send(stream, header, payload, &piece, &way),
        _ => frame::write(stream, header, payload),
    }
}

fn write_failed(error: io::Error) -> LinkError {
    // Only this error of the frame says that nothing was sent. Its kind alone does not: streams use that kind, too.
    match error.get_ref() {
        Some(inner) if inner.is::<TooLarge>() => LinkError::TooLarge(error.to_string()),
        _ => LinkError::Broken(error),
    }
}

pub(crate) fn decode<M: DeserializeOwned>(header: &[u8]) -> Result<M, LinkError> {
    crate::decode(header).map_err(|why| LinkError::Malformed(format!("no message: {why}")))
}

/// A local socket: the stream of every real link.
pub type Socket = Stream;

/// Reads the bytes that have arrived on a socket, without waiting. Other readers of the socket may go on blocking.
///
/// # Errors
///
/// [`ErrorKind::WouldBlock`] if nothing has arrived, and the errors of `recv`.
pub fn receive_at_once(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let Stream::UdSocket(socket) = socket;
    let (read, _) = rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?;
    Ok(read)
}

/// A socket that another process has sent.
#[must_use]
pub fn socket(descriptor: OwnedFd) -> Socket {
    Stream::UdSocket(descriptor.into())
}

/// Another handle of a socket, above the standard streams' numbers as long as those are taken.
///
/// # Errors
///
/// The process has too many open files.
pub fn duplicate(socket: &Socket) -> io::Result<Socket> {
    let Stream::UdSocket(stream) = socket;
    Ok(self::socket(stream.as_fd().try_clone_to_owned()?))
}

/// Connects to the socket that a coordinator listens on.
///
/// # Errors
///
/// The errors of `connect`.
pub fn connect(name: &OsStr) -> io::Result<Socket> {
    Stream::connect(socket_name(name)?)
}

/// Listens for workers on a socket of this name. On Unix the name is a path, and dropping the
/// listener removes it.
///
/// # Errors
///
/// The errors of `bind` and `listen`.
pub fn listen(name: &OsStr) -> io::Result<Listener> {
    ListenerOptions::new()
        .name(socket_name(name)?)
        .create_sync()
}

fn socket_name(name: &OsStr) -> io::Result<Name<'_>> {
    name.to_fs_name::<GenericFilePath>()
}
