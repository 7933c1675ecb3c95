//! What a coordinator reads of someone it does not know. Nobody gets in without the token.
//!
//! If the second byte of the input is odd, the rest changes a right greeting instead of being one:
//! no fuzzer guesses 128 random bits.
#![no_main]

use std::io::Cursor;

use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use protocol::Link;
use protocol::handshake::{self, Token};
use protocol::message::{Hello, TaskInfo};

fn token() -> Token {
    Token::from_random([0x5a; 16])
}

/// A worker's first frame.
fn greeting() -> Vec<u8> {
    let task = TaskInfo {
        name: "square".to_owned(),
        signature: "fn square(x: i64) -> i64".to_owned(),
        doc: String::new(),
    };
    let hello = Hello {
        token: token().reveal().to_owned(),
        pid: 7,
        tasks: vec![task],
        build: String::new(),
        shares: true,
    };
    let mut link = Link::new(Cursor::new(Vec::new()));
    // Nobody answers; only what it has sent matters.
    let _ = handshake::introduce(&mut link, &hello);
    link.stream().get_ref().clone()
}

fuzz_target!(|data: &[u8]| {
    let [at_once, how, rest @ ..] = data else {
        return;
    };
    let mut said = vec![*at_once];
    if how % 2 == 0 {
        said.extend(rest);
    } else {
        said.extend(greeting());
        for change in rest.chunks_exact(2) {
            let at = 1 + usize::from(change[0]) % (said.len() - 1);
            said[at] ^= change[1];
        }
    }
    if let Ok(hello) = handshake::receive(&mut Link::new(Pieces::new(&said)), &token()) {
        assert_eq!(hello.token, token().reveal());
        let secret = token().reveal().as_bytes().to_vec();
        assert!(said.windows(secret.len()).any(|part| part == secret));
    }
});
