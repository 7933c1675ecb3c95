//! What a coordinator reads of a worker it has let in: replies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::message::Reply;

fuzz_target!(|data: &[u8]| fuzz::read_all::<Reply>(data));
