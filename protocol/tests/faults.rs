//! Streams that fail, and what a link says of it: broken, closed, or still whole.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and prints"
)]

use std::io::{self, Cursor, IoSlice, Read, Write};
use std::thread;

use protocol::frame::{Caps, MAX_HEADER, Reader};
use protocol::handshake::{self, HandshakeError, Token, VERSION};
use protocol::link::{connect, listen};
use protocol::message::{Hello, ToWorker};
use protocol::{Link, LinkError};

/// A stream in memory that fails for good after some bytes, in one way or another.
#[derive(Debug, Default)]
struct Failing {
    bytes: Cursor<Vec<u8>>,
    /// How many bytes go through before it fails.
    good: usize,
    /// How many go through at once.
    at_once: usize,
    /// The kind of error; `None` for a stream that takes and gives nothing more.
    how: Option<io::ErrorKind>,
}

impl Failing {
    fn pass(&mut self, wanted: usize) -> io::Result<usize> {
        let len = wanted.min(self.at_once).min(self.good);
        self.good -= len;
        match self.how {
            Some(how) if len == 0 && wanted > 0 => Err(how.into()),
            _ => Ok(len),
        }
    }
}

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.pass(buffer.len())?;
        self.bytes.read(&mut buffer[..len])
    }
}

impl Write for Failing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let len = self.pass(buffer.len())?;
        self.bytes.get_mut().extend(&buffer[..len]);
        Ok(len)
    }

    /// Part of one piece, or the end of one and the start of the next, as the system may have it.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        self.write(&all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const HOW: [Option<io::ErrorKind>; 5] = [
    None,
    Some(io::ErrorKind::WouldBlock),
    Some(io::ErrorKind::ConnectionReset),
    // What a frame that is too large is called, too; a stream that says it is broken all the same.
    Some(io::ErrorKind::InvalidInput),
    Some(io::ErrorKind::UnexpectedEof),
];

fn message() -> ToWorker {
    ToWorker::Refused("for a reason".to_owned())
}

/// The one message as bytes. Its payload comes in pieces, some of them empty.
fn frame() -> Vec<u8> {
    let mut link = Link::new(Failing {
        good: usize::MAX,
        at_once: usize::MAX,
        ..Failing::default()
    });
    link.send(&message(), &[b"", b"pay", b"", b"load", b""])
        .unwrap();
    link.stream().bytes.get_ref().clone()
}

#[test]
fn a_failure_at_any_byte_read_breaks_the_link() {
    let frame = frame();
    for how in HOW {
        for good in 0..frame.len() {
            for at_once in [1, 3, usize::MAX] {
                let bytes = Cursor::new(frame.clone());
                let mut link = Link::new(Failing {
                    bytes,
                    good,
                    at_once,
                    how,
                });
                match link.receive::<ToWorker>(Caps::FULL).unwrap_err() {
                    LinkError::Closed => assert_eq!((good, how), (0, None)),
                    LinkError::Broken(error) => {
                        let expected = how.unwrap_or(io::ErrorKind::UnexpectedEof);
                        assert_eq!(error.kind(), expected, "at {good}");
                    }
                    other => panic!("{other:?} at {good}"),
                }
            }
        }
    }
}

#[test]
fn a_failure_at_any_byte_written_breaks_the_link() {
    let frame = frame();
    for how in HOW {
        for good in 0..frame.len() {
            for at_once in [1, 3, usize::MAX] {
                let mut link = Link::new(Failing {
                    good,
                    at_once,
                    how,
                    ..Failing::default()
                });
                match link.send(&message(), &[b"pay", b"load"]).unwrap_err() {
                    LinkError::Broken(error) => {
                        assert_eq!(error.kind(), how.unwrap_or(io::ErrorKind::WriteZero));
                    }
                    other => panic!("{other:?} at {good}"),
                }
                assert_eq!(link.stream().bytes.get_ref(), &frame[..good]);
            }
        }
    }
}

#[test]
fn writes_cut_anywhere_send_the_same() {
    let frame = frame();
    for at_once in 1..=frame.len() {
        let mut link = Link::new(Failing {
            good: usize::MAX,
            at_once,
            ..Failing::default()
        });
        link.send(&message(), &[b"p", b"", b"ayloa", b"d"]).unwrap();
        assert_eq!(link.stream().bytes.get_ref(), &frame);
    }
}

#[test]
fn nothing_but_empty_pieces_can_be_sent() {
    let mut link = Link::new(Cursor::new(Vec::new()));
    link.send(&ToWorker::Exit(0), &[b"", b""]).unwrap();
    let bytes = link.stream().get_ref().clone();
    let mut reader = Reader::default();
    let (header, payload) = reader.read(&mut bytes.as_slice(), Caps::FULL).unwrap();
    assert_eq!((header, payload), ([3, 0].as_slice(), [].as_slice()));
}

#[test]
fn a_header_that_is_too_large_is_not_sent_and_the_link_goes_on() {
    let mut link = Link::new(Cursor::new(Vec::new()));
    let long = ToWorker::Refused("x".repeat(MAX_HEADER as usize));
    let LinkError::TooLarge(why) = link.send(&long, &[]).unwrap_err() else {
        panic!("it was sent");
    };
    assert_eq!(
        why,
        "a header of 67108869 bytes is above the limit of 67108864 bytes"
    );
    assert!(link.stream().get_ref().is_empty());
    link.send(&ToWorker::Exit(1), &[]).unwrap();
    assert!(!link.stream().get_ref().is_empty());
}

#[test]
fn what_came_with_a_frame_is_kept_for_the_next() {
    let frame = frame();
    let bytes = [frame.as_slice(), &frame, &frame[..5]].concat();
    let mut link = Link::new(Cursor::new(bytes));
    for unread in [true, true] {
        let (got, payload) = link.receive::<ToWorker>(Caps::FULL).unwrap();
        assert_eq!((got, payload), (message(), b"payload".as_slice()));
        assert_eq!(link.has_unread(), unread);
    }
    let end = link.receive::<ToWorker>(Caps::FULL).unwrap_err();
    assert!(matches!(end, LinkError::Broken(_)), "{end}");
}

#[test]
fn thousands_of_pieces_go_through_a_real_socket() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("link");
    let listener = listen(name.as_os_str()).unwrap();
    let connecting = {
        let name = name.clone();
        thread::spawn(move || Link::new(connect(name.as_os_str()).unwrap()))
    };
    use interprocess::local_socket::traits::Listener as _;
    let mut ours = Link::new(listener.accept().unwrap());
    let mut theirs = connecting.join().unwrap();

    // More than one system call takes at once, and more than the socket holds.
    let sending = thread::spawn(move || {
        let piece = [1; 1000];
        ours.send(&ToWorker::Exit(1), &vec![piece.as_slice(); 5000])
            .unwrap();
        ours
    });
    let (_, payload) = theirs.receive::<ToWorker>(Caps::FULL).unwrap();
    assert_eq!(payload.len(), 5_000_000);
    assert!(payload.iter().all(|byte| *byte == 1));
    drop(sending.join().unwrap());
    let end = theirs.receive::<ToWorker>(Caps::FULL).unwrap_err();
    assert!(matches!(end, LinkError::Closed), "{end}");

    drop(listener);
    assert!(!name.exists(), "the listener removes its socket");
}

/// The bytes of a worker's first message.
fn greeting() -> Vec<u8> {
    let hello = Hello {
        token: token().reveal().to_owned(),
        pid: 7,
        tasks: Vec::new(),
        build: String::new(),
        shares: true,
    };
    let stream = Failing {
        good: usize::MAX,
        at_once: usize::MAX,
        ..Failing::default()
    };
    // The worker's own words come back to it; only what it sent matters here.
    let mut link = Link::new(stream);
    let _ = handshake::introduce(&mut link, &hello);
    link.stream().bytes.get_ref().clone()
}

fn token() -> Token {
    Token::from_random([0x5a; 16])
}

fn received(bytes: Vec<u8>) -> Result<Hello, HandshakeError> {
    handshake::receive(&mut Link::new(Cursor::new(bytes)), &token())
}

#[test]
fn no_changed_bit_of_a_greeting_is_let_in_with_another_token() {
    let greeting = greeting();
    assert_eq!(received(greeting.clone()).unwrap().token, token().reveal());
    for byte in 0..greeting.len() {
        for bit in 0..8 {
            let mut changed = greeting.clone();
            changed[byte] ^= 1 << bit;
            match received(changed) {
                Ok(hello) => assert_eq!(hello.token, token().reveal()),
                Err(HandshakeError::Version { theirs }) => assert_ne!(theirs, VERSION),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn bytes_behind_a_greeting_are_refused() {
    let mut longer = greeting();
    longer[0] += 1;
    longer.push(0);
    let error = received(longer).unwrap_err();
    assert!(
        matches!(&error, HandshakeError::Link(LinkError::Malformed(_))),
        "{error}"
    );
}

#[test]
fn a_greeting_that_ends_early_is_no_worker() {
    let greeting = greeting();
    for cut in 0..greeting.len() {
        let error = received(greeting[..cut].to_vec()).unwrap_err();
        let link = match &error {
            HandshakeError::Link(link) => link,
            other => panic!("{other}"),
        };
        assert_eq!(matches!(link, LinkError::Closed), cut == 0, "{link}");
    }
}

#[test]
fn a_token_is_not_shown_by_accident() {
    assert_eq!(format!("{:?}", token()), "Token(…)");
}
