//! What a coordinator reads of a worker it lets in: that it is ready, and replies.
#![no_main]

use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use protocol::Link;
use protocol::handshake;
use protocol::lane::Side;
use protocol::message::{Reply, Welcome};

fuzz_target!(|data: &[u8]| {
    let welcome = Welcome {
        slot: 1,
        board: true,
    };
    let mut link = Link::new(Pieces::new(data));
    let _ = handshake::admit(&mut link, welcome).and_then(|()| handshake::await_ready(&mut link));
    fuzz::read_all::<Reply>(data, Side::Coordinator);
});
