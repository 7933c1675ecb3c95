//! Two sides that share memory see one stream of bytes in each direction, whichever way the bytes go.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use interprocess::os::unix::uds_local_socket::Stream;
use proptest::prelude::*;
use protocol::black_box::{self, BlackBox};
use protocol::descriptors::Taking;
use protocol::lane::Side;
use protocol::link::Socket;
use protocol::spin::Spinning;

fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(black_box::SIZE as u64).unwrap();
    file
}

/// Both sides of a stream.
fn pair(file: &File) -> [Spinning<Taking>; 2] {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let side = |stream: UnixStream, side| {
        let socket = Socket::from(Stream::from(OwnedFd::from(stream)));
        let mut spinning = Spinning::new(Taking::new(socket));
        spinning.share(&Arc::new(BlackBox::map(file).unwrap()), side);
        spinning
    };
    [side(ours, Side::Coordinator), side(theirs, Side::Worker)]
}

/// What one side says in its turn: so many bytes each, and a pause before each that is longer than anybody stays awake.
type Turn = Vec<(usize, bool)>;

fn turn() -> impl Strategy<Value = Turn> {
    let size = prop_oneof![8 => 1..200_usize, 1 => 4090..4100_usize, 1 => 1..40_000_usize];
    prop::collection::vec((size, prop::bool::weighted(0.1)), 1..5)
}

/// The bytes from a place of a stream on.
fn bytes(at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn say(stream: &mut Spinning<Taking>, turn: &Turn, at: &mut usize) -> io::Result<()> {
    for (len, pauses) in turn {
        if *pauses {
            thread::sleep(Duration::from_micros(300));
        }
        stream.write_all(&bytes(*at, *len))?;
        *at += len;
    }
    Ok(())
}

fn hear(stream: &mut Spinning<Taking>, turn: &Turn, at: &mut usize, room: usize) -> io::Result<()> {
    let mut left: usize = turn.iter().map(|(len, _)| len).sum();
    let mut buffer = vec![0; room];
    while left > 0 {
        let room = buffer.len().min(left);
        let read = stream.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(buffer[..read] == bytes(*at, read));
        *at += read;
        left -= read;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_is_one_stream_of_bytes(
        turns in prop::collection::vec((turn(), turn()), 1..60),
        room in prop_oneof![Just(16 << 10), 1..100_usize],
    ) {
        let file = file();
        let [mut coordinator, mut worker] = pair(&file);
        thread::scope(|scope| {
            let answers = &turns;
            scope.spawn(move || {
                let (mut said, mut heard) = (0, 0);
                for (question, answer) in answers {
                    hear(&mut worker, question, &mut heard, room).unwrap();
                    say(&mut worker, answer, &mut said).unwrap();
                }
            });
            let (mut said, mut heard) = (0, 0);
            for (question, answer) in &turns {
                say(&mut coordinator, question, &mut said).unwrap();
                hear(&mut coordinator, answer, &mut heard, room).unwrap();
            }
            // The other side has ended.
            assert_eq!(coordinator.read(&mut [0]).unwrap(), 0);
        });
    }
}

#[test]
fn what_was_posted_before_the_end_is_read() {
    for _ in 0..200 {
        // Memory begins with zeros: with what an earlier pair has left, a byte may be taken for a nudge.
        let file = file();
        let [mut coordinator, mut worker] = pair(&file);
        let last = thread::spawn(move || {
            let mut byte = [0; 2];
            // Until the other side is likely to be awake.
            for _ in 0..20 {
                worker.read_exact(&mut byte).unwrap();
                worker.write_all(b"ab").unwrap();
            }
            worker.write_all(b"last").unwrap();
        });
        for _ in 0..20 {
            coordinator.write_all(b"xy").unwrap();
            coordinator.read_exact(&mut [0; 2]).unwrap();
        }
        let mut rest = Vec::new();
        coordinator.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last");
        last.join().unwrap();
    }
}

/// The words for mail, wherever they are: all of the memory is filled with nonsense, again and again.
#[test]
fn who_scribbles_over_the_mail_harms_nobody() {
    let file = file();
    let [mut coordinator, worker] = pair(&file);
    let (outer, mut inner) = (file.try_clone().unwrap(), worker);
    let scribbler = thread::spawn(move || {
        for round in 0..300_u32 {
            let nonsense: Vec<u8> = bytes(round as usize * 13, 600 << 10);
            outer.write_all_at(&nonsense, 0).unwrap();
            // It may be dead when the other side has read nonsense.
            if inner.write_all(&[1, 2, 3]).is_err() {
                break;
            }
        }
    });
    // Any bytes, but no panic, and an end.
    let mut buffer = [0; 5000];
    while let Ok(read) = coordinator.read(&mut buffer)
        && read > 0
    {}
    scribbler.join().unwrap();
}
