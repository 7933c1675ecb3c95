//! What a coordinator reads from agents, and an agent from its coordinator, where anybody may have written it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::agent::{self, All, Down, Open, Presence, Up};

fuzz_target!(|data: &[u8]| {
    if let Ok((message, payload)) = agent::decode::<Up>(data) {
        // What was read is what would be sent, but for how its numbers were written.
        let again = agent::encode(&message, payload);
        assert!(
            again.is_err()
                || agent::decode::<Up>(&again.unwrap_or_default()) == Ok((message, payload))
        );
    }
    let _ = agent::decode::<Down>(data);
    let _ = agent::decode::<Open>(data);
    let _ = agent::decode::<All>(data);
    let _ = agent::decode::<Presence>(data);
});
