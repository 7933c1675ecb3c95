//! Large payloads through shared memory: whatever their sizes, whoever takes them when, and whatever
//! nonsense is said of them.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use protocol::black_box::{self, BlackBox};
use protocol::frame::{Caps, SHARED};
use protocol::lane::{self, Side};
use protocol::message::{Reply, Stopped};
use protocol::parcel::{Owned, Parcel};
use protocol::{Link, LinkError};
use serde_bytes::ByteBuf;

/// One direction of a stream.
#[derive(Debug, Default, Clone)]
struct Way(Rc<RefCell<VecDeque<u8>>>);

#[derive(Debug)]
struct Stream {
    to: Way,
    from: Way,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.0.borrow_mut().read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.to.0.borrow_mut().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A coordinator and its worker, and what goes over their stream.
struct Pair {
    coordinator: Link<Stream>,
    worker: Link<Stream>,
    to_worker: Way,
    to_coordinator: Way,
    file: File,
}

fn pair() -> Pair {
    pair_with(lane::SIZE)
}

/// With a lane of so many bytes.
fn pair_with(lane: usize) -> Pair {
    let file = tempfile::tempfile().unwrap();
    file.set_len((black_box::LEAST_SIZE + lane) as u64).unwrap();
    let (to_worker, to_coordinator) = (Way::default(), Way::default());
    let link = |to: &Way, from: &Way, side| {
        let mut link = Link::new(Stream {
            to: to.clone(),
            from: from.clone(),
        });
        // Each has mapped it for itself.
        link.share(&Arc::new(BlackBox::map(&file).unwrap()), side);
        link
    };
    Pair {
        coordinator: link(&to_worker, &to_coordinator, Side::Coordinator),
        worker: link(&to_coordinator, &to_worker, Side::Worker),
        to_worker,
        to_coordinator,
        file,
    }
}

fn message(at: u32) -> Reply {
    Reply::Stopped(Stopped { serial: 7, at })
}

/// Bytes of which no two neighbouring words are the same.
fn payload(len: usize, seed: u32) -> Vec<u8> {
    let words = (u64::from(seed) << 32..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

/// Sends it in pieces that end wherever they like.
fn send(link: &mut Link<Stream>, at: u32, payload: &[u8], cuts: &[usize]) {
    let mut pieces = Vec::new();
    let mut rest = payload;
    for cut in cuts {
        let (piece, behind) = rest.split_at(cut % (rest.len() + 1));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    link.send(&message(at), &pieces).unwrap();
}

/// Larger payloads that find no room cross in parts, for which both sides have to be at it at the same time: see `ferry.rs`.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..40_usize,
        lane::LEAST - 20..lane::LEAST + 20,
        lane::LEAST..1 << 20,
    ]
}

/// As it is, or shorter, as where addresses are scarce.
fn lane_size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(lane::SIZE), Just(lane::SIZE), Just(256 << 10), Just(0)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// One side says some things, of which the other hears some at once and the rest later; then it is the
    /// other's turn.
    #[test]
    fn what_is_sent_is_received_whoever_hears_it_when(
        turns in prop::collection::vec(
            prop::collection::vec((size(), any::<bool>(), prop::collection::vec(any::<usize>(), 0..4)), 1..6),
            1..5,
        ),
        lane in lane_size(),
    ) {
        let Pair { mut coordinator, mut worker, .. } = pair_with(lane);
        let mut number = 0;
        for (turn, said) in turns.into_iter().enumerate() {
            let (speaker, listener) = match turn % 2 {
                0 => (&mut coordinator, &mut worker),
                _ => (&mut worker, &mut coordinator),
            };
            let mut unheard = VecDeque::new();
            for (size, hears, cuts) in said {
                let bytes = payload(size, number);
                send(speaker, number, &bytes, &cuts);
                unheard.push_back((number, bytes));
                number += 1;
                while hears && let Some((number, bytes)) = unheard.pop_front() {
                    let (heard, got) = listener.receive::<Reply>(Caps::FULL).unwrap();
                    prop_assert_eq!(heard, message(number));
                    prop_assert!(got == bytes);
                }
            }
            for (number, bytes) in unheard {
                let (heard, got) = listener.receive_owned::<Reply>(Caps::FULL, || vec![1; 5]).unwrap();
                prop_assert_eq!(heard, message(number));
                prop_assert!(*got.join() == bytes);
            }
        }
    }
}

/// Bytes that are written in one go.
struct Bytes<'b>(&'b [u8]);

impl serde::Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// What a worker does with one output.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Writes something large between two small things, and sends it.
    Send(usize),
    /// The same with something that was encoded before.
    SendEncoded(usize),
    /// Writes it, and thinks better of it.
    Forget(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let size = || prop_oneof![0..40_usize, 100_usize << 10..300 << 10, size()];
    prop_oneof![
        size().prop_map(Deed::Send),
        size().prop_map(Deed::SendEncoded),
        size().prop_map(Deed::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The input is what it was until the end, and the outputs arrive, whatever their sizes.
    #[test]
    fn a_worker_answers_behind_what_it_reads(
        turns in prop::collection::vec((size(), prop::collection::vec(deed(), 0..5)), 1..4),
        lane in lane_size(),
    ) {
        let Pair { mut coordinator, mut worker, .. } = pair_with(lane);
        for (size, deeds) in turns {
            let input = payload(size, 99);
            send(&mut coordinator, 0, &input, &[]);
            let (_, read, mut answer) = worker.receive_to_answer::<Reply>(Caps::FULL).unwrap();
            let mut expected = Vec::new();
            for (number, deed) in deeds.into_iter().enumerate() {
                let (Deed::Send(size) | Deed::SendEncoded(size) | Deed::Forget(size)) = deed;
                let output = payload(size, number as u32);
                let whole = (7_u8, Bytes(&output), "behind");
                let mut encoded = vec![1, 2, 3];
                let placed = match deed {
                    Deed::SendEncoded(_) => {
                        protocol::encode(&whole, &mut encoded).unwrap();
                        None
                    }
                    Deed::Send(_) => {
                        let mut sheet = answer.sheet(&mut encoded);
                        sheet.encode(&whole).unwrap();
                        sheet.placed()
                    }
                    Deed::Forget(_) => {
                        let mut sheet = answer.sheet(&mut encoded);
                        sheet.encode(&whole).unwrap();
                        sheet.clear();
                        prop_assert_eq!(sheet.placed(), None);
                        prop_assert_eq!(&encoded, &[1, 2, 3]);
                        continue;
                    }
                };
                match placed {
                    Some(placed) => {
                        prop_assert_eq!(&encoded, &[1, 2, 3]);
                        answer.send_placed(&message(number as u32), placed).unwrap();
                    }
                    None => answer.send(&message(number as u32), &[&encoded[3..]]).unwrap(),
                }
                expected.push((number as u32, postcard::to_stdvec(&whole).unwrap()));
            }
            prop_assert!(*read.join() == input);
            for (number, bytes) in expected {
                let (heard, got) = match number % 2 {
                    0 => coordinator.receive_owned::<Reply>(Caps::FULL, Vec::new).unwrap(),
                    _ => {
                        let (heard, got) = coordinator.receive::<Reply>(Caps::FULL).unwrap();
                        (heard, Parcel::Whole(Owned::new(got.to_vec())))
                    }
                };
                prop_assert_eq!(heard, message(number));
                prop_assert!(*got.join() == bytes);
            }
        }
    }
}

#[test]
fn a_large_output_is_written_where_it_is_taken_from() {
    let mut pair = pair();
    for len in [1 << 20, 2 << 20, 100] {
        let bytes = payload(len, 1);
        send(&mut pair.coordinator, 0, &bytes, &[]);
        let (_, read, mut answer) = pair.worker.receive_to_answer::<Reply>(Caps::FULL).unwrap();
        // As much as there was in the input, for half of the lane, and its length.
        let output = payload(len - 10, 2);
        let mut buffer = Vec::new();
        let mut sheet = answer.sheet(&mut buffer);
        sheet.encode(&Bytes(&output)).unwrap();
        let placed = sheet.placed();
        assert_eq!(placed.is_some(), len > 100);
        assert_eq!(buffer.is_empty(), len > 100);
        assert!(*read.join() == bytes);
        let Some(placed) = placed else { continue };
        // It is received apart from its length.
        answer.send_placed(&message(0), placed).unwrap();
        let (_, parcel) = (pair.coordinator)
            .receive_owned::<Reply>(Caps::FULL, Vec::new)
            .unwrap();
        let Parcel::Apart(apart) = parcel else {
            panic!("it came in one piece")
        };
        let value: ByteBuf = apart.decode().unwrap();
        assert!(value == output);
    }
}

#[test]
fn large_payloads_stay_out_of_the_stream_as_long_as_there_is_room() {
    let mut pair = pair();
    for (size, fit) in [(lane::LEAST, 16), (256 << 10, 2), (900 << 10, 1)] {
        let bytes = payload(size, 1);
        for _ in 0..3 {
            // Nobody has taken the others when the last one comes.
            for number in 0..=fit {
                assert!(pair.to_coordinator.0.borrow().len() < 1000);
                send(&mut pair.worker, number, &bytes, &[]);
            }
            assert!(pair.to_coordinator.0.borrow().len() > size);
            for _ in 0..=fit {
                let (_, got) = pair.coordinator.receive::<Reply>(Caps::FULL).unwrap();
                assert!(got == bytes);
            }
        }
    }
    send(&mut pair.coordinator, 0, &payload(lane::LEAST - 1, 1), &[]);
    assert!(pair.to_worker.0.borrow().len() > lane::LEAST);
}

#[test]
fn a_second_link_goes_on_where_the_first_one_ended() {
    let mut pair = pair();
    // As a coordinator does: the link for all calls is there when another one is used for the first.
    let mut first = Link::new(Stream {
        to: pair.to_worker.clone(),
        from: pair.to_coordinator.clone(),
    });
    first.share(
        &Arc::new(BlackBox::map(&pair.file).unwrap()),
        Side::Coordinator,
    );
    let most = payload(lane::SIZE, 1);
    send(&mut first, 0, &most, &[]);
    assert!(pair.worker.receive::<Reply>(Caps::FULL).unwrap().1 == most);
    for number in 1..4 {
        send(&mut pair.coordinator, number, &most, &[]);
        assert!(pair.to_worker.0.borrow().len() < 100, "the {number}.");
        assert!(pair.worker.receive::<Reply>(Caps::FULL).unwrap().1 == most);
    }
}

/// Where a payload is said to stand: so many bytes, of which some stand before this word, and some from there
/// on are its large piece.
#[derive(Debug, Clone, Copy)]
struct Claim {
    len: u32,
    at: u32,
    before: u32,
    piece: u32,
}

/// A frame that says so.
fn claim(header: &Reply, claim: Claim) -> Vec<u8> {
    let mut bytes = Vec::new();
    protocol::encode(header, &mut bytes).unwrap();
    let lengths = [bytes.len() as u32, claim.len | SHARED].map(u32::to_le_bytes);
    let place = [claim.at, claim.before, claim.piece].map(u32::to_le_bytes);
    [lengths.concat(), bytes, place.concat()].concat()
}

#[test]
fn a_place_that_is_none_is_rubbish() {
    let words = (lane::SIZE / 8) as u32;
    let size = lane::SIZE as u32;
    for (len, at, before, piece, exists) in [
        (0, 0, 0, 0, true),
        (size, 0, 0, 0, true),
        (8, words - 1, 0, 0, true),
        (0, words, 0, 0, true),
        (9, words - 1, 0, 0, false),
        (1, words, 0, 0, false),
        (size, 1, 0, 0, false),
        (size + 1, 0, 0, 0, false),
        (0, u32::MAX - 1, 0, 0, false),
        (1 << 30, u32::MAX - 1, 0, 0, false),
        (SHARED - 1, 0, 0, 0, false),
        // What stands before the word, and the large piece.
        (100, 1, 8, 92, true),
        (100, 3, 20, 60, true),
        (100, 3, 0, 100, true),
        (size, 1, 8, 1, true),
        (9, words, 9, 0, true),
        (10, words, 9, 0, false),
        (100, 1, 9, 0, false),
        (100, 1, 8, 93, false),
        (100, 50, 101, 0, false),
        (100, 50, u32::MAX, 2, false),
        (100, 50, 2, u32::MAX, false),
    ] {
        let place = Claim {
            len,
            at,
            before,
            piece,
        };
        for owned in [false, true] {
            let mut pair = pair();
            let bytes = payload(lane::SIZE, 5);
            pair.file
                .write_all_at(&bytes, (black_box::SIZE - lane::SIZE) as u64)
                .unwrap();
            let frame = claim(&message(0), place);
            pair.to_coordinator.0.borrow_mut().extend(frame);
            let got = match owned {
                true => (pair
                    .coordinator
                    .receive_owned::<Reply>(Caps::FULL, Vec::new))
                .map(|(_, parcel)| {
                    assert_eq!(parcel.len(), len as usize);
                    parcel.join().into_owned()
                }),
                false => (pair.coordinator.receive::<Reply>(Caps::FULL))
                    .map(|(_, payload)| payload.to_vec()),
            };
            match got {
                Ok(got) => {
                    let start = (at * 8 - before) as usize;
                    assert!(
                        exists && got == bytes[start..start + len as usize],
                        "{place:?}"
                    );
                }
                Err(LinkError::Malformed(_)) => assert!(!exists, "{place:?}"),
                Err(error) => panic!("{place:?}: {error}"),
            }
        }
    }
}

#[test]
fn before_memory_is_shared_no_place_exists() {
    let place = Claim {
        len: 8,
        at: 0,
        before: 0,
        piece: 0,
    };
    let bytes = claim(&message(0), place);
    let error = Link::new(io::Cursor::new(bytes))
        .receive::<Reply>(Caps::FULL)
        .unwrap_err();
    assert!(matches!(error, LinkError::Malformed(_)), "{error:?}");
}

#[test]
fn who_scribbles_where_payloads_are_counted_harms_no_link() {
    let mut pair = pair();
    for number in 0..20_u32 {
        // The words in which it is counted what was taken.
        let nonsense = payload(16, number);
        pair.file.write_all_at(&nonsense, 5 * 8).unwrap();
        let bytes = payload(900 << 10, number);
        send(&mut pair.worker, number, &bytes, &[]);
        let (heard, got) = pair.coordinator.receive::<Reply>(Caps::FULL).unwrap();
        assert_eq!(heard, message(number));
        assert!(got == bytes);
    }
}

/// What has begun in the lane and finds no room for its end stands in the buffer, all of it.
#[test]
fn an_output_that_outgrows_the_lane_is_whole() {
    let mut pair = pair();
    pair.coordinator.send(&message(0), &[b"input"]).unwrap();
    let (_, _, mut answer) = pair.worker.receive_to_answer::<Reply>(Caps::FULL).unwrap();
    let output: Vec<u8> = (0..lane::SIZE + 100_000)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect();
    let mut buffer = b"before".to_vec();
    let mut sheet = answer.sheet(&mut buffer);
    for piece in output.chunks(1 << 20) {
        sheet.write(piece);
    }
    assert!(sheet.placed().is_none());
    assert!(buffer[..6] == *b"before" && buffer[6..] == output);
}

/// By whatever way it came, the buffer of a payload goes on to the next frame.
#[test]
fn a_payload_gives_its_buffer_back() {
    let owned = Owned::new(vec![1, 2, 3]);
    assert_eq!(owned.payload(), [1, 2, 3]);
    assert_eq!(owned.into_buffer(), [1, 2, 3]);
    let mut buffer = vec![7];
    lane::Sheet::new(&mut buffer, None).buffer().push(8);
    assert_eq!(buffer, [7, 8]);
}
