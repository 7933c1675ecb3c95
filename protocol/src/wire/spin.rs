//! Waiting for an answer without going to sleep, where answers come soon.
//!
//! To put a thread to sleep and to wake it takes longer than a short call: on a virtual machine, where a
//! processor that has nothing to do leaves it, several times as long. So a reader looks a few times
//! before it sleeps, for no longer than sleeping would have cost. It only does so while that pays: a
//! wait that has been long is taken for the first of many, until one has been short again. Whoever waits
//! for nothing, as the workers of an idle pool do, sleeps after a single look too many.
//!
//! Between two looks the processor is offered to whoever else wants it; where there is a single one, that
//! is the other side.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// For how long to look: about what it takes to fall asleep and to be woken.
const SPIN: Duration = Duration::from_micros(25);
/// A wait that ended within this time, spent asleep, would have ended sooner awake.
const SHORT: Duration = Duration::from_micros(50);

/// A stream that can be read without waiting.
pub trait ReadAtOnce: Read {
    /// Reads what has arrived.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] if nothing has, and whatever else reading says.
    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A stream whose reader stays awake for a moment, if answers have come soon.
#[derive(Debug)]
pub struct Spinning<S> {
    stream: S,
    patience: Patience,
}

impl<S> Spinning<S> {
    /// The first wait is spent asleep.
    pub fn new(stream: S) -> Self {
        Spinning {
            stream,
            patience: Patience::default(),
        }
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

/// Whether to stay awake, by what waits have been like.
#[derive(Debug, Default)]
struct Patience {
    /// The last wait that was spent asleep was short, and none has been long since.
    pays: bool,
}

impl Patience {
    /// Whether to look once more, after having waited for so long.
    fn looks(&self, waited: Duration) -> bool {
        self.pays && waited < SPIN
    }

    /// A wait of this length has ended asleep.
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
        // That one came in time: it is looked for again.
        assert!(patience.looks(Duration::ZERO));
        patience.slept(SHORT);
        assert!(!patience.looks(Duration::ZERO));
    }

    /// Says `WouldBlock` as often as told, and then has a byte.
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
