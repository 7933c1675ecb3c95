//! Frames as such: however they arrive, in pieces or at once, they are the same frames.
#![no_main]

use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use protocol::frame::{self, Caps, Reader};

type Frames = Vec<(Vec<u8>, Vec<u8>)>;

fn frames(data: &[u8]) -> (Frames, String) {
    let mut stream = Pieces::new(data);
    let mut reader = Reader::default();
    let mut frames = Vec::new();
    loop {
        match reader.read(&mut stream, Caps::GREETING) {
            Ok((header, payload)) => frames.push((header.to_vec(), payload.to_vec())),
            Err(error) => return (frames, format!("{error:?}")),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((_, bytes)) = data.split_first() else {
        return;
    };
    let in_pieces = frames(data);
    let at_once = frames(&[&[0], bytes].concat());
    assert_eq!(in_pieces, at_once);
    // Written again, they are what was read.
    let mut again = Vec::new();
    for (header, payload) in &at_once.0 {
        frame::write(&mut again, header, &[payload]).unwrap();
    }
    assert!(bytes.starts_with(&again));
});
