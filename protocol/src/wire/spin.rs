//! Waiting for an answer without going to sleep, where answers come soon.
//!
//! Putting a thread to sleep and waking it takes longer than a short call. On a virtual machine, where an idle processor
//! is given back to the host, it takes several times as long. So a reader looks a few times
//! before it sleeps, for no longer than sleeping would have cost. It looks only while that pays: after one long
//! wait it sleeps at once, until a wait has been short again. So a worker of an idle pool spins once, and then sleeps.
//!
//! Between two looks the reader yields the processor. On a machine with one processor, the other side runs then.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// How long a reader looks before it sleeps: about as long as it takes to fall asleep and to be woken.
const SPIN: Duration = Duration::from_micros(25);
/// A wait asleep that ended within this time would have ended sooner awake.
const SHORT: Duration = Duration::from_micros(50);

/// A stream that can be read without waiting.
pub trait ReadAtOnce: Read {
    /// Reads what has arrived.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] if nothing has arrived, and the errors of reading.
    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A stream whose reader stays awake for a moment, if answers have come soon.
#[derive(Debug)]
pub struct Spinning<S> {
    stream: S,
    patience: Patience,
}

impl<S> Spinning<S> {
    /// Wraps a stream. Its reader spends the first wait asleep.
    pub fn new(stream: S) -> Self {
        Spinning {
            stream,
            patience: Patience::default(),
        }
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: ReadAtOnce> Read for Spinning<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        while self.patience.looks(began.elapsed()) {
            match self.stream.read_at_once(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                read => return read,
            }
        }
        let read = self.stream.read(buffer);
        self.patience.slept(began.elapsed());
        read
    }
}

impl<S: Write> Write for Spinning<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }
    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(buffers)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Decides whether to stay awake, from how long earlier waits took.
#[derive(Debug, Default)]
struct Patience {
    /// Whether the last wait asleep was short, and no wait has been long since.
    pays: bool,
}

impl Patience {
    /// Whether to look once more after a wait of this length so far.
    fn looks(&self, waited: Duration) -> bool {
        self.pays && waited < SPIN
    }

    /// Notes that a wait of this length has ended asleep.
    fn slept(&mut self, waited: Duration) {
        self.pays = waited < SHORT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_waited_for_long_does_not_stay_awake_the_next_time() {
        let mut patience = Patience::default();
        assert!(!patience.looks(Duration::ZERO));
        patience.slept(SHORT / 2);
        assert!(patience.looks(Duration::ZERO));
        assert!(!patience.looks(SPIN));
        // That answer came in time, so the reader looks for the next one.
        assert!(patience.looks(Duration::ZERO));
        patience.slept(SHORT);
        assert!(!patience.looks(Duration::ZERO));
    }

    /// A stream that says `WouldBlock` a given number of times, and then has a byte.
    struct Late(u32);

    impl Read for Late {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(1)
        }
    }

    impl ReadAtOnce for Late {
        fn read_at_once(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(ErrorKind::Other)?;
            Err(ErrorKind::WouldBlock.into())
        }
    }

    #[test]
    fn what_is_wrong_is_said_also_to_one_who_is_awake() {
        // On a busy machine the time to stay awake may be over before it has begun.
        let mut reads = (0..1000).map(|_| {
            let mut stream = Spinning::new(Late(0));
            stream.patience.pays = true;
            stream.read(&mut [0]).map_err(|error| error.kind())
        });
        assert!(reads.any(|read| read == Err(ErrorKind::Other)));
    }

    #[test]
    fn whoever_is_tired_sleeps() {
        let mut stream = Spinning::new(Late(u32::MAX));
        stream.patience.pays = true;
        assert!(matches!(stream.read(&mut [0]), Ok(1)));
    }
}
