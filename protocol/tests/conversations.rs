//! A whole conversation, greeting to exit, over streams that fail: at every byte, in both directions,
//! and for both sides. Whatever happens, a side never hears, and never says, anything but a beginning
//! of what was meant.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{self, Cursor, ErrorKind, Read, Write};

use proptest::prelude::*;
use protocol::frame::{Caps, Reader};
use protocol::handshake::{self, HandshakeError, Token};
use protocol::message::{
    Batch, CallEnd, CallReply, CallsReply, Encoding, Hello, Panic, Reply, Stopped, TaskInfo,
    ToWorker, Verdict, Welcome,
};
use protocol::{Link, LinkError};

/// One direction of a stream: what happens at which byte, and how much goes through at once.
#[derive(Debug, Clone)]
struct Way {
    /// The byte before which it fails, and how; `None` for an end.
    fails: Option<(usize, Option<ErrorKind>)>,
    /// How much goes through at once, in turn; 0 for an interruption.
    sizes: Vec<usize>,
    turn: usize,
    done: usize,
}

impl Way {
    fn whole() -> Self {
        Way {
            fails: None,
            sizes: vec![usize::MAX],
            turn: 0,
            done: 0,
        }
    }

    fn failing(at: usize, how: Option<ErrorKind>) -> Self {
        Way {
            fails: Some((at, how)),
            ..Way::whole()
        }
    }

    /// How much of `wanted` goes through now.
    fn pass(&mut self, wanted: usize) -> io::Result<usize> {
        self.turn += 1;
        let mut len = wanted.min(self.sizes[self.turn % self.sizes.len()]);
        if len == 0 && wanted > 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        if let Some((at, how)) = self.fails {
            len = len.min(at - self.done);
            match how {
                Some(how) if len == 0 && wanted > 0 => return Err(how.into()),
                _ => {}
            }
        }
        self.done += len;
        Ok(len)
    }
}

/// A stream whose other side has said all it will ever say.
#[derive(Debug)]
struct Stream {
    arrives: Cursor<Vec<u8>>,
    reading: Way,
    sent: Vec<u8>,
    writing: Way,
}

impl Stream {
    fn new(arrives: &[u8], reading: Way, writing: Way) -> Self {
        Stream {
            arrives: Cursor::new(arrives.to_vec()),
            reading,
            sent: Vec::new(),
            writing,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A reader may offer more room than there is left to come.
        let left = self.arrives.get_ref().len() - self.reading.done;
        let wanted = match buffer.len().min(left) {
            0 => return Ok(0),
            wanted => wanted,
        };
        let len = self.reading.pass(wanted)?;
        self.arrives.read(&mut buffer[..len])
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let len = self.writing.pass(buffer.len())?;
        self.sent.extend(&buffer[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn token() -> Token {
    Token::from_random([0x5a; 16])
}

fn hello() -> Hello {
    let task = TaskInfo {
        name: "square".to_owned(),
        signature: "fn square(x: i64) -> i64".to_owned(),
        doc: "Squares a number.".to_owned(),
    };
    Hello {
        token: token().reveal().to_owned(),
        pid: 7,
        tasks: vec![task],
        build: "1f".to_owned(),
        shares: true,
    }
}

fn welcome() -> Welcome {
    Welcome {
        slot: 3,
        board: true,
    }
}

/// The inputs of each batch.
const BATCHES: [&[&[u8]]; 4] = [
    &[b"one"],
    &[],
    &[b"", b"another", b"third"],
    &[b"1", b"22", b"333", b"4444", b"never run"],
];

fn batch(serial: u32, inputs: &[&[u8]]) -> ToWorker {
    let len = |input: &&[u8]| u32::try_from(input.len()).unwrap();
    ToWorker::Batch(Batch {
        serial,
        task: "square".to_owned(),
        types: Some("(i64) -> i64".to_owned()),
        encoding: Encoding::Postcard,
        first: 1 << 33,
        attempt: 1,
        lens: inputs.iter().map(len).collect(),
    })
}

/// The reply to what comes at this place of a batch, and how many calls it is about: of every kind.
fn reply(serial: u32, at: u32) -> (Reply, usize) {
    let call = |verdict| {
        Reply::Call(CallReply {
            serial,
            at,
            nanos: 1 << 40,
            end: CallEnd {
                stdout: 300,
                stderr: 0,
                verdict,
            },
        })
    };
    let panic = Panic {
        message: "out of cheese".to_owned(),
        location: "src/lib.rs:10:5".to_owned(),
        backtrace: String::new(),
    };
    match at {
        0 => (call(Verdict::Value), 1),
        1 => (call(Verdict::Failed("no".to_owned())), 1),
        // In the last batch two more calls go together, and one is not run.
        2 if serial == 3 => {
            let failed = CallEnd {
                stdout: 300,
                stderr: 9,
                verdict: Verdict::Failed("no".to_owned()),
            };
            let calls = CallsReply {
                serial,
                at,
                lens: [6, 8].into_iter().collect(),
                nanos: [7, u32::MAX].into_iter().collect(),
                ends: vec![(1, failed)],
            };
            (Reply::Calls(calls), 2)
        }
        2 => (call(Verdict::Panicked(panic)), 1),
        _ => (Reply::Stopped(Stopped { serial, at }), 1),
    }
}

/// What a side heard, one after another, to compare it.
type Heard = Vec<String>;

/// The coordinator's side of the conversation.
fn coordinate(link: &mut Link<Stream>, heard: &mut Heard) -> Result<(), HandshakeError> {
    let hello = handshake::receive(link, &token())?;
    heard.push(format!("{hello:?}"));
    handshake::admit(link, welcome())?;
    handshake::await_ready(link)?;
    heard.push("ready".to_owned());
    for (serial, inputs) in (0..).zip(BATCHES) {
        link.send(&batch(serial, inputs), inputs)?;
        let mut done = 0;
        while done < inputs.len() {
            let (reply, parcel) = link.receive_owned::<Reply>(Caps::FULL, Vec::new)?;
            heard.push(format!("{reply:?} {:?}", parcel.join()));
            done += match reply {
                // What was changed on its way may claim anything, and must not keep us here.
                Reply::Calls(calls) => (calls.lens.count() as usize).max(1),
                Reply::Call(_) => 1,
                Reply::Stopped(_) => inputs.len(),
            };
        }
    }
    Ok(link.send(&ToWorker::Exit(5), &[])?)
}

/// The worker's side. Each output is its input, twice.
fn work(link: &mut Link<Stream>, heard: &mut Heard) -> Result<(), HandshakeError> {
    let welcome = handshake::introduce(link, &hello())?;
    heard.push(format!("{welcome:?}"));
    handshake::ready(link)?;
    loop {
        let (message, payload, mut answer) = link.receive_to_answer::<ToWorker>(Caps::FULL)?;
        let payload = payload.join();
        heard.push(format!("{message:?} {payload:?}"));
        let ToWorker::Batch(batch) = message else {
            return Ok(());
        };
        let (mut rest, mut at) = (&*payload, 0);
        while at < batch.lens.count() as usize {
            let (reply, calls) = reply(batch.serial, at as u32);
            let lens = batch.lens.iter().skip(at).take(calls);
            at += calls;
            // What was changed on its way need not add up.
            let len = lens.map(|len| len as usize).sum();
            let cut = rest.split_at_checked(len);
            let (input, behind) = cut.ok_or(HandshakeError::NotAWorker)?;
            rest = behind;
            answer.send(&reply, &[input, input])?;
        }
    }
}

type Side = fn(&mut Link<Stream>, &mut Heard) -> Result<(), HandshakeError>;

/// What a side hears, what it says, and how it ends.
struct Course {
    heard: Heard,
    said: Vec<u8>,
    end: Result<(), HandshakeError>,
}

fn course(side: Side, arrives: &[u8], reading: Way, writing: Way) -> Course {
    let mut link = Link::new(Stream::new(arrives, reading, writing));
    let mut heard = Heard::new();
    let end = side(&mut link, &mut heard);
    Course {
        heard,
        said: link.stream().sent.clone(),
        end,
    }
}

/// Both sides, each with all that the other says.
fn sides() -> [(Side, Vec<u8>); 2] {
    let mut to_worker = Link::new(Stream::new(&[], Way::whole(), Way::whole()));
    to_worker.send(&ToWorker::Welcome(welcome()), &[]).unwrap();
    for (serial, inputs) in (0..).zip(BATCHES) {
        to_worker.send(&batch(serial, inputs), inputs).unwrap();
    }
    to_worker.send(&ToWorker::Exit(5), &[]).unwrap();
    let to_worker = to_worker.stream().sent.clone();
    let worker = course(work, &to_worker, Way::whole(), Way::whole());
    worker.end.unwrap();
    [(coordinate, worker.said), (work, to_worker)]
}

/// Everything that goes well: what is heard and said.
fn whole(side: Side, arrives: &[u8]) -> Course {
    let course = course(side, arrives, Way::whole(), Way::whole());
    assert!(course.end.is_ok(), "{:?}", course.end);
    course
}

const HOW: [Option<ErrorKind>; 4] = [
    None,
    Some(ErrorKind::WouldBlock),
    Some(ErrorKind::TimedOut),
    Some(ErrorKind::ConnectionReset),
];

fn broken_by(end: &Result<(), HandshakeError>) -> Option<ErrorKind> {
    match end {
        Err(HandshakeError::Link(LinkError::Broken(error))) => Some(error.kind()),
        _ => None,
    }
}

/// Where each frame begins.
fn between_frames(bytes: &[u8]) -> Vec<usize> {
    let (mut rest, mut reader, mut starts) = (Cursor::new(bytes), Reader::default(), vec![0]);
    while let Ok((header, payload)) = reader.read(&mut rest, Caps::FULL) {
        starts.push(starts[starts.len() - 1] + 8 + header.len() + payload.len());
    }
    starts
}

#[test]
fn both_sides_understand_each_other() {
    let [(coordinate, from_worker), (work, to_worker)] = sides();
    let coordinator = whole(coordinate, &from_worker);
    let worker = whole(work, &to_worker);
    assert_eq!(coordinator.said, to_worker);
    assert_eq!(worker.said, from_worker);
    // Two calls of the last batch came together; the one that was not run has a word of its own.
    let calls: usize = BATCHES.iter().map(|inputs| inputs.len()).sum();
    assert_eq!(coordinator.heard.len(), 2 + calls - 1);
    assert_eq!(worker.heard.len(), 1 + BATCHES.len() + 1);
}

#[test]
fn a_failure_at_any_byte_heard_ends_a_side_where_it_is() {
    for (side, arrives) in sides() {
        let whole = whole(side, &arrives);
        let between = between_frames(&arrives);
        for how in HOW {
            let mut least = 0;
            for at in 0..arrives.len() {
                let course = course(side, &arrives, Way::failing(at, how), Way::whole());
                let end = &course.end;
                if how.is_none() && between.contains(&at) {
                    let closed = matches!(end, Err(HandshakeError::Link(LinkError::Closed)));
                    assert!(closed, "at {at}: {end:?}");
                } else {
                    let expected = how.unwrap_or(ErrorKind::UnexpectedEof);
                    assert_eq!(broken_by(end), Some(expected), "at {at}: {end:?}");
                }
                assert!(whole.heard.starts_with(&course.heard), "at {at}");
                assert!(whole.said.starts_with(&course.said), "at {at}");
                // What has arrived whole is heard, however soon the failure follows.
                assert!(course.heard.len() >= least, "at {at}");
                least = course.heard.len();
            }
            assert_eq!(least, whole.heard.len() - 1);
        }
    }
}

#[test]
fn a_failure_at_any_byte_said_ends_a_side_where_it_is() {
    for (side, arrives) in sides() {
        let whole = whole(side, &arrives);
        for how in HOW {
            for at in 0..whole.said.len() {
                let course = course(side, &arrives, Way::whole(), Way::failing(at, how));
                let expected = how.unwrap_or(ErrorKind::WriteZero);
                assert_eq!(broken_by(&course.end), Some(expected), "at {at}");
                assert_eq!(course.said, whole.said[..at]);
                assert!(whole.heard.starts_with(&course.heard), "at {at}");
            }
        }
    }
}

#[test]
fn two_halves_with_any_cut_between_them_are_heard_alike() {
    for (side, arrives) in sides() {
        let whole = whole(side, &arrives);
        for cut in 1..arrives.len() {
            let mut reading = Way::whole();
            // The interruption stands for the wait between both.
            reading.sizes = vec![usize::MAX, cut, 0];
            let course = course(side, &arrives, reading, Way::whole());
            assert!(course.end.is_ok(), "cut at {cut}: {:?}", course.end);
            assert_eq!(course.heard, whole.heard, "cut at {cut}");
        }
    }
}

#[test]
fn a_change_of_any_byte_spoils_nothing_before_it() {
    for (side, arrives) in sides() {
        let whole = whole(side, &arrives);
        // How much a side has heard when nothing has arrived from this byte on.
        let heard_before = |at| {
            let course = course(side, &arrives, Way::failing(at, None), Way::whole());
            course.heard.len()
        };
        for at in 0..arrives.len() {
            let before = heard_before(at);
            for change in [1, 0x10, 0x80, 0xff] {
                let mut changed = arrives.clone();
                changed[at] ^= change;
                let course = course(side, &changed, Way::whole(), Way::whole());
                assert!(course.heard.len() >= before, "at {at}");
                assert_eq!(course.heard[..before], whole.heard[..before], "at {at}");
            }
        }
    }
}

/// Sizes of pieces, some of them interruptions; at least one is not.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..40_usize, 0..6).prop_map(|mut sizes| {
        sizes.push(7);
        sizes
    })
}

proptest! {
    #[test]
    fn in_whatever_pieces_it_is_the_same_conversation(reading in sizes(), writing in sizes()) {
        for (side, arrives) in sides() {
            let whole = whole(side, &arrives);
            let way = |sizes: &Vec<usize>| Way { sizes: sizes.clone(), ..Way::whole() };
            let course = course(side, &arrives, way(&reading), way(&writing));
            prop_assert!(course.end.is_ok(), "{:?}", course.end);
            prop_assert_eq!(course.heard, whole.heard);
            prop_assert_eq!(course.said, whole.said);
        }
    }

    #[test]
    fn pieces_put_in_left_out_or_moved_never_panic(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..20_usize, prop::collection::vec(any::<u8>(), 0..20)),
            1..5,
        ),
        sizes in sizes(),
    ) {
        for (side, mut arrives) in sides() {
            for (at, out, put_in) in &changes {
                let at = at.index(arrives.len() + 1);
                let end = (at + out).min(arrives.len());
                arrives.splice(at..end, put_in.iter().copied());
            }
            let reading = Way { sizes: sizes.clone(), ..Way::whole() };
            let _ = course(side, &arrives, reading, Way::whole());
        }
    }
}
