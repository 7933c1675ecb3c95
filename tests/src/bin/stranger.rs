//! A worker that speaks the protocol wrongly. How, and at which of its starts, is the name of its
//! own file: `twice-1` answers its first call twice when it is started for the first time, and is an
//! honest worker from then on. `all-0` is rude at each start, each time in another way.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use protocol::black_box::BlackBox;
use protocol::board::View;
use protocol::descriptors::{Taken, Taking};
use protocol::frame::Caps;
use protocol::handshake::{self, HandshakeError, TOKEN_VARIABLE};
use protocol::lane::Side;
use protocol::link::{self, Link, LinkError};
use protocol::message::{
    Batch, CallEnd, CallReply, CallsReply, Hello, Reply, Runs, TaskInfo, ToWorker, Verdict, Welcome,
};

// Its tasks are what the honest worker runs.
use tests as _;

type Anything<T> = Result<T, Box<dyn Error>>;

/// The ways of `all`: those that end by themselves.
const ALL: [&str; 14] = [
    "other", "twice", "half", "hangs-up", "huge", "noise", "rubbish", "trailing", "request",
    "early", "idle", "value", "longer", "boasts",
];
/// The exit code of a worker that is not let in, as an honest one has it.
const NOT_JOINED: i32 = 2;

fn main() -> Anything<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [role, place] = arguments.as_slice() else {
        return Err("it is started by a coordinator".into());
    };
    if role == "deputy" {
        return deputy(place);
    }
    let this = env::current_exe()?;
    let name = this.file_name().and_then(|name| name.to_str());
    let (way, when) = name
        .and_then(|name| name.rsplit_once('-'))
        .ok_or("its file's name says how it is to behave")?;
    let start = count_starts(&this)?;
    if way == "all" {
        return join(place).and_then(|seat| converse(seat, ALL[start % ALL.len()], &this));
    }
    if when.parse() == Ok(start) {
        rude(way, place, &this)?;
    }
    worker::init();
    Err("a coordinator would have said --connect".into())
}

/// Which start this is, from 1: each leaves a file.
fn count_starts(this: &Path) -> io::Result<usize> {
    let mut start = 1;
    loop {
        match File::create_new(this.with_extension(start.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => start += 1,
            created => return created.map(|_| start),
        }
    }
}

/// Behaves in that way. Returns if an honest worker is to follow.
fn rude(way: &str, place: &str, this: &Path) -> Anything<()> {
    let greeting = |version: u16, rest: &[u8]| {
        let header = [b"COOR".as_slice(), &version.to_le_bytes(), rest].concat();
        [&length(header.len())[..], &length(0), &header].concat()
    };
    match way {
        "deputy" => {
            let status = Command::new(this).args(["deputy", place]).status()?;
            assert!(status.success(), "another process took this one's place");
            Ok(())
        }
        "silent" => refused(place, &[]),
        "greets-with-noise" => refused(place, &noise()),
        "greets-hugely" => refused(place, &[0xff; 8]),
        "greets-by-half" => refused_after_end(place, &greeting(handshake::VERSION, &[])[..9]),
        "greets-shortly" => refused(place, &[&length(3)[..], &length(0), b"COO"].concat()),
        "greets-wrongly" => refused(place, &greeting(handshake::VERSION, &[0xff; 20])),
        "version" => refused(place, &greeting(99, &[0xff; 20])),
        "token" => match introduce(place, "0123456789abcdef0123456789abcdef") {
            Err(HandshakeError::Refused(_)) => std::process::exit(NOT_JOINED),
            other => Err(format!("{other:?}").into()),
        },
        way => join(place).and_then(|seat| converse(seat, way, this)),
    }
}

/// Another process with the right token.
fn deputy(place: &str) -> Anything<()> {
    match introduce(place, &env::var(TOKEN_VARIABLE)?) {
        Err(_) => Ok(()),
        Ok(_) => Err("it was let in".into()),
    }
}

/// Says something, and leaves when the coordinator hangs up.
fn refused(place: &str, says: &[u8]) -> Anything<()> {
    let stream = link::connect(place.as_ref())?;
    (&stream).write_all(says)?;
    // If it is reset instead, that is an end, too.
    let _ = (&stream).read_to_end(&mut Vec::new());
    std::process::exit(NOT_JOINED)
}

/// Says something and leaves.
fn refused_after_end(place: &str, says: &[u8]) -> Anything<()> {
    (&link::connect(place.as_ref())?).write_all(says)?;
    std::process::exit(NOT_JOINED)
}

fn introduce(place: &str, token: &str) -> Result<(Link<Taking>, Taken, Welcome), HandshakeError> {
    let stream = link::connect(place.as_ref()).map_err(LinkError::Broken)?;
    let stream = Taking::new(stream);
    let taken = stream.taken();
    let mut link = Link::new(stream);
    let task = |name: &str| TaskInfo {
        name: name.to_owned(),
        signature: format!("fn {name}()"),
        doc: String::new(),
    };
    let hello = Hello {
        token: token.to_owned(),
        pid: std::process::id(),
        tasks: ["echo", "square_but_die"].map(task).into(),
        build: worker::private::image::build(),
        shares: true,
    };
    handshake::introduce(&mut link, &hello).map(|welcome| (link, taken, welcome))
}

/// What it takes to be a worker.
struct Seat {
    link: Link<Taking>,
    black_box: Arc<BlackBox>,
}

fn join(place: &str) -> Anything<Seat> {
    let (mut link, taken, welcome) = introduce(place, &env::var(TOKEN_VARIABLE)?)?;
    let mut files = taken.take().into_iter().map(File::from);
    let file = files.next().ok_or("no black box has come")?;
    let black_box = Arc::new(BlackBox::map(&file)?);
    link.share(&black_box, Side::Worker);
    if welcome.board {
        let board = files.next().ok_or("no board has come")?;
        link.share_board(View::map(&board)?);
    }
    handshake::ready(&mut link)?;
    Ok(Seat { link, black_box })
}

/// Is rude once, and echoes inputs from then on. Does not return.
fn converse(seat: Seat, way: &str, this: &Path) -> Anything<()> {
    let Seat {
        mut link,
        black_box,
    } = seat;
    if way == "early" {
        link.send(&reply(1, 0), &[b"early"])?;
    }
    if way == "deaf" {
        stay();
    }
    let (batch, inputs) = hear(&mut link, &black_box);
    let serial = batch.serial;
    // It is rude about the first call only.
    let first = batch.lens.iter().next().unwrap_or(0) as usize;
    let (input, rest) = inputs.split_at(first);
    let input = input.to_vec();
    let right = frame(&reply(serial, 0), &input);
    let say = |bytes: &[u8]| link.stream().socket().write_all(bytes);
    match way {
        "other" => say(&frame(&reply(serial, 1), &input))?,
        // Of no call at all.
        "empty" => say(&frame(
            &Reply::Calls(CallsReply {
                serial,
                ..CallsReply::default()
            }),
            &[],
        ))?,
        "twice" => say(&[right.as_slice(), &right].concat())?,
        "half" => {
            say(&right[..right.len() / 2])?;
            std::process::exit(0);
        }
        "stalls" => {
            say(&right[..right.len() / 2])?;
            stay();
        }
        "hangs-up" => {
            drop(link);
            stay();
        }
        "huge" => say(&[0xff; 8])?,
        "noise" => say(&noise())?,
        "rubbish" => say(&[&length(20)[..], &length(0), &[9; 20]].concat())?,
        "trailing" => {
            // The header claims one byte of the payload for itself, too.
            let mut longer = frame(&reply(serial, 0), &[0]);
            longer[0] += 1;
            longer[4] -= 1;
            say(&longer)?;
        }
        "request" => link.send(&ToWorker::Exit(0), &[])?,
        "idle" => {
            say(&right)?;
            say(&[0xff; 8])?;
            File::create(this.with_extension("idle"))?;
        }
        "value" => say(&frame(&reply(serial, 0), &[200]))?,
        "longer" => say(&frame(
            &reply(serial, 0),
            &[input.as_slice(), &[0]].concat(),
        ))?,
        "boasts" => {
            let boast = Reply::Call(CallReply {
                serial,
                at: 0,
                nanos: u64::MAX,
                end: CallEnd {
                    stdout: u64::MAX,
                    stderr: u64::MAX,
                    verdict: Verdict::Value,
                },
            });
            say(&frame(&boast, &input))?;
        }
        "early" => say(&right)?,
        other => return Err(format!("no such way: {other}").into()),
    }
    answer(&mut link, &black_box, &batch, 1, rest)?;
    loop {
        let (batch, inputs) = hear(&mut link, &black_box);
        answer(&mut link, &black_box, &batch, 0, &inputs)?;
    }
}

/// Echoes the calls of a batch from one on. The first has begun already.
fn answer(
    link: &mut Link<Taking>,
    black_box: &BlackBox,
    batch: &Batch,
    at: usize,
    inputs: &[u8],
) -> Anything<()> {
    (1..batch.lens.count()).for_each(|_| _ = black_box.start(0));
    let lens: Runs = batch.lens.iter().skip(at).collect();
    if lens.count() == 0 {
        return Ok(());
    }
    let calls = CallsReply {
        serial: batch.serial,
        at: u32::try_from(at)?,
        nanos: lens.iter().map(|_| 1).collect(),
        lens,
        ends: Vec::new(),
    };
    Ok(link.send(&Reply::Calls(calls), &[inputs])?)
}

/// The next batch, begun. Leaves when there is none.
fn hear(link: &mut Link<Taking>, black_box: &BlackBox) -> (Batch, Vec<u8>) {
    match link.receive(Caps::FULL) {
        Ok((ToWorker::Batch(batch), input)) => {
            black_box.start(0);
            (batch, input.to_vec())
        }
        Ok((ToWorker::Exit(code), _)) => std::process::exit(code),
        _ => std::process::exit(0),
    }
}

/// Lives on until it is killed.
fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

fn reply(serial: u32, at: u32) -> Reply {
    Reply::Call(CallReply {
        serial,
        at,
        nanos: 1,
        end: CallEnd {
            stdout: 0,
            stderr: 0,
            verdict: Verdict::Value,
        },
    })
}

fn frame(reply: &Reply, payload: &[u8]) -> Vec<u8> {
    let mut link = Link::new(Cursor::new(Vec::new()));
    // A vector takes what it is given.
    let _ = link.send(reply, &[payload]);
    link.stream().get_ref().clone()
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// Bytes that mean nothing, the same each time.
fn noise() -> Vec<u8> {
    let next = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99),
        )
    };
    let states = std::iter::successors(Some(7), next);
    states.take(4096).map(|state| (state >> 56) as u8).collect()
}
