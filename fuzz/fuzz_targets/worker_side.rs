//! What a worker reads: the answer to its greeting, batches, and the end.
#![no_main]

use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use protocol::Link;
use protocol::handshake;
use protocol::lane::Side;
use protocol::message::{Hello, ToWorker};

fuzz_target!(|data: &[u8]| {
    let hello = Hello {
        token: String::new(),
        pid: 1,
        tasks: Vec::new(),
        build: String::new(),
        shares: true,
    };
    let _ = handshake::introduce(&mut Link::new(Pieces::new(data)), &hello);
    fuzz::read_all::<ToWorker>(data, Side::Worker);
});
