//! A length prefix is not trusted with memory. In a program of its own, which counts what it
//! allocates.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::frame::{self, Caps, MAX_HEADER, MAX_PAYLOAD, Reader};
use protocol::message::{Reply, ToWorker};
use protocol::{Link, LinkError};
use serde::de::DeserializeOwned;

/// How much is allocated, and the most that ever was.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Counts from here. One test at a time, as there is one allocator.
fn start() -> (MutexGuard<'static, ()>, usize) {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let live = LIVE.load(Ordering::Relaxed);
    MOST.store(live, Ordering::Relaxed);
    (one, live)
}

#[test]
fn a_claimed_length_costs_what_is_sent() {
    let (_one, before) = start();
    for (header, payload) in [(MAX_HEADER, 0), (0, MAX_PAYLOAD), (MAX_HEADER, MAX_PAYLOAD)] {
        for sent in [0, 1000, 100_000] {
            let mut bytes = [header.to_le_bytes(), payload.to_le_bytes()].concat();
            bytes.resize(8 + sent, 0);
            let mut reader = Reader::default();
            assert!(reader.read(&mut bytes.as_slice(), Caps::FULL).is_err());
        }
    }
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most < 4 << 20, "{most} bytes");
}

/// What becomes of a message with this header.
fn claimed<M: DeserializeOwned>(header: &[&[u8]]) -> &'static str {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, &header.concat(), &[]).expect("it fits");
    match Link::new(std::io::Cursor::new(bytes)).receive::<M>(Caps::FULL) {
        Ok(_) => "decoded",
        Err(LinkError::Malformed(_)) => "malformed",
        Err(_) => "broken",
    }
}

#[test]
fn a_claimed_number_of_calls_costs_what_is_sent() {
    let (_one, before) = start();
    let many = [[0xff; 9].as_slice(), &[0x01]].concat();
    // A batch of task "", with no types, in postcard, of 2^64 - 1 calls: ToWorker, serial, task, types,
    // encoding, first, attempt.
    let batch = [2, 0, 0, 0, 0, 0, 1].as_slice();
    assert_eq!(claimed::<ToWorker>(&[batch, &many]), "malformed");
    // As many outputs, then as many times, and then as many ends: Reply, serial, at.
    let (outputs, times) = ([0, 0, 0].as_slice(), [0, 0, 0, 1, 7, 1].as_slice());
    let ends = [times, &[1, 7, 1]].concat();
    assert_eq!(claimed::<Reply>(&[outputs, &many]), "malformed");
    assert_eq!(claimed::<Reply>(&[times, &many]), "malformed");
    assert_eq!(claimed::<Reply>(&[&ends, &many]), "malformed");
    // With none instead they decode: they are what they are meant to be.
    assert_eq!(claimed::<ToWorker>(&[batch, &[0]]), "decoded");
    assert_eq!(claimed::<Reply>(&[outputs, &[0, 0, 0]]), "decoded");
    assert_eq!(claimed::<Reply>(&[times, &[0, 0]]), "decoded");
    assert_eq!(claimed::<Reply>(&[&ends, &[0]]), "decoded");
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most < 4 << 20, "{most} bytes");
}

#[test]
fn more_ends_than_calls_are_not_kept() {
    let (_one, before) = start();
    // Reply, serial, at, no outputs, no times, and a million ends of nothing much.
    let reply = [0, 0, 0, 0, 0, 0xc0, 0x84, 0x3d].as_slice();
    assert_eq!(claimed::<Reply>(&[reply, &vec![0; 4_000_000]]), "malformed");
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most < 24 << 20, "{most} bytes");
}

#[test]
fn one_long_message_does_not_keep_its_memory() {
    let (_one, before) = start();
    let mut bytes = Vec::new();
    frame::write(&mut bytes, b"", &[&vec![1; 20 << 20]]).unwrap();
    frame::write(&mut bytes, b"", &[b"short"]).unwrap();
    let mut reader = Reader::default();
    let mut stream = bytes.as_slice();
    assert_eq!(
        reader.read(&mut stream, Caps::FULL).unwrap().1.len(),
        20 << 20
    );
    assert_eq!(reader.read(&mut stream, Caps::FULL).unwrap().1, b"short");
    drop(bytes);
    let kept = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    assert!(kept < 5 << 20, "{kept} bytes");
}
