//! Payloads that are larger than the lane cross it in parts.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use protocol::black_box::{self, BlackBox};
use protocol::frame::{Caps, MAX_PAYLOAD, SHARED};
use protocol::lane::{self, Side};
use protocol::memory::ferry::PART;
use protocol::message::{Reply, Stopped};
use protocol::parcel::{Parcel, Received};
use protocol::{Link, LinkError};

fn file(lane: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len((black_box::LEAST_SIZE + lane) as u64).unwrap();
    file
}

fn link(stream: UnixStream, file: &File, side: Side) -> Link<UnixStream> {
    let mut link = Link::new(stream);
    link.share(&Arc::new(BlackBox::map(file).unwrap()), side);
    link
}

/// A coordinator and a worker, with a lane of so many bytes.
fn pair(lane: usize) -> (Link<UnixStream>, Link<UnixStream>) {
    let file = file(lane);
    let (ours, theirs) = UnixStream::pair().unwrap();
    (
        link(ours, &file, Side::Coordinator),
        link(theirs, &file, Side::Worker),
    )
}

fn message(at: u32) -> Reply {
    Reply::Stopped(Stopped { serial: 7, at })
}

/// Bytes of which no two neighbouring words are the same.
fn payload(len: usize, seed: u64) -> Vec<u8> {
    let words = (seed << 32..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

#[test]
fn what_crosses_in_parts_is_whole() {
    let lanes = [lane::SIZE, 4 * PART, 4 * PART + 8, 3 * PART];
    for (lane, is_from_worker) in lanes
        .iter()
        .flat_map(|lane| [(*lane, true), (*lane, false)])
    {
        let (coordinator, worker) = pair(lane);
        let (mut speaker, mut listener) = match is_from_worker {
            true => (worker, coordinator),
            false => (coordinator, worker),
        };
        let sizes = [
            lane + 1,
            lane + PART,
            lane + 8 * PART - 1,
            20 * PART,
            30_000_001,
            5,
        ];
        let speaking = thread::spawn(move || {
            for (at, size) in sizes.into_iter().enumerate() {
                let bytes = payload(size, at as u64);
                let (one, other) = bytes.split_at(size / 3);
                // What the lane holds before has been taken when a part is put there.
                let before = payload(lane::LEAST, 9);
                speaker.send(&message(99), &[&before]).unwrap();
                speaker
                    .send(&message(at as u32), &[one, &[], other])
                    .unwrap();
            }
        });
        for (at, size) in sizes.into_iter().enumerate() {
            let (heard, before) = listener.receive::<Reply>(Caps::FULL).unwrap();
            assert!(heard == message(99) && before == payload(lane::LEAST, 9));
            let bytes = payload(size, at as u64);
            match at % 3 {
                2 => {
                    let (heard, came) = listener.receive::<Reply>(Caps::FULL).unwrap();
                    assert!(heard == message(at as u32) && came == bytes);
                }
                0 => {
                    let (heard, came) = listener
                        .receive_owned::<Reply>(Caps::FULL, Vec::new)
                        .unwrap();
                    assert!(heard == message(at as u32) && *came.join() == bytes);
                }
                _ => {
                    let (heard, came, _) = listener.receive_to_answer::<Reply>(Caps::FULL).unwrap();
                    assert!(heard == message(at as u32) && came.len() == size);
                    assert!(*came.join() == bytes);
                }
            }
        }
        speaking.join().unwrap();
    }
}

#[test]
fn a_large_piece_comes_into_memory_of_its_own() {
    let (mut coordinator, mut worker) = pair(lane::SIZE);
    for len in [2 * lane::SIZE, 10 * lane::SIZE + 3] {
        let bytes = serde_bytes::ByteBuf::from(payload(len, 1));
        let mut encoded = Vec::new();
        protocol::encode(&(7_u8, &bytes, "behind", vec![3_u32; 300]), &mut encoded).unwrap();
        let start = encoded.len() - len - 7 - (300 * 4 + 12);
        let piece = start..start + len;
        let sent = encoded.clone();
        thread::scope(|scope| {
            scope.spawn(|| coordinator.send_large(&message(0), &sent, piece).unwrap());
            let (_, came, _) = worker.receive_to_answer::<Reply>(Caps::FULL).unwrap();
            assert!(*came.join() == encoded);
            let Received::Given(Parcel::Apart(apart)) = came else {
                panic!("it came in one piece")
            };
            let (number, read, text, rest): (u8, serde_bytes::ByteBuf, String, Vec<u32>) =
                apart.decode().unwrap();
            assert_eq!((number, &*text, rest), (7, "behind", vec![3; 300]));
            assert!(read == bytes);
            assert_eq!(read.capacity(), len, "no more memory than it needs");
        });
        let _ = &worker;
    }
}

/// A frame that says that its payload crosses in parts.
fn claim(len: u32, before: u32, piece: u32) -> Vec<u8> {
    let mut header = Vec::new();
    protocol::encode(&message(0), &mut header).unwrap();
    let lengths = [header.len() as u32, len | SHARED].map(u32::to_le_bytes);
    let place = [u32::MAX, before, piece].map(u32::to_le_bytes);
    [lengths.concat(), header, place.concat()].concat()
}

#[test]
fn nonsense_is_refused_and_reserves_nothing() {
    // A piece that is not within the payload, and one without a lane.
    for (lane, before, piece) in [
        (lane::SIZE, 1, 5 << 20),
        (lane::SIZE, u32::MAX, u32::MAX),
        (2 * PART, 0, 0),
        (0, 0, 0),
    ] {
        let (mut coordinator, worker) = pair(lane);
        worker
            .stream()
            .write_all(&claim(5 << 20, before, piece))
            .unwrap();
        let error = coordinator.receive_owned::<Reply>(Caps::FULL, Vec::new);
        assert!(matches!(error, Err(LinkError::Malformed(_))));
    }
    // Lengths that are never kept, for which the worker ends. It may do so in the middle.
    for (piece, parts) in [(0, 0), (MAX_PAYLOAD, 0), (MAX_PAYLOAD - 1, 3)] {
        let (mut coordinator, worker) = pair(lane::SIZE);
        let mut frame = claim(MAX_PAYLOAD, 0, piece);
        frame.extend(vec![1; parts]);
        worker.stream().write_all(&frame).unwrap();
        drop(worker);
        let error = coordinator.receive_owned::<Reply>(Caps::FULL, Vec::new);
        assert!(matches!(error, Err(LinkError::Broken(_))), "{error:?}");
    }
    // No part at all.
    let (mut coordinator, worker) = pair(lane::SIZE);
    worker.stream().write_all(&claim(0, 0, 0)).unwrap();
    let (_, came) = coordinator
        .receive_owned::<Reply>(Caps::FULL, Vec::new)
        .unwrap();
    assert_eq!(came.len(), 0);
}

#[test]
fn a_receiver_that_ends_or_speaks_out_of_turn_breaks_the_link() {
    let bytes = payload(2 * lane::SIZE, 1);
    for (answers, ends) in [
        (&[][..], true),
        (&[1, 1, 1], true),
        (&[1, 2], false),
        (&[0], false),
    ] {
        let (mut coordinator, worker) = pair(lane::SIZE);
        worker.stream().write_all(answers).unwrap();
        let worker = (!ends).then_some(worker);
        let sent = coordinator.send(&message(0), &[&bytes]);
        assert!(matches!(sent, Err(LinkError::Broken(_))), "{sent:?}");
        drop(worker);
    }
}

#[test]
fn without_room_for_two_parts_it_goes_by_the_socket() {
    let (mut coordinator, mut worker) = pair(2 * PART);
    let bytes = payload(3 << 20, 1);
    let expected = bytes.clone();
    let sending = thread::spawn(move || coordinator.send(&message(0), &[&bytes]).unwrap());
    let (_, came) = worker.receive::<Reply>(Caps::FULL).unwrap();
    assert!(came == expected);
    sending.join().unwrap();
    let _ = worker.stream().read(&mut []);
}
