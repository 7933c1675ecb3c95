//! The messages of agents: what is sent is read, and nothing that is read does harm.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use protocol::agent::{
    self, About, All, Beat, Bulk, Carried, Down, Ending, Files, Heard, Initializer, Join, Lease,
    Named, Open, Recall, Report, Sent, SharedValue, Unreadable, Up, Values, Want, What,
};
use protocol::message::{Encoding, Panic, Runs, TaskInfo};

fn runs() -> impl Strategy<Value = Runs> {
    prop::collection::vec(any::<u32>(), 0..20).prop_map(|numbers| {
        let mut runs = Runs::default();
        numbers.into_iter().for_each(|number| runs.push(number));
        runs
    })
}

fn bulk() -> impl Strategy<Value = Bulk> {
    any::<([u8; 32], u64)>().prop_map(|(hash, len)| Bulk { hash, len })
}

fn carried() -> impl Strategy<Value = Carried> {
    prop_oneof![Just(Carried::Here), bulk().prop_map(Carried::Apart)]
}

fn want() -> impl Strategy<Value = Want> {
    (bulk(), any::<u64>()).prop_map(|(bulk, piece)| Want { bulk, piece })
}

fn shared() -> impl Strategy<Value = Vec<SharedValue>> {
    let value = (any::<u64>(), bulk()).prop_map(|(id, bulk)| SharedValue { id, bulk });
    prop::collection::vec(value, 0..3)
}

fn files() -> impl Strategy<Value = Vec<Files>> {
    let sent = (any::<(Vec<u8>, u32)>(), bulk()).prop_map(|((name, mode), bulk)| Sent {
        name,
        mode,
        bulk,
    });
    let files = (
        any::<(u64, Vec<Vec<u8>>)>(),
        prop::collection::vec(sent, 0..3),
    );
    let files = files.prop_map(|((index, fetch), send)| Files { index, send, fetch });
    prop::collection::vec(files, 0..3)
}

fn ending() -> impl Strategy<Value = Ending> {
    let panic = (".*", ".*", ".*").prop_map(|(message, location, backtrace)| Panic {
        message,
        location,
        backtrace,
    });
    prop_oneof![
        Just(Ending::Value),
        ".*".prop_map(Ending::Failed),
        panic.prop_map(Ending::Panicked),
        ".*".prop_map(Ending::Undecodable),
        any::<i32>().prop_map(Ending::Exited),
        any::<i32>().prop_map(Ending::Killed),
        Just(Ending::Vanished),
        any::<u64>().prop_map(Ending::TimedOut),
        any::<u64>().prop_map(Ending::OutOfMemory),
        Just(Ending::Cancelled),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let values = (any::<(u64, u32, u32)>(), runs(), runs()).prop_map(
        |((first, slot, worker), lens, nanos)| Values {
            first,
            lens,
            nanos,
            slot,
            worker,
        },
    );
    let ended = (
        any::<(u64, u64, u32, u32, u64, u64)>(),
        ending(),
        any::<Option<String>>(),
    );
    let ended = ended.prop_map(
        |((index, nanos, slot, worker, stdout, stderr), ending, note)| What::Ended {
            index,
            ending,
            nanos,
            slot,
            worker,
            stdout,
            stderr,
            note,
        },
    );
    prop_oneof![
        prop::collection::vec(values, 0..3).prop_map(What::Values),
        ended,
        prop::collection::vec(any::<(u64, u64)>(), 0..5).prop_map(What::Returned),
    ]
}

fn about() -> impl Strategy<Value = About> {
    let task = (".*", ".*", ".*").prop_map(|(name, signature, doc)| TaskInfo {
        name,
        signature,
        doc,
    });
    (any::<(u32, u64)>(), prop::collection::vec(task, 0..3))
        .prop_map(|((slots, home), tasks)| About { slots, home, tasks })
}

fn up() -> impl Strategy<Value = Up> {
    let named =
        any::<(u64, u64, u32, u32, u64)>().prop_map(|(lease, index, slot, worker, nanos)| Named {
            lease,
            index,
            slot,
            worker,
            nanos,
        });
    let beat = (
        any::<(u64, u64, bool, u64, u64)>(),
        any::<Vec<u64>>(),
        prop::collection::vec(named, 0..5),
    );
    prop_oneof![
        (any::<(u64, u64)>(), about()).prop_map(|((epoch, clock), about)| Up::Join(Join {
            epoch,
            clock,
            about
        })),
        beat.prop_map(
            |((epoch, clock, takes_none, patience, turns), leases, running)| Up::Beat(Beat {
                epoch,
                clock,
                leases,
                running,
                takes_none,
                patience,
                turns,
            })
        ),
        (
            any::<(u64, u64, u64)>(),
            what(),
            carried(),
            prop::collection::vec(bulk(), 0..3)
        )
            .prop_map(|((epoch, serial, lease), what, payload, files)| Up::Report(
                Report {
                    epoch,
                    serial,
                    lease,
                    what,
                    payload,
                    files,
                }
            )),
        any::<u64>().prop_map(|epoch| Up::Leave { epoch }),
        ".*".prop_map(|why| Up::Cannot { why }),
        want().prop_map(Up::Want),
        want().prop_map(Up::Piece),
        (any::<u64>(), bulk(), ".*").prop_map(|(epoch, bulk, why)| Up::Gone { epoch, bulk, why }),
    ]
}

fn down() -> impl Strategy<Value = Down> {
    let lease = (
        any::<(u64, u64, u64, u32, u64)>(),
        ".*",
        any::<(Option<String>, Option<u64>, Option<u64>)>(),
        runs(),
        (carried(), shared(), files()),
    );
    prop_oneof![
        any::<(u64, Option<u64>, u64, u64, u64, bool, u64, u64)>().prop_map(
            |(epoch, clock, serial, low, patience, is_paused, turns, home)| Down::Heard(Heard {
                home,
                epoch,
                clock,
                serial,
                low,
                patience,
                is_paused,
                turns,
            })
        ),
        lease.prop_map(
            |(
                (epoch, number, first, attempt, grace),
                task,
                (types, timeout, memory),
                lens,
                (inputs, shared, files),
            )| {
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
                    grace,
                    memory,
                    inputs,
                    shared,
                    files,
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
        (".*", any::<u64>()).prop_map(|(why, home)| Down::Refused { home, why }),
        want().prop_map(Down::Want),
        want().prop_map(Down::Piece),
        (bulk(), ".*").prop_map(|(bulk, why)| Down::Gone { bulk, why }),
    ]
}

fn open() -> impl Strategy<Value = Open> {
    let initializer = (".*", any::<Option<String>>(), carried(), shared()).prop_map(
        |(task, types, input, shared)| Initializer {
            task,
            types,
            encoding: Encoding::Text,
            input,
            shared,
        },
    );
    (
        any::<(String, u64, u64, Vec<u8>, String)>(),
        bulk(),
        prop::option::of(initializer),
        any::<(
            Vec<(Vec<u8>, Vec<u8>)>,
            Option<u64>,
            Option<u64>,
            bool,
            bool,
            bool,
        )>(),
    )
        .prop_map(
            |(
                (run, lease, grace, directory, about),
                program,
                initializer,
                (variables, recycle_after, recycle_above, prints, is_hungry, is_apart),
            )| Open {
                run,
                lease,
                grace,
                program,
                initializer,
                directory,
                is_apart,
                variables,
                recycle_after,
                recycle_above,
                prints,
                about,
                is_hungry,
            },
        )
}

proptest! {
    #[test]
    fn what_is_sent_is_read(up in up(), down in down(), open in open(), payload in any::<Vec<u8>>()) {
        let bytes = agent::encode(&up, &payload).unwrap();
        prop_assert_eq!(agent::decode::<Up>(&bytes).unwrap(), (up, &payload[..]));
        let bytes = agent::encode(&down, &payload).unwrap();
        prop_assert_eq!(agent::decode::<Down>(&bytes).unwrap(), (down, &payload[..]));
        let bytes = agent::encode(&open, &payload).unwrap();
        prop_assert_eq!(agent::decode::<Open>(&bytes).unwrap(), (open, &payload[..]));
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
        let _ = agent::decode::<Open>(&bytes);
        let _ = agent::decode::<All>(&bytes);
        let mut rubbish = rubbish;
        let _ = agent::decode::<Up>(&rubbish);
        rubbish.splice(..0, [agent::VERSION as u8, 0, rubbish.len() as u8, 0, 0, 0]);
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
            about: About::default(),
        }),
        b"",
    )
    .unwrap();
    bytes[0] = 9;
    assert_eq!(agent::decode::<Up>(&bytes), Err(Unreadable::Version(9)));
    let why = agent::encode(&Down::Unknown { epoch: 1 }, &vec![0; agent::MOST]).unwrap_err();
    assert!(why.to_string().contains("524288 at most"), "{why}");
    assert!(agent::encode(&Down::Unknown { epoch: 1 }, &vec![0; agent::MOST - 100]).is_ok());
    // What is said to fit does, with what is entered later.
    let unknown = Down::Unknown { epoch: 1 };
    assert!(agent::fits(&unknown, agent::MOST as u64 - 100));
    for most in [agent::MOST as u64 - 30, agent::MOST as u64, u64::MAX] {
        assert!(!agent::fits(&unknown, most), "{most}");
    }
}
