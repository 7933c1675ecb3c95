//! Descriptors that travel with messages. With them two processes share memory that has no name in the file system.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use interprocess::local_socket::Stream;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::link::Socket;
use super::spin::ReadAtOnce;

/// How many descriptors may travel with one message: as many as Linux allows.
pub const MOST: usize = 253;
/// How many buffers the system takes at once: `UIO_MAXIOV`.
const MOST_BUFFERS: usize = 1024;
/// The size of the control message for [`MOST`] descriptors, in bytes.
const ROOM: usize = rustix::cmsg_space!(ScmRights(MOST));

/// Writes bytes to a socket, and sends descriptors with the first of them, at most [`MOST`]. A closed socket
/// is an error and raises no signal.
///
/// # Errors
///
/// The errors of `sendmsg`.
pub fn send(
    socket: &Socket,
    buffers: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let Stream::UdSocket(socket) = socket;
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    // The system refuses a write of more buffers. The caller writes the rest the next time.
    let buffers = &buffers[..buffers.len().min(MOST_BUFFERS)];
    Ok(sendmsg(socket, buffers, &mut control, SendFlags::NOSIGNAL)?)
}

/// Descriptors that have arrived.
#[derive(Debug, Clone, Default)]
pub struct Taken(Arc<Mutex<Vec<OwnedFd>>>);

impl Taken {
    /// Takes the descriptors that have arrived since the last call, in the order in which they were sent. They are closed
    /// on exec.
    #[must_use]
    pub fn take(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A socket that keeps the descriptors that arrive with the bytes read from it. A descriptor that this process has no
/// room for is lost.
#[derive(Debug)]
pub struct Taking {
    socket: Socket,
    taken: Taken,
    sent: u64,
    received: u64,
}

impl Taking {
    /// Keeps the descriptors that arrive from now on.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Taking {
            socket,
            taken: Taken::default(),
            sent: 0,
            received: 0,
        }
    }

    /// The place where arrived descriptors are kept.
    #[must_use]
    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    fn receive(&mut self, buffers: &mut [IoSliceMut<'_>], flags: RecvFlags) -> io::Result<usize> {
        let Stream::UdSocket(socket) = &self.socket;
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(socket, buffers, &mut control, flags)?.bytes;
        let came = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        for descriptors in came {
            let mut taken = self.taken.0.lock().unwrap_or_else(PoisonError::into_inner);
            taken.extend(descriptors);
        }
        self.received += read as u64;
        Ok(read)
    }
}

impl Read for Taking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(&mut [IoSliceMut::new(buffer)], RecvFlags::empty())
    }
    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.receive(buffers, RecvFlags::empty())
    }
}

impl ReadAtOnce for Taking {
    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(&mut [IoSliceMut::new(buffer)], RecvFlags::DONTWAIT)
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn received(&self) -> u64 {
        self.received
    }
}

impl Write for Taking {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.socket.write_vectored(buffers)?;
        self.sent += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream that can carry descriptors.
pub trait SendWith: Read {
    /// Writes bytes, and sends descriptors with the first of them, at most [`MOST`].
    ///
    /// # Errors
    ///
    /// As [`send`].
    fn send_with(
        &mut self,
        buffers: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize>;
}

impl SendWith for Taking {
    fn send_with(
        &mut self,
        buffers: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let written = send(&self.socket, buffers, descriptors)?;
        self.sent += written as u64;
        Ok(written)
    }
}

/// A stream whose next bytes are sent with descriptors.
#[derive(Debug)]
pub struct Giving<'s, S> {
    /// The stream.
    pub stream: &'s mut S,
    /// The descriptors, at most [`MOST`].
    pub descriptors: &'s [BorrowedFd<'s>],
}

impl<S: Read> Read for Giving<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl<S: SendWith> Write for Giving<'_, S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.send_with(buffers, self.descriptors)?;
        self.descriptors = &[];
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use interprocess::os::unix::uds_local_socket::Stream as UnixSocket;

    use super::*;

    #[test]
    fn descriptors_come_with_bytes_and_in_order() {
        let (here, there) = UnixStream::pair().unwrap();
        let socket = |stream: UnixStream| Socket::from(UnixSocket::from(OwnedFd::from(stream)));
        let (here, mut there) = (socket(here), Taking::new(socket(there)));
        let taken = there.taken();
        let pipes: Vec<_> = (0..MOST).map(|_| io::pipe().unwrap()).collect();
        let ends: Vec<_> = pipes.iter().map(|(reader, _)| reader.as_fd()).collect();
        send(&here, &[IoSlice::new(b"one")], &[]).unwrap();
        send(&here, &[IoSlice::new(b"two")], &ends).unwrap();
        let mut read = [0; 6];
        there.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"onetwo");
        let came = taken.take();
        assert_eq!(came.len(), MOST);
        assert!(taken.take().is_empty());
        for (number, ((_, mut writer), reader)) in pipes.into_iter().zip(came).enumerate() {
            writer.write_all(&[number as u8]).unwrap();
            let mut byte = [0];
            std::fs::File::from(reader).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [number as u8]);
        }
        // The other ways of reading, and writing.
        let mut parts = [[0; 2], [0; 2]];
        let [one, two] = &mut parts;
        send(&here, &[IoSlice::new(b"1234")], &[]).unwrap();
        let mut buffers = [IoSliceMut::new(one), IoSliceMut::new(two)];
        assert_eq!(there.read_vectored(&mut buffers).unwrap(), 4);
        assert_eq!(parts, [*b"12", *b"34"]);
        let nothing = there.read_at_once(&mut read).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let (end, _) = io::pipe().unwrap();
        send(&here, &[IoSlice::new(b"56")], &[end.as_fd()]).unwrap();
        assert_eq!(there.read_at_once(&mut read).unwrap(), 2);
        let came = taken.take();
        let flags = rustix::io::fcntl_getfd(&came[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        there.write_all(b"78").unwrap();
        assert_eq!(
            there
                .write_vectored(&[IoSlice::new(b"9"), IoSlice::new(b"0")])
                .unwrap(),
            2
        );
        let mut answer = [0; 4];
        (&here).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"7890");
        // More buffers than the system takes are sent in part.
        let many = vec![IoSlice::new(b"x"); 3 * MOST_BUFFERS];
        assert_eq!(send(&here, &many, &[]).unwrap(), MOST_BUFFERS);
        there.read_exact(&mut [0; MOST_BUFFERS]).unwrap();
        let too_many = vec![rustix::stdio::stdin(); MOST + 1];
        assert!(send(&here, &[IoSlice::new(b"x")], &too_many).is_err());
        drop(here);
        assert_eq!(there.read(&mut read).unwrap(), 0);
    }
}
