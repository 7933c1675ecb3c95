//! The handshake: who is let in, and what the others are told.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use protocol::handshake::{self, HandshakeError, Token, VERSION};
use protocol::message::{Hello, TaskInfo, Welcome};
use protocol::{Link, LinkError};

fn hello(token: &str) -> Hello {
    let task = TaskInfo {
        name: "square".to_owned(),
        signature: "fn square(x: i64) -> i64".to_owned(),
        doc: String::new(),
    };
    Hello {
        token: token.to_owned(),
        pid: 7,
        tasks: vec![task],
        build: "1f".to_owned(),
        shares: true,
    }
}

fn token() -> Token {
    Token::from_random([0xab; 16])
}

fn welcome() -> Welcome {
    Welcome {
        slot: 3,
        board: true,
    }
}

fn links() -> (Link<UnixStream>, Link<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Link::new(ours), Link::new(theirs))
}

/// What the coordinator makes of a first message, and what the worker hears.
fn meet(
    presented: &str,
) -> (
    Result<Hello, HandshakeError>,
    Result<Welcome, HandshakeError>,
) {
    let (mut coordinator, mut worker) = links();
    let hello = hello(presented);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let welcome = handshake::introduce(&mut worker, &hello)?;
            handshake::ready(&mut worker)?;
            Ok(welcome)
        });
        let received = handshake::receive(&mut coordinator, &token());
        match &received {
            Ok(_) => {
                handshake::admit(&mut coordinator, welcome()).unwrap();
                handshake::await_ready(&mut coordinator).unwrap();
            }
            Err(why) => handshake::refuse(&mut coordinator, why),
        }
        (received, worker.join().unwrap())
    })
}

/// What the coordinator makes of these bytes.
fn receive(bytes: &[u8]) -> HandshakeError {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(bytes).unwrap();
    drop(ours);
    handshake::receive(&mut Link::new(theirs), &token()).unwrap_err()
}

#[test]
fn the_right_token_is_let_in() {
    let (received, told) = meet(&"ab".repeat(16));
    assert_eq!(received.unwrap(), hello(&"ab".repeat(16)));
    assert_eq!(told.unwrap(), welcome());
}

#[test]
fn one_that_is_let_in_and_is_not_ready_is_no_worker() {
    // It leaves, or says something else.
    for says in [None, Some(vec![1, 0, 0, 0, 0, 0, 0, 0, 9])] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        if let Some(bytes) = &says {
            theirs.write_all(bytes).unwrap();
        }
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let mut link = Link::new(ours);
        let admitted = handshake::admit(&mut link, welcome());
        let error = admitted
            .and_then(|()| handshake::await_ready(&mut link))
            .unwrap_err();
        match says {
            None => assert!(matches!(error, LinkError::Closed), "{error}"),
            Some(_) => assert!(matches!(error, LinkError::Malformed(_)), "{error}"),
        }
    }
}

#[test]
fn another_token_is_refused_and_told_why() {
    for wrong in [
        "",
        "ab",
        &"ab".repeat(15),
        &"ac".repeat(16),
        &"ab".repeat(17),
    ] {
        let (received, told) = meet(wrong);
        assert!(
            matches!(received, Err(HandshakeError::Token)),
            "{received:?}"
        );
        let told = told.unwrap_err().to_string();
        assert!(told.contains("wrong token"), "{told}");
    }
}

#[test]
fn another_version_is_told_apart_before_anything_else_is_read() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let worker = std::thread::spawn(move || {
        handshake::introduce(&mut Link::new(&mut ours), &hello("x")).map_err(|e| e.to_string())
    });
    let mut bytes = vec![0; 8];
    theirs.read_exact(&mut bytes).unwrap();
    let mut header = vec![0; u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize];
    theirs.read_exact(&mut header).unwrap();
    drop(theirs);
    assert!(worker.join().unwrap().is_err());
    // These six bytes are the same in every version.
    assert_eq!(header[..4], *b"COOR");
    assert_eq!(header[4..6], VERSION.to_le_bytes());

    let future = [b"COOR".as_slice(), &99_u16.to_le_bytes(), &[0xff; 9]].concat();
    let frame = [
        &(future.len() as u32).to_le_bytes(),
        &[0; 4],
        future.as_slice(),
    ]
    .concat();
    let error = receive(&frame);
    assert!(
        matches!(error, HandshakeError::Version { theirs: 99 }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("build both from the same source"),
        "{error}"
    );
}

#[test]
fn rubbish_and_silence_are_refused() {
    assert!(matches!(
        receive(b""),
        HandshakeError::Link(LinkError::Closed)
    ));
    assert!(matches!(
        receive(b"GET / HT"),
        HandshakeError::Link(LinkError::Malformed(_))
    ));
    let short = [3_u32.to_le_bytes().as_slice(), &[0; 4], b"COO"].concat();
    assert!(matches!(receive(&short), HandshakeError::NotAWorker));
    let other = [6_u32.to_le_bytes().as_slice(), &[0; 4], b"XXXXXX"].concat();
    assert!(matches!(receive(&other), HandshakeError::NotAWorker));
    // Before the handshake a message may not be as long as after it.
    let long = [(2_u32 << 20).to_le_bytes(), [0; 4]].concat();
    assert!(matches!(
        receive(&long),
        HandshakeError::Link(LinkError::Malformed(_))
    ));
}
