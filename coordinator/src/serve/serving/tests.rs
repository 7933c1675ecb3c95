//! What becomes of leases that can't be begun, come back, or end before their calls have begun.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc::{Receiver, channel};

use protocol::agent::{About, Heard, Initializer, Report, Sent};
use protocol::message::{Encoding, Runs};
use tempfile::TempDir;

use super::*;
use crate::agents::bulk::{Content, Fetched};
use crate::agents::carriage::MOST_CALLS;
use crate::os::boot_time;

const SOON: Duration = Duration::from_secs(20);

/// A run that is served, whose workers never come to be.
struct Served {
    serving: Serving,
    events: Receiver<Event>,
    place: TempDir,
}

fn open() -> Open {
    Open {
        run: "r".to_owned(),
        lease: 3_600_000_000_000,
        grace: 0,
        program: bulk(0, 0),
        initializer: None::<Initializer>,
        directory: Vec::new(),
        is_apart: true,
        variables: Vec::new(),
        recycle_after: None,
        recycle_above: None,
        prints: true,
        about: "a test".to_owned(),
        is_hungry: true,
    }
}

fn bulk(byte: u8, len: u64) -> Bulk {
    Bulk {
        hash: [byte; 32],
        len,
    }
}

fn lease(number: u64, first: u64, calls: u32) -> Lease {
    let mut lens = Runs::default();
    (0..calls).for_each(|_| lens.push(0));
    Lease {
        epoch: 1,
        number,
        task: "task".to_owned(),
        types: None,
        encoding: Encoding::Postcard,
        first,
        attempt: 1,
        timeout: None,
        grace: 0,
        memory: None,
        inputs: Carried::Here,
        shared: Vec::new(),
        files: Vec::new(),
        lens,
    }
}

impl Served {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let (to, events) = channel();
        let pool = Pool::builder().worker("/bin/true").workers(1);
        let hour = Duration::from_secs(3600);
        let mut member = Member::new(About::default(), 1, hour, Duration::ZERO, boot_time());
        let deeds = member.tick(boot_time(), Vec::new());
        let [Deed::Send(Up::Join(join))] = &deeds[..] else {
            panic!("{deeds:?}");
        };
        let heard = Heard {
            home: 0,
            epoch: 1,
            clock: Some(join.clock),
            serial: 0,
            low: 0,
            patience: 3_600_000_000_000,
            is_paused: false,
            turns: 0,
        };
        member.hear(Down::Heard(heard), boot_time());
        let files = RunFiles::for_test(place.path()).unwrap();
        let pool = Arc::new(pool.build_now().unwrap());
        let serving = Serving::new(open(), pool, member, Some(files), to);
        Served {
            serving,
            events,
            place,
        }
    }

    fn lease(&mut self, lease: Lease) -> Answer {
        let down = Down::Lease(lease);
        self.serving.hear(down, &[], boot_time())
    }

    fn recall(&mut self, lease: u64) -> Vec<Letter> {
        let recall = Recall {
            epoch: 1,
            lease,
            from: 0,
            kill: false,
        };
        let answer = self.serving.hear(Down::Recall(recall), &[], boot_time());
        answer.letters
    }

    /// A lease of one call, with a file that has come, but can only be read when somebody writes into it.
    fn lay_out_slowly(&mut self, number: u64) -> std::path::PathBuf {
        let file = bulk(1, 3);
        let with_file = Lease {
            files: vec![Files {
                index: 5,
                send: vec![Sent {
                    name: b"name".to_vec(),
                    mode: 0o600,
                    bulk: file,
                }],
                fetch: Vec::new(),
            }],
            ..lease(number, 5, 1)
        };
        // Another lease that needs it keeps it from being laid out before it is slow.
        let awaited = bulk(2, 1);
        let answer = self.lease(Lease {
            inputs: Carried::Apart(awaited),
            ..with_file
        });
        let into = answer.fetch.into_iter().find(|(bulk, _)| *bulk == file);
        let into = made(into.unwrap().1);
        let come = self.serving.arrived(file, Ok(Fetched::Named(into)));
        assert!(come.cannot.is_none());
        let path = self.serving.files.as_ref().unwrap().kept(&file).unwrap();
        fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let made = rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0);
        made.unwrap();
        let come = self
            .serving
            .arrived(awaited, Ok(Fetched::Memory(Vec::new())));
        assert!(come.cannot.is_none());
        assert!(matches!(
            self.serving.leases.get(&number),
            Some(Under::LayingOut { .. })
        ));
        path
    }

    /// Lets what is laid out slowly come to its end.
    fn laid_out(&mut self, slow: &std::path::Path) -> Answer {
        let until = Instant::now() + SOON;
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        while options.open(slow).is_err() {
            assert!(Instant::now() < until, "nobody reads it");
            std::thread::sleep(Duration::from_millis(1));
        }
        loop {
            match self.events.recv_timeout(SOON).unwrap() {
                Event::LaidOut { epoch, lease, done } => {
                    return self.serving.laid_out(epoch, lease, done, boot_time());
                }
                Event::Over { .. } | Event::News(_) => {}
                _ => panic!("something else happened"),
            }
        }
    }
}

/// The file that something is to be put in.
fn made(place: Target) -> tempfile::NamedTempFile {
    match place {
        Target::Named(make) => make().unwrap(),
        Target::Memory | Target::Anywhere => panic!("a file of a call is put into memory"),
    }
}

fn returned(letters: &[Letter]) -> Vec<(u64, u64)> {
    let reports = letters.iter().filter_map(|letter| match &letter.up {
        Up::Report(Report {
            what: What::Returned(calls),
            ..
        }) => Some(calls.clone()),
        _ => None,
    });
    reports.flatten().collect()
}

/// Its calls would be waited for for ever.
#[test]
fn a_lease_that_can_not_be_begun_is_told_of() {
    let mut served = Served::new();
    let calls = u32::try_from(MOST_CALLS + 1).unwrap();
    let answer = served.lease(lease(1, 0, calls));
    assert!(answer.cannot.is_some_and(|why| why.contains("calls")));
}

/// Else the same calls could come back, and their files be replaced while they run.
#[test]
fn a_lease_whose_files_are_laid_out_comes_back_when_that_has_ended() {
    let mut served = Served::new();
    let slow = served.lay_out_slowly(1);
    assert_eq!(returned(&served.recall(1)), []);
    assert!(served.serving.has_calls());
    let answer = served.laid_out(&slow);
    assert_eq!(returned(&answer.letters), [(5, 6)]);
    assert!(!served.serving.has_calls());
    // What went along is needed no more.
    assert!(!slow.exists());
    let calls = served.serving.files.as_ref().unwrap().calls();
    assert_eq!(fs::read_dir(calls).unwrap().count(), 0);
}

#[test]
fn a_life_ends_when_nothing_is_laid_out_any_more() {
    let mut served = Served::new();
    let slow = served.lay_out_slowly(1);
    let unknown = Down::Unknown { epoch: 1 };
    let answer = served.serving.hear(unknown, &[], boot_time());
    assert!(answer.letters.is_empty() && served.serving.has_calls());
    let answer = served.laid_out(&slow);
    assert!(matches!(&answer.letters[..], [Letter { up: Up::Join(join), .. }] if join.epoch == 2));
    assert!(!slow.exists());
}

#[test]
fn a_lease_that_waits_for_its_files_comes_back_without_them() {
    let mut served = Served::new();
    let file = bulk(1, 3);
    let with_file = Lease {
        files: vec![Files {
            index: 5,
            send: vec![Sent {
                name: b"name".to_vec(),
                mode: 0o600,
                bulk: file,
            }],
            fetch: Vec::new(),
        }],
        ..lease(1, 5, 1)
    };
    let answer = served.lease(with_file);
    let into = made(answer.fetch.into_iter().next().unwrap().1);
    assert_eq!(returned(&served.recall(1)), [(5, 6)]);
    // What was under way is kept by nobody.
    let path = into.path().to_owned();
    let come = served.serving.arrived(file, Ok(Fetched::Named(into)));
    assert!(come.cannot.is_none() && !path.exists());
    assert!(served.serving.files.as_ref().unwrap().kept(&file).is_none());
    assert!(served.place.path().exists());
}

/// Values that no lease names go, the oldest first, also while there are leases: there always are, where there is work.
#[test]
fn values_that_nobody_names_are_forgotten() {
    let mut served = Served::new();
    let value = |id: u8| SharedValue {
        id: u64::from(id),
        bulk: bulk(id, KEPT / 2 - 1),
    };
    for id in 1..=4_u8 {
        let answer = served.lease(Lease {
            shared: vec![value(id)],
            // What never comes keeps it waiting.
            inputs: Carried::Apart(bulk(100 + id, 1)),
            ..lease(u64::from(id), 0, 1)
        });
        assert!(answer.cannot.is_none());
        let come = Fetched::Memory(Vec::new());
        served.serving.arrived(value(id).bulk, Ok(come));
        if id > 1 {
            // Only the first is still named.
            served.recall(u64::from(id));
        }
    }
    served.lease(lease(9, 0, 1));
    let known: Vec<u64> = served
        .serving
        .values
        .iter()
        .map(|(value, _)| value.id)
        .collect();
    assert_eq!(known, [1, 4]);
}

/// What can't be read any more, as an unlinked file on a disk that fails.
struct Lost;

impl Content for Lost {
    fn len(&self) -> u64 {
        3
    }

    fn read(&self, _: u64, _: usize) -> std::io::Result<Vec<u8>> {
        Err(std::io::Error::other("the disk fails"))
    }
}

/// A call has an outcome or it has files: its coordinator takes a report with both for rubbish.
#[test]
fn a_call_whose_output_is_lost_brings_no_files() {
    let mut served = Served::new();
    let waits = Lease {
        inputs: Carried::Apart(bulk(9, 1)),
        ..lease(1, 5, 1)
    };
    served.lease(waits);
    let letters = served.serving.news(News {
        epoch: 1,
        lease: 1,
        calls: 1,
        what: What::Ended {
            index: 5,
            ending: Ending::Value,
            nanos: 1,
            slot: 1,
            worker: 1,
            stdout: 0,
            stderr: 0,
            note: None,
        },
        payload: Box::new(Lost),
        made: vec![(bulk(8, 1), Arc::new(tempfile::tempfile().unwrap()))],
    });
    let [
        Letter {
            up: Up::Report(report),
            ..
        },
    ] = &letters[..]
    else {
        panic!("{} letters", letters.len());
    };
    let is_lost = matches!(
        &report.what,
        What::Ended {
            ending: Ending::Undecodable(_),
            ..
        }
    );
    assert!(is_lost && report.files.is_empty(), "{report:?}");
    let want = Want {
        bulk: bulk(8, 1),
        piece: 0,
    };
    assert!(served.serving.store.piece(&want).is_err());
}
