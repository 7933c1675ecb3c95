//! What the parts of a call cost, each by itself: `cargo bench -p coordinator`. How the whole compares
//! with bare programs and with other pools is measured by `bench/`.

use std::io::{self, Cursor};

use coordinator::Pool;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use protocol::frame::{self, Caps, Reader};
use protocol::message::{Batch, Encoding, ToWorker};
use worker::task;

/// Squares a number.
#[task]
fn square(x: i64) -> i64 {
    x * x
}

fn main() {
    // The pools below have this program for a worker.
    worker::init();
    divan::main();
}

/// The sizes of payloads: a number, a page, and more than a socket takes at once.
const SIZES: [usize; 3] = [8, 4096, 1 << 20];
/// A header as long as that of a small message.
const HEADER: [u8; 16] = [7; 16];

#[divan::bench(args = SIZES)]
fn frame_write(bencher: Bencher<'_, '_>, size: usize) {
    let payload = vec![7; size];
    bencher.counter(BytesCount::new(size)).bench(|| {
        let mut written = Vec::with_capacity(size + 64);
        frame::write(&mut written, &HEADER, &[&payload]).map(|()| written)
    });
}

#[divan::bench(args = SIZES)]
fn frame_read(bencher: Bencher<'_, '_>, size: usize) {
    let mut frame = Vec::new();
    frame::write(&mut frame, &HEADER, &[&vec![7; size]]).expect("a vector takes it");
    let mut reader = Reader::default();
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let read = reader.read(&mut Cursor::new(&frame), Caps::FULL);
        read.map(|(header, payload)| header.len() + payload.len())
            .expect("it is whole")
    });
}

/// A batch of so many calls with inputs of 7 or 8 bytes.
fn batch(calls: u64) -> ToWorker {
    ToWorker::Batch(Batch {
        task: "square".to_owned(),
        types: Some("(i64) -> i64".to_owned()),
        encoding: Encoding::Postcard,
        serial: 1,
        first: 0,
        attempt: 1,
        lens: (0..calls)
            .map(|index| 7 + (index / 16 % 2) as u32)
            .collect(),
    })
}

const BATCHES: [u64; 2] = [1, 512];

#[divan::bench(args = BATCHES)]
fn batch_encode(bencher: Bencher<'_, '_>, calls: u64) {
    let message = batch(calls);
    bencher
        .counter(ItemsCount::new(calls))
        .bench(|| postcard::to_stdvec(&message));
}

#[divan::bench(args = BATCHES)]
fn batch_decode(bencher: Bencher<'_, '_>, calls: u64) {
    let encoded = postcard::to_stdvec(&batch(calls)).expect("it is a message");
    bencher
        .counter(ItemsCount::new(calls))
        .bench(|| postcard::from_bytes::<ToWorker>(&encoded));
}

/// A message's way into a stream, from the message on.
#[divan::bench(args = BATCHES)]
fn link_send(bencher: Bencher<'_, '_>, calls: u64) {
    let message = batch(calls);
    let inputs = vec![[7_u8; 8]; usize::try_from(calls).unwrap_or_default()];
    let inputs: Vec<&[u8]> = inputs.iter().map(<[u8; 8]>::as_slice).collect();
    let mut link = protocol::Link::new(io::empty());
    bencher
        .counter(ItemsCount::new(calls))
        .bench_local(|| link.send(&message, &inputs));
}

fn pool(workers: usize) -> Pool {
    let pool = Pool::new(workers).expect("a pool starts");
    // The first calls find everything cold.
    pool.map(square, 0..1000).expect("squares");
    pool
}

#[divan::bench(sample_size = 100)]
fn pool_call(bencher: Bencher<'_, '_>) {
    let pool = pool(2);
    bencher.bench_local(|| pool.call(square, 7));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn pool_map(bencher: Bencher<'_, '_>) {
    const CALLS: u32 = 100_000;
    let pool = pool(2);
    bencher
        .counter(ItemsCount::new(CALLS))
        .bench_local(|| pool.map(square, 0..i64::from(CALLS)));
}

#[divan::bench(args = [1, 4], sample_count = 20, sample_size = 1)]
fn pool_start_and_stop(workers: usize) {
    let pool = Pool::new(workers).expect("a pool starts");
    pool.close();
    pool.join().expect("it ends");
}
