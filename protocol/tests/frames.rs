//! Frames and links over streams that behave in every way a stream may.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use proptest::prelude::*;
use protocol::frame::{Caps, MAX_HEADER, MAX_PAYLOAD};
use protocol::message::{
    Batch, CallEnd, CallReply, CallsReply, Encoding, Panic, Reply, Stopped, ToWorker, Verdict,
    Welcome,
};
use protocol::{Link, LinkError};

/// A stream in memory. Reads and writes go through in pieces, with interruptions between them.
#[derive(Debug, Default)]
struct Pieces {
    bytes: VecDeque<u8>,
    /// How long the pieces are; used in turn.
    sizes: Vec<usize>,
    turn: usize,
}

impl Pieces {
    fn new(bytes: impl IntoIterator<Item = u8>, sizes: Vec<usize>) -> Self {
        Pieces {
            bytes: bytes.into_iter().collect(),
            sizes,
            turn: 0,
        }
    }

    /// How much goes through now.
    fn piece(&mut self, wanted: usize) -> io::Result<usize> {
        self.turn += 1;
        match self.sizes.get(self.turn % self.sizes.len().max(1)) {
            None => Ok(wanted),
            Some(0) => Err(io::ErrorKind::Interrupted.into()),
            Some(size) => Ok(wanted.min(*size)),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.piece(buffer.len())?.min(self.bytes.len());
        for (to, from) in buffer.iter_mut().zip(self.bytes.drain(..len)) {
            *to = from;
        }
        Ok(len)
    }
}

impl Write for Pieces {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let len = self.piece(buffer.len())?;
        self.bytes.extend(&buffer[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sizes of pieces, some of them interruptions; at least one is not.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..40_usize, 0..6).prop_map(|mut sizes| {
        if !sizes.is_empty() {
            sizes.push(7);
        }
        sizes
    })
}

fn message() -> impl Strategy<Value = ToWorker> {
    let encoding = prop_oneof![
        Just(Encoding::Postcard),
        Just(Encoding::Text),
        Just(Encoding::Check)
    ];
    let numbers = any::<(u32, u64, u32)>();
    let lens = prop::collection::vec(any::<u32>(), 0..5);
    prop_oneof![
        any::<(u32, bool)>().prop_map(|(slot, board)| ToWorker::Welcome(Welcome { slot, board })),
        Just(ToWorker::Here),
        any::<String>().prop_map(ToWorker::Refused),
        any::<i32>().prop_map(ToWorker::Exit),
        (any::<(String, Option<String>)>(), encoding, numbers, lens).prop_map(
            |((task, types), encoding, (serial, first, attempt), lens)| {
                ToWorker::Batch(Batch {
                    serial,
                    task,
                    types,
                    encoding,
                    first,
                    attempt,
                    lens: lens.into_iter().collect(),
                })
            }
        ),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let verdict = prop_oneof![
        Just(Verdict::Value),
        any::<String>().prop_map(Verdict::Failed),
        any::<String>().prop_map(Verdict::Undecodable),
        any::<(String, String, String)>().prop_map(|(message, location, backtrace)| {
            Verdict::Panicked(Panic {
                message,
                location,
                backtrace,
            })
        }),
    ];
    let end = (any::<(u64, u64)>(), verdict).prop_map(|((stdout, stderr), verdict)| CallEnd {
        stdout,
        stderr,
        verdict,
    });
    let call = (any::<(u32, u32, u64)>(), end.clone()).prop_map(|((serial, at, nanos), end)| {
        Reply::Call(CallReply {
            serial,
            at,
            nanos,
            end,
        })
    });
    let lens = || prop::collection::vec(any::<u32>(), 0..5);
    let ends = prop::collection::vec((any::<u32>(), end), 0..3);
    let calls = (any::<(u32, u32)>(), lens(), lens(), ends).prop_map(
        |((serial, at), lens, nanos, ends)| {
            Reply::Calls(CallsReply {
                serial,
                at,
                lens: lens.into_iter().collect(),
                nanos: nanos.into_iter().collect(),
                ends,
            })
        },
    );
    let stopped =
        any::<(u32, u32)>().prop_map(|(serial, at)| Reply::Stopped(Stopped { serial, at }));
    prop_oneof![call, calls, stopped]
}

type Traffic = Vec<(ToWorker, Vec<u8>)>;

fn traffic() -> impl Strategy<Value = Traffic> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    prop::collection::vec((message(), payload), 1..4)
}

fn encoded(traffic: &Traffic) -> Vec<u8> {
    let mut link = Link::new(Pieces::default());
    for (message, payload) in traffic {
        let (one, other) = payload.split_at(payload.len() / 2);
        link.send(message, &[one, other]).unwrap();
    }
    link.stream().bytes.iter().copied().collect()
}

fn received(stream: Pieces) -> (Traffic, LinkError) {
    let mut link = Link::new(stream);
    let mut traffic = Vec::new();
    loop {
        match link.receive::<ToWorker>(Caps::FULL) {
            Ok((message, payload)) => traffic.push((message, payload.to_vec())),
            Err(error) => return (traffic, error),
        }
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_received_in_whatever_pieces(sent in traffic(), sizes in sizes()) {
        let mut link = Link::new(Pieces::new([], sizes.clone()));
        for (message, payload) in &sent {
            link.send(message, &[payload]).unwrap();
        }
        let bytes: Vec<u8> = link.stream().bytes.iter().copied().collect();
        prop_assert_eq!(&bytes, &encoded(&sent));
        let (got, end) = received(Pieces::new(bytes, sizes));
        prop_assert_eq!(got, sent);
        prop_assert!(matches!(end, LinkError::Closed));
    }

    #[test]
    fn replies_travel_whole(reply in reply(), output in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut link = Link::new(Pieces::default());
        link.send(&reply, &[&output]).unwrap();
        let (got, payload) = link.receive::<Reply>(Caps::FULL).unwrap();
        prop_assert_eq!((&got, payload), (&reply, output.as_slice()));
    }

    #[test]
    fn what_is_handed_over_is_the_same_and_what_follows_too(
        sent in prop::collection::vec((reply(), 0..40_000_usize), 1..5),
        together: bool,
    ) {
        let mut link = Link::new(Pieces::new([], match together {
            // All that has been sent arrives at once, as far as the reader asks for it.
            true => Vec::new(),
            false => vec![1000, 3, 0],
        }));
        for (at, (reply, len)) in sent.iter().enumerate() {
            link.send(reply, &[&vec![at as u8; *len]]).unwrap();
        }
        for (at, (reply, len)) in sent.into_iter().enumerate() {
            let (got, parcel) = link.receive_owned::<Reply>(Caps::FULL, || vec![9; 3]).unwrap();
            prop_assert_eq!(got, reply);
            prop_assert!(*parcel.join() == vec![at as u8; len]);
        }
        prop_assert!(!link.has_unread());
        let end = link.receive_owned::<Reply>(Caps::FULL, Vec::new).unwrap_err();
        prop_assert!(matches!(end, LinkError::Closed));
    }

    #[test]
    fn changed_bytes_never_panic(
        sent in traffic(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sizes in sizes(),
    ) {
        let mut bytes = encoded(&sent);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        received(Pieces::new(bytes, sizes));
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        received(Pieces::new(bytes, Vec::new()));
    }
}

proptest! {
    // Each of them tries every byte.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn an_end_at_any_byte_is_closed_only_between_frames(sent in traffic(), sizes in sizes()) {
        let bytes = encoded(&sent);
        let ends: Vec<usize> =
            (0..=sent.len()).map(|count| encoded(&sent[..count].to_vec()).len()).collect();
        for cut in 0..bytes.len() {
            let (got, end) = received(Pieces::new(bytes[..cut].to_vec(), sizes.clone()));
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            prop_assert_eq!(got.len(), whole);
            match end {
                LinkError::Closed => prop_assert!(ends.contains(&cut)),
                LinkError::Broken(_) => prop_assert!(!ends.contains(&cut)),
                other => prop_assert!(false, "{}", other),
            }
        }
    }
}

#[test]
fn a_length_above_its_cap_is_refused() {
    for (header, payload) in [
        (MAX_HEADER + 1, 0),
        (1, MAX_PAYLOAD + 1),
        (u32::MAX, u32::MAX),
    ] {
        let bytes = [header.to_le_bytes(), payload.to_le_bytes()].concat();
        let (_, error) = received(Pieces::new(bytes, Vec::new()));
        assert!(matches!(error, LinkError::Malformed(_)), "{error}");
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut bytes = encoded(&vec![(ToWorker::Exit(0), Vec::new())]);
    bytes[0] += 1;
    bytes.push(0);
    let (_, error) = received(Pieces::new(bytes, Vec::new()));
    assert!(matches!(error, LinkError::Malformed(_)), "{error}");
}

#[test]
fn what_is_too_large_is_not_sent_and_the_link_goes_on() {
    let mut link = Link::new(Pieces::default());
    // One piece of memory, named often enough to be too much.
    let piece = vec![0; 1 << 20];
    let pieces = vec![piece.as_slice(); (MAX_PAYLOAD >> 20) as usize + 1];
    let error = link.send(&ToWorker::Exit(1), &pieces).unwrap_err();
    assert!(matches!(error, LinkError::TooLarge(_)), "{error}");
    link.send(&ToWorker::Exit(2), &[]).unwrap();
    assert_eq!(
        link.receive::<ToWorker>(Caps::FULL).unwrap().0,
        ToWorker::Exit(2)
    );
}
