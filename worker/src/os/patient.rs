//! Standard streams that others have set not to wait.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// A standard stream that waits until it can go on. Other processes share its open file, and one of them may have set it not
/// to wait (`O_NONBLOCK`), as Node.js does.
#[derive(Debug)]
pub struct Patient<S>(pub S);

impl<S: AsFd> Patient<S> {
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        match rustix::event::poll(&mut [PollFd::new(&self.0, what)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn until_done<T>(
        &mut self,
        what: PollFlags,
        mut attempt: impl FnMut(&mut S) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(what)?,
                done => return done,
            }
        }
    }
}

impl<S: AsFd + Write> Write for Patient<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_done(PollFlags::OUT, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.until_done(PollFlags::OUT, Write::flush)
    }
}

impl<S: AsFd + Read> Read for Patient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until_done(PollFlags::IN, |stream| stream.read(buffer))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::thread;

    use super::*;

    #[test]
    fn a_stream_that_does_not_wait_loses_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let (mut reader, mut writer) = (Patient(reader), Patient(writer));
        let mut received = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&sent).unwrap();
                drop(writer);
            });
            reader.read_to_end(&mut received).unwrap();
        });
        assert!(received == sent);
    }
}
