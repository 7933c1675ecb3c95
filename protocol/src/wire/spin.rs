//! Waiting for an answer without going to sleep, where answers come soon.
//!
//! Putting a thread to sleep and waking it takes longer than a short call. On a virtual machine, where an idle processor
//! is given back to the host, it takes several times as long. So a reader looks a few times
//! before it sleeps, for no longer than sleeping would have cost. It looks only while that pays: after one long
//! wait it sleeps at once, until a wait has been short again. So a worker of an idle pool spins once, and then sleeps.
//!
//! Where the two sides [share](Spinning::share) memory, a few bytes for a reader that is awake go by mail, without a system
//! call, and the reader looks there. What both sides see is one stream of bytes.
//!
//! Between two looks at the socket the reader yields the processor. On a machine with one processor, the other side runs then.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::memory::black_box::{BlackBox, MOST_MAIL};
use crate::memory::place::Side;

/// How long a reader looks before it sleeps: about as long as it takes to fall asleep and to be woken.
const SPIN: Duration = Duration::from_micros(25);
/// A wait asleep that ended within this time would have ended sooner awake.
const SHORT: Duration = Duration::from_micros(50);
/// How often a reader looks for mail before it looks at the socket, which takes as long as all of these looks.
const LOOKS: u32 = 64;
/// The byte that wakes a reader for its mail.
const NUDGE: u8 = 1;

/// A stream that can be read without waiting, and that counts.
pub trait ReadAtOnce: Read {
    /// Reads what has arrived.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] if nothing has arrived, and the errors of reading.
    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// How many bytes this side has sent, by whatever handle of the stream.
    fn sent(&self) -> u64;

    /// How many bytes this side has received.
    fn received(&self) -> u64;
}

/// A stream whose reader stays awake for a moment, if answers have come soon.
#[derive(Debug)]
pub struct Spinning<S> {
    stream: S,
    patience: Patience,
    mail: Option<Mail>,
}

/// The mail of both directions, as one side sees it.
#[derive(Debug)]
struct Mail {
    memory: Arc<BlackBox>,
    side: Side,
    /// What has been received and not been read: mail, and what came by the socket behind it.
    unread: Vec<u8>,
    /// How much of that has been read.
    read: usize,
    /// Where a mail is put together.
    scratch: Vec<u8>,
}

impl<S> Spinning<S> {
    /// Wraps a stream. Its reader spends the first wait asleep.
    pub fn new(stream: S) -> Self {
        Spinning {
            stream,
            patience: Patience::default(),
            mail: None,
        }
    }

    /// Lets a few bytes go by mail from now on.
    pub fn share(&mut self, memory: &Arc<BlackBox>, side: Side) {
        self.mail = Some(Mail {
            memory: Arc::clone(memory),
            side,
            unread: Vec::new(),
            read: 0,
            scratch: Vec::new(),
        });
    }

    /// The stream itself. What has been received and not been read is lost.
    pub fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: ReadAtOnce> Spinning<S> {
    /// Reads without mail.
    fn read_plain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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

    /// Waits until something has come, by mail or by the socket. Returns how much has come into the buffer; if nothing has,
    /// it is with the mail.
    fn wait(&mut self, mail: &mut Mail, buffer: &mut [u8]) -> io::Result<usize> {
        let mut began = None;
        loop {
            let before = self.stream.received();
            if mail.look(before, self.patience.pays) {
                return Ok(0);
            }
            let began = *began.get_or_insert_with(Instant::now);
            let read = match self.patience.looks(began.elapsed()) {
                true => self.stream.read_at_once(buffer),
                false => {
                    if mail.fall_asleep(before) {
                        mail.stay_awake();
                        return Ok(0);
                    }
                    let read = self.stream.read(buffer);
                    self.patience.slept(began.elapsed());
                    if self.patience.pays {
                        mail.stay_awake();
                    }
                    read
                }
            };
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error),
                // The other side may have posted something before it ended.
                Ok(0) => {
                    mail.take_if_there(before);
                    return Ok(0);
                }
                Ok(read) => {
                    let came = mail.came(before, self.stream.received(), &mut buffer[..read]);
                    if came > 0 || mail.has_unread() {
                        return Ok(came);
                    }
                }
            }
        }
    }
}

impl Mail {
    fn take_if_there(&mut self, received: u64) -> bool {
        let mail = self.memory.mail(self.side.other());
        let is_there = mail.is_there(received);
        if is_there {
            mail.take(&mut self.unread);
        }
        is_there
    }

    /// Looks for mail, several times if it is likely to come.
    fn look(&mut self, received: u64, is_likely: bool) -> bool {
        let looks = match is_likely && has_several_processors() {
            true => LOOKS,
            false => 1,
        };
        (0..looks).any(|_| {
            let is_there = self.take_if_there(received);
            if !is_there {
                std::hint::spin_loop();
            }
            is_there
        })
    }

    fn stay_awake(&self) {
        self.memory.mail(self.side.other()).stay_awake();
    }

    /// Returns `true` if there is mail at the last moment.
    fn fall_asleep(&mut self, received: u64) -> bool {
        self.memory.mail(self.side.other()).fall_asleep();
        self.take_if_there(received)
    }

    /// Something has come by the socket. Returns how much of it is to be read next. Mail that was posted before it comes first.
    fn came(&mut self, before: u64, received: u64, bytes: &mut [u8]) -> usize {
        let mail = self.memory.mail(self.side.other());
        let skipped = usize::from(mail.received(before, received));
        if self.take_if_there(before) {
            self.unread.extend_from_slice(&bytes[skipped..]);
            return 0;
        }
        bytes.copy_within(skipped.., 0);
        bytes.len() - skipped
    }

    fn has_unread(&self) -> bool {
        self.read < self.unread.len()
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.unread[self.read..];
        let some = &rest[..rest.len().min(buffer.len())];
        buffer[..some.len()].copy_from_slice(some);
        self.read += some.len();
        let len = some.len();
        if !self.has_unread() {
            self.unread.clear();
            self.read = 0;
        }
        len
    }
}

/// Whether the other side can run while this one looks.
fn has_several_processors() -> bool {
    static SEVERAL: OnceLock<bool> = OnceLock::new();
    *SEVERAL.get().unwrap_or_else(|| {
        let several = thread::available_parallelism().is_ok_and(|many| many.get() > 1);
        // Not within `get_or_init`, because the system takes its time for the answer. A program may be forked meanwhile, and
        // its copy would wait for a thread that does not exist there.
        SEVERAL.get_or_init(|| several)
    })
}

impl<S: ReadAtOnce> Read for Spinning<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut mail) = self.mail.take() else {
            return self.read_plain(buffer);
        };
        let read = match mail.has_unread() {
            true => Ok(0),
            false => self.wait(&mut mail, buffer),
        };
        let read = read.map(|read| match read {
            0 => mail.read(buffer),
            read => read,
        });
        self.mail = Some(mail);
        read
    }
}

impl<S: ReadAtOnce + Write> Write for Spinning<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buffer)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        if let Some(mail) = self.mail.as_mut().filter(|_| len <= MOST_MAIL) {
            mail.scratch.clear();
            buffers
                .iter()
                .for_each(|some| mail.scratch.extend_from_slice(some));
            let way = mail.memory.mail(mail.side);
            match way.post(&mail.scratch, self.stream.sent()) {
                Some(true) => {
                    self.stream.write_all(&[NUDGE])?;
                    return Ok(len);
                }
                Some(false) => return Ok(len),
                None => {}
            }
        }
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

        fn sent(&self) -> u64 {
            0
        }

        fn received(&self) -> u64 {
            0
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
