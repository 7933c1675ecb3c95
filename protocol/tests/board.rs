//! Inputs on a board: they are where they were written for whoever may read them, as long as they are needed.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use protocol::black_box::{self, BlackBox};
use protocol::board::InputSheet;
use protocol::board::{Board, REGION, Region, View};
use protocol::frame::{Caps, SHARED};
use protocol::lane::{self, Side};
use protocol::message::{Reply, Stopped};
use protocol::{Link, LinkError};

fn file(size: usize) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size as u64).unwrap();
    file
}

/// Writes bytes on a sheet, in pieces of this size; what is on the board, and what is in the buffer.
fn write(board: &Arc<Board>, bytes: &[u8], piece: usize) -> (Option<Region>, Vec<u8>) {
    let mut buffer = vec![1, 2];
    let mut sheet = InputSheet::new(&mut buffer, Some(board));
    bytes.chunks(piece).for_each(|piece| sheet.write(piece));
    let region = sheet.region();
    (region, buffer.split_off(2))
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 7 + at / 251 + seed) as u8)
        .collect()
}

/// A worker that may read the board, and its coordinator.
fn pair(board: &File) -> (Link<UnixStream>, Link<UnixStream>) {
    let shared = file(black_box::SIZE);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let link = |stream, side| {
        let mut link = Link::new(stream);
        link.share(&Arc::new(BlackBox::map(&shared).unwrap()), side);
        link
    };
    let mut worker = link(theirs, Side::Worker);
    worker.share_board(View::map(board).unwrap());
    (link(ours, Side::Coordinator), worker)
}

fn message() -> Reply {
    Reply::Stopped(Stopped { serial: 7, at: 8 })
}

#[test]
fn what_is_written_is_read_without_being_sent() {
    let file = file(3 * REGION);
    let board = Board::map(&file).unwrap();
    let (mut coordinator, mut worker) = pair(&file);
    let inputs = [128 << 10, 1 << 20, REGION].map(|len| bytes(len, len / 1000));
    let regions = inputs.each_ref().map(|input| {
        let (region, rest) = write(&board, input, 500 << 10);
        assert!(rest.is_empty());
        region.unwrap()
    });
    // To any worker, and as often as needed.
    for _ in 0..2 {
        for (input, region) in inputs.iter().zip(&regions) {
            assert!(**region == **input);
            coordinator.send_from_board(&message(), region).unwrap();
            let (heard, read, mut answer) = worker.receive_to_answer::<Reply>(Caps::FULL).unwrap();
            assert_eq!(heard, message());
            assert!(*read.join() == *input);
            // All of the lane is free for the answer.
            let output = bytes(lane::SIZE - 1000, 5);
            answer.send(&message(), &[&output]).unwrap();
            assert!(coordinator.receive::<Reply>(Caps::FULL).unwrap().1 == output);
            assert!(*read.join() == *input);
        }
    }
}

#[test]
fn what_finds_no_room_stays_in_the_buffer() {
    let file = file(2 * REGION);
    let board = Board::map(&file).unwrap();
    let large = bytes(1 << 20, 1);
    // Nothing of it comes at once that would be worth it, or it is more than a region.
    for (input, piece) in [
        (&large[..], 100 << 10),
        (&bytes(REGION + 1, 2)[..], 1 << 20),
    ] {
        let (region, rest) = write(&board, input, piece);
        assert!(region.is_none() && rest == input);
    }
    let first = write(&board, &large, 1 << 20).0;
    let second = write(&board, &large, 1 << 20).0;
    assert!(first.is_some() && second.is_some());
    let (region, rest) = write(&board, &large, 1 << 20);
    assert!(region.is_none() && rest == large);
    // A region that is free again is taken again.
    drop(first);
    let other = bytes(1 << 20, 3);
    let third = write(&board, &other, 1 << 20).0.unwrap();
    assert!(*third == *other && *second.unwrap() == *large);
    drop(third);
    // Also a region that is not the first: it is that one which is free then, and no other.
    let first = write(&board, &large, 1 << 20).0.unwrap();
    let second = write(&board, &other, 1 << 20).0.unwrap();
    drop(second);
    let fourth = write(&board, &other, 1 << 20).0.unwrap();
    assert!(*first == *large && *fourth == *other);
    assert!(write(&board, &large, 1 << 20).0.is_none());
    // On a board of no region nothing is written.
    let none = Board::map(&self::file(REGION - 1)).unwrap();
    assert!(write(&none, &large, 1 << 20).0.is_none());
}

#[test]
fn what_stands_beyond_the_board_is_rubbish() {
    let file = file(2 * REGION);
    let first = (lane::SIZE / 8) as u32;
    let end = first + (2 * REGION / 8) as u32;
    for (len, at, exists) in [
        (1, first, true),
        (2 * REGION as u32, first, true),
        (8, end - 1, true),
        (0, end, true),
        (9, end - 1, false),
        (1, end, false),
        (0, u32::MAX - 1, false),
        (SHARED - 1, first, false),
        // Partly the lane's.
        (9, first - 1, false),
    ] {
        let (coordinator, mut worker) = pair(&file);
        let mut header = Vec::new();
        protocol::encode(&message(), &mut header).unwrap();
        let lengths = [header.len() as u32, len | SHARED].map(u32::to_le_bytes);
        let place = [at, 0, 0].map(u32::to_le_bytes);
        let frame = [lengths.concat(), header, place.concat()].concat();
        std::io::Write::write_all(&mut coordinator.stream(), &frame).unwrap();
        match worker.receive_to_answer::<Reply>(Caps::FULL) {
            Ok((_, read, _)) => assert!(exists && read.len() == len as usize, "{len} at {at}"),
            Err(LinkError::Malformed(_)) => assert!(!exists, "{len} at {at}"),
            Err(error) => panic!("{len} at {at}: {error}"),
        }
        // A worker has no part of it to speak of.
        let (mut coordinator, worker) = pair(&file);
        std::io::Write::write_all(&mut worker.stream(), &frame).unwrap();
        let heard = coordinator.receive_owned::<Reply>(Caps::FULL, Vec::new);
        assert!(
            matches!(heard, Err(LinkError::Malformed(_))),
            "{len} at {at}"
        );
    }
}
