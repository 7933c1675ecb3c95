//! The socket of a link, and how long to wait for it.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use interprocess::local_socket::traits::Stream as _;
use protocol::descriptors::{self, SendWith};
use protocol::link::{self, Socket};
use protocol::spin::ReadAtOnce;

use crate::os;

/// The socket of one link. The slot reads and writes it; the supervisor may end a read that blocks.
#[derive(Debug, Clone)]
pub(crate) struct SharedSocket(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    socket: Socket,
    /// How many bytes were sent and received, by whichever handle.
    sent: AtomicU64,
    received: AtomicU64,
}

impl SharedSocket {
    pub(crate) fn new(socket: Socket) -> Self {
        SharedSocket(Arc::new(Counted {
            socket,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }))
    }

    fn count_received(&self, read: usize) -> usize {
        self.0.received.fetch_add(read as u64, Ordering::Relaxed);
        read
    }

    pub(crate) fn get(&self) -> &Socket {
        &self.0.socket
    }

    /// Takes the time limit off writes.
    pub(crate) fn send_without_limit(&self) -> io::Result<()> {
        self.0.socket.set_send_timeout(None)
    }

    pub(crate) fn stop_reading(&self) {
        os::stop_reading(&self.0.socket);
    }

    pub(crate) fn stop_talking(&self) {
        os::stop_talking(&self.0.socket);
    }
}

impl Read for SharedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0.socket)
            .read(buffer)
            .map(|read| self.count_received(read))
    }
    fn read_vectored(&mut self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        let read = (&self.0.socket).read_vectored(buffers);
        read.map(|read| self.count_received(read))
    }
}

impl ReadAtOnce for SharedSocket {
    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = link::receive_at_once(&self.0.socket, buffer);
        read.map(|read| self.count_received(read))
    }

    fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

impl Write for SharedSocket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(buffer)])
    }
    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.send_with(buffers, &[])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SendWith for SharedSocket {
    fn send_with(
        &mut self,
        buffers: &[io::IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<usize> {
        let written = descriptors::send(&self.0.socket, buffers, descriptors)?;
        self.0.sent.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }
}

/// A socket that is not waited for beyond a time, nor beyond the end of the pool: for what a worker
/// says before it is known to the scheduler, whose deadlines don't hold for it yet.
#[derive(Debug)]
pub(crate) struct Impatient<'s> {
    pub(crate) socket: SharedSocket,
    /// Readable when the pool ends.
    pub(crate) stop: BorrowedFd<'s>,
    pub(crate) patience: Option<Patience>,
}

/// How long to wait, all in all. Time for which this whole program was stopped does not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(Duration);

/// The longest single wait. If this program is stopped meanwhile, no more than this counts.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Patience(limit)
    }

    /// Waits until one of some descriptors is readable; `None` if there is no patience left.
    pub(crate) fn wait(&mut self, fds: &[BorrowedFd<'_>]) -> Option<Vec<bool>> {
        loop {
            let slice = self.0.min(SLICE);
            let readable = os::wait_readable(fds, Some(slice));
            if readable.contains(&true) {
                return Some(readable);
            }
            if !self.wait_less(slice) {
                return None;
            }
        }
    }

    /// Uses up so much patience. Says whether any is left.
    pub(crate) fn wait_less(&mut self, slice: Duration) -> bool {
        self.0 = self.0.saturating_sub(slice);
        !self.0.is_zero()
    }
}

impl Read for Impatient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fds = [os::socket_fd(&self.socket.0.socket), self.stop];
        let readable = match &mut self.patience {
            Some(patience) => patience.wait(&fds),
            None => Some(os::wait_readable(&fds, None)),
        };
        match readable.as_deref() {
            Some([true, ..]) => self.socket.read(buffer),
            Some(_) => Err(io::Error::other("the pool ended before it was ready")),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Impatient<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.write(buffer)
    }
    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.socket.write_vectored(buffers)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
