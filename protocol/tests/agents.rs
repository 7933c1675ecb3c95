//! The messages of agents: what is sent is read, and nothing that is read does harm.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use protocol::agent::{
    self, Beat, Down, Heard, Join, Lease, Named, Recall, Report, Unreadable, Up, What,
};
use protocol::message::{Encoding, Panic, Runs, Verdict};

fn runs() -> impl Strategy<Value = Runs> {
    prop::collection::vec(any::<u32>(), 0..20).prop_map(|numbers| {
        let mut runs = Runs::default();
        numbers.into_iter().for_each(|number| runs.push(number));
        runs
    })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let panic = (".*", ".*", ".*").prop_map(|(message, location, backtrace)| Panic {
        message,
        location,
        backtrace,
    });
    prop_oneof![
        Just(Verdict::Value),
        ".*".prop_map(Verdict::Failed),
        panic.prop_map(Verdict::Panicked),
        ".*".prop_map(Verdict::Undecodable),
    ]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        (any::<u64>(), runs(), runs()).prop_map(|(first, lens, nanos)| What::Values {
            first,
            lens,
            nanos
        }),
        (any::<u64>(), verdict(), any::<u64>()).prop_map(|(index, verdict, nanos)| What::Ended {
            index,
            verdict,
            nanos
        }),
        prop::collection::vec(any::<(u64, u64)>(), 0..5).prop_map(What::Returned),
    ]
}

fn up() -> impl Strategy<Value = Up> {
    let named = any::<(u64, u64)>().prop_map(|(lease, index)| Named { lease, index });
    let beat = (
        any::<u64>(),
        any::<u64>(),
        any::<Vec<u64>>(),
        prop::collection::vec(named, 0..5),
    );
    prop_oneof![
        any::<(u64, u64, u32)>().prop_map(|(epoch, clock, slots)| Up::Join(Join {
            epoch,
            clock,
            slots
        })),
        beat.prop_map(|(epoch, clock, leases, running)| Up::Beat(Beat {
            epoch,
            clock,
            leases,
            running
        })),
        (any::<(u64, u64, u64)>(), what()).prop_map(|((epoch, serial, lease), what)| Up::Report(
            Report {
                epoch,
                serial,
                lease,
                what
            }
        )),
    ]
}

fn down() -> impl Strategy<Value = Down> {
    let lease = (
        any::<(u64, u64, u64, u32)>(),
        ".*",
        any::<(Option<String>, Option<u64>, Option<u64>)>(),
        runs(),
    );
    prop_oneof![
        any::<(u64, Option<u64>, u64, u64)>().prop_map(|(epoch, clock, serial, low)| Down::Heard(
            Heard {
                epoch,
                clock,
                serial,
                low
            }
        )),
        lease.prop_map(
            |((epoch, number, first, attempt), task, (types, timeout, memory), lens)| {
                let encoding = Encoding::Postcard;
                Down::Lease(Lease {
                    epoch,
                    number,
                    task,
                    types,
                    encoding,
                    first,
                    attempt,
                    timeout,
                    memory,
                    lens,
                })
            }
        ),
        any::<(u64, u64, u64, bool)>().prop_map(|(epoch, lease, from, kill)| Down::Recall(
            Recall {
                epoch,
                lease,
                from,
                kill
            }
        )),
        any::<u64>().prop_map(|epoch| Down::Unknown { epoch }),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_is_read(up in up(), down in down(), payload in any::<Vec<u8>>()) {
        let bytes = agent::encode(&up, &payload).unwrap();
        prop_assert_eq!(agent::decode::<Up>(&bytes).unwrap(), (up, &payload[..]));
        let bytes = agent::encode(&down, &payload).unwrap();
        prop_assert_eq!(agent::decode::<Down>(&bytes).unwrap(), (down, &payload[..]));
    }

    /// Cut off at any byte, with any byte changed, or made up: it is refused or read, and no more.
    #[test]
    fn nonsense_does_no_harm(up in up(), at in any::<prop::sample::Index>(), byte in any::<u8>(), rubbish in any::<Vec<u8>>()) {
        let mut bytes = agent::encode(&up, b"payload").unwrap();
        for end in 0..bytes.len().min(300) {
            let _ = agent::decode::<Up>(&bytes[..end]);
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = agent::decode::<Up>(&bytes);
        let _ = agent::decode::<Down>(&bytes);
        let mut rubbish = rubbish;
        let _ = agent::decode::<Up>(&rubbish);
        rubbish.splice(..0, [1, 0, rubbish.len() as u8, 0, 0, 0]);
        let _ = agent::decode::<Up>(&rubbish);
        let _ = agent::decode::<Down>(&rubbish);
    }
}

#[test]
fn another_version_and_what_is_too_large_are_named() {
    let mut bytes = agent::encode(
        &Up::Join(Join {
            epoch: 1,
            clock: 3,
            slots: 2,
        }),
        b"",
    )
    .unwrap();
    bytes[0] = 9;
    assert_eq!(agent::decode::<Up>(&bytes), Err(Unreadable::Version(9)));
    let why = agent::encode(&Down::Unknown { epoch: 1 }, &vec![0; agent::MOST]).unwrap_err();
    assert!(why.to_string().contains("524288 at most"), "{why}");
    assert!(agent::encode(&Down::Unknown { epoch: 1 }, &vec![0; agent::MOST - 100]).is_ok());
}
