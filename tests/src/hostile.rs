//! A worker that was taken over by what it parses: an input that begins with [`SCRIPT`] says what it does to the link
//! and to the memory it shares with its coordinator. All other inputs it echoes, as an honest worker does, for as long
//! as it is let.
//!
//! Any bytes are a script, so that a fuzzer can write them.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use protocol::black_box::{BlackBox, CALLS, SIZE};
use protocol::board::View;
use protocol::descriptors::Taking;
use protocol::frame::Caps;
use protocol::handshake::{self, TOKEN_VARIABLE};
use protocol::lane::Side;
use protocol::link::{self, Link, Socket};
use protocol::message::{
    Batch, CallEnd, CallReply, CallsReply, Hello, Panic, Reply, Runs, Stopped, TaskInfo, ToWorker,
    Verdict,
};

type Anything<T> = Result<T, Box<dyn Error>>;

/// What a script begins with.
pub const SCRIPT: &[u8] = b"script:";

/// One misdeed.
#[expect(missing_docs, reason = "the names say what the numbers are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Writes a word of the shared memory.
    Write {
        word: u64,
        value: u64,
    },
    /// Fills the words that say how far it is with small random numbers.
    Scramble {
        seed: u64,
    },
    /// Says that so many calls from there on have ended, those at these places in some other way.
    Calls {
        serial: i8,
        at: u32,
        count: u32,
        len: u32,
        ends: Vec<u32>,
        printed: u64,
    },
    /// Writes into the shared memory that the call at this place has ended in this way.
    Record {
        at: u32,
        verdict: u8,
        printed: u64,
    },
    /// Answers for one call, with claims of how much it has printed.
    Call {
        serial: i8,
        at: u32,
        verdict: u8,
        printed: u64,
    },
    /// Says that it runs no more than so many.
    Stopped {
        serial: i8,
        at: u32,
    },
    /// Sends a frame that refers to the lane or the board.
    Elsewhere {
        word: u32,
        before: u32,
        own: u32,
        len: u32,
    },
    /// Sends these bytes.
    Bytes(Vec<u8>),
    /// Takes a ticket, and runs nothing.
    Take,
    /// Makes the files behind its stdout and stderr so long.
    Stretch(u64),
    /// Does nothing for so many milliseconds.
    Dawdle(u8),
    Exit(u8),
    Stop,
    CloseLink,
    Spin,
}

/// Reads a script, whatever the bytes are.
#[must_use]
pub fn acts(mut bytes: &[u8]) -> Vec<Act> {
    let mut acts = Vec::new();
    while !bytes.is_empty() && acts.len() < 64 {
        acts.push(act(&mut bytes));
    }
    acts
}

fn act(bytes: &mut &[u8]) -> Act {
    match byte(bytes) % 20 {
        0..3 => Act::Write {
            word: u64::from(byte(bytes) % 8),
            value: number(bytes) << 32 | number(bytes),
        },
        3 => Act::Write {
            word: (number(bytes) << 3 | 7) % (SIZE as u64 / 8),
            value: number(bytes) << 32 | number(bytes),
        },
        4 | 5 => Act::Scramble {
            seed: number(bytes),
        },
        6..8 => Act::Calls {
            serial: serial(bytes),
            at: number(bytes) as u32,
            count: number(bytes) as u32,
            len: number(bytes) as u32,
            ends: (0..byte(bytes) % 4).map(|_| number(bytes) as u32).collect(),
            printed: number(bytes),
        },
        8 => Act::Record {
            at: number(bytes) as u32,
            verdict: byte(bytes),
            printed: number(bytes),
        },
        9 | 10 => Act::Call {
            serial: serial(bytes),
            at: number(bytes) as u32,
            verdict: byte(bytes),
            printed: number(bytes),
        },
        11 => Act::Stopped {
            serial: serial(bytes),
            at: number(bytes) as u32,
        },
        12 => Act::Elsewhere {
            word: number(bytes) as u32,
            before: number(bytes) as u32,
            own: number(bytes) as u32,
            len: number(bytes) as u32,
        },
        13 => {
            let len = usize::from(byte(bytes) % 64).min(bytes.len());
            let (these, rest) = bytes.split_at(len);
            *bytes = rest;
            Act::Bytes(these.to_vec())
        }
        14 => Act::Take,
        15 => Act::Stretch(number(bytes) << (byte(bytes) % 20)),
        16 | 17 => Act::Dawdle(byte(bytes) % 8),
        18 => match byte(bytes) % 4 {
            0 => Act::Stop,
            1 => Act::CloseLink,
            2 => Act::Spin,
            _ => Act::Exit(byte(bytes)),
        },
        _ => Act::Scramble {
            seed: number(bytes),
        },
    }
}

fn byte(bytes: &mut &[u8]) -> u8 {
    match bytes.split_first() {
        Some((first, rest)) => {
            *bytes = rest;
            *first
        }
        None => 0,
    }
}

/// Mostly a small one: those are near the truth.
fn number(bytes: &mut &[u8]) -> u64 {
    match byte(bytes) {
        small @ 0..200 => u64::from(small % 16),
        200..220 => u64::from(byte(bytes)) << 8,
        220..240 => u64::from(u32::MAX) - u64::from(byte(bytes)),
        _ => (0..4).fold(0, |number, _| number << 8 | u64::from(byte(bytes))),
    }
}

/// Mostly the right one.
fn serial(bytes: &mut &[u8]) -> i8 {
    match byte(bytes) {
        0..220 => 0,
        other => other as i8,
    }
}

/// Becomes a worker of the coordinator that waits there. Does not return but with an error.
///
/// # Errors
///
/// It is not let in, or its coordinator has gone.
pub fn serve(place: &str) -> Anything<()> {
    let mut seat = Seat::join(place)?;
    loop {
        match seat.link.receive(Caps::FULL)? {
            (ToWorker::Batch(batch), inputs) => {
                let inputs = inputs.to_vec();
                seat.run(&batch, &inputs)?;
            }
            (ToWorker::Exit(code), _) => std::process::exit(code),
            _ => {}
        }
    }
}

struct Seat {
    link: Link<Taking>,
    black_box: Arc<BlackBox>,
    /// The memory behind it.
    memory: File,
}

impl Seat {
    fn join(place: &str) -> Anything<Self> {
        let stream = Taking::new(link::connect(place.as_ref())?);
        let taken = stream.taken();
        let mut link = Link::new(stream);
        let hello = Hello {
            token: std::env::var(TOKEN_VARIABLE)?,
            pid: std::process::id(),
            tasks: vec![TaskInfo {
                name: "echo".to_owned(),
                signature: "fn echo(Vec<u8>) -> Vec<u8>".to_owned(),
                doc: String::new(),
            }],
            build: worker::private::image::build(),
            shares: true,
        };
        let welcome = handshake::introduce(&mut link, &hello)?;
        let mut files = taken.take().into_iter().map(File::from);
        let memory = files.next().ok_or("no black box has come")?;
        let black_box = Arc::new(BlackBox::map(&memory)?);
        link.share(&black_box, Side::Worker);
        if welcome.board {
            link.share_board(View::map(&files.next().ok_or("no board has come")?)?);
        }
        handshake::ready(&mut link)?;
        Ok(Seat {
            link,
            black_box,
            memory,
        })
    }

    /// Runs a batch as an honest worker does, but for the scripts in it.
    fn run(&mut self, batch: &Batch, mut inputs: &[u8]) -> Anything<()> {
        for (at, len) in (0..).zip(batch.lens.iter()) {
            let (input, rest) = inputs.split_at(len as usize);
            inputs = rest;
            if !self.black_box.start(now()) {
                let reply = Reply::Stopped(Stopped {
                    serial: batch.serial,
                    at,
                });
                return Ok(self.link.send(&reply, &[])?);
            }
            // Behind the length of a vector of less than 128 bytes, which takes one, or two.
            let script = input.windows(SCRIPT.len()).position(|it| it == SCRIPT);
            if let Some(begin) = script.filter(|begin| *begin <= 2) {
                for act in acts(&input[begin + SCRIPT.len()..]) {
                    self.act(batch, act)?;
                }
            }
            self.calls(batch.serial, at, 1, input, Vec::new())?;
        }
        Ok(())
    }

    fn calls(
        &mut self,
        serial: u32,
        at: u32,
        count: u32,
        outputs: &[u8],
        ends: Vec<(u32, CallEnd)>,
    ) -> Anything<()> {
        // More than any batch has; more would only take this worker's own time.
        let count = count.min(100_000);
        let len = u32::try_from(outputs.len())?;
        let calls = CallsReply {
            serial,
            at,
            nanos: (0..count).map(|_| 1).collect(),
            lens: (0..count).map(|_| len).collect::<Runs>(),
            ends,
        };
        Ok(self.link.send(&Reply::Calls(calls), &[outputs])?)
    }

    /// Records an end as a worker does that has sent all that was before.
    fn record(&self, at: u32, end: &CallEnd) -> Anything<()> {
        const ENTRIES: u64 = 8;
        let mut bytes = Vec::new();
        protocol::encode(end, &mut bytes)?;
        self.write(2, 1 << 32 | u64::from(at));
        self.write(ENTRIES, 1 << 31 | bytes.len() as u64);
        self.write(ENTRIES + 1, 0);
        for (word, bytes) in (ENTRIES + CALLS as u64..).zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            self.write(word, u64::from_ne_bytes(whole));
        }
        self.write(1, u64::from(at) + 1);
        Ok(())
    }

    fn write(&self, word: u64, value: u64) {
        // A box without a lane is shorter; then nothing is written.
        let _ = self.memory.write_at(&value.to_ne_bytes(), word * 8);
    }

    fn act(&mut self, batch: &Batch, act: Act) -> Anything<()> {
        let of = |serial: i8| batch.serial.wrapping_add_signed(serial.into());
        match act {
            Act::Write { word, value } => self.write(word, value),
            Act::Scramble { mut seed } => {
                for word in 0..12 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    self.write(word, (((seed >> 33) % 5) << 32) | ((seed >> 50) % 5));
                }
            }
            Act::Calls {
                serial,
                at,
                count,
                len,
                ends,
                printed,
            } => {
                let ends = ends
                    .into_iter()
                    .map(|place| (place, end(place as u8, printed)));
                let outputs = vec![7; len as usize % 100_000];
                self.calls(of(serial), at, count, &outputs, ends.collect())?;
            }
            Act::Record {
                at,
                verdict,
                printed,
            } => self.record(at, &end(verdict, printed))?,
            Act::Call {
                serial,
                at,
                verdict,
                printed,
            } => {
                let reply = Reply::Call(CallReply {
                    serial: of(serial),
                    at,
                    nanos: printed << 20,
                    end: end(verdict, printed),
                });
                self.link.send(&reply, &[b"\x01x"])?;
            }
            Act::Stopped { serial, at } => {
                let reply = Reply::Stopped(Stopped {
                    serial: of(serial),
                    at,
                });
                self.link.send(&reply, &[])?;
            }
            Act::Elsewhere {
                word,
                before,
                own,
                len,
            } => self.elsewhere(batch.serial, [word, before, own], len)?,
            Act::Bytes(bytes) => self.link.stream().socket().write_all(&bytes)?,
            Act::Take => _ = self.black_box.start(now()),
            Act::Stretch(len) => {
                for file in ["/proc/self/fd/1", "/proc/self/fd/2"] {
                    let file = File::options().write(true).open(file);
                    let _ = file.and_then(|file| file.set_len(len));
                }
            }
            Act::Dawdle(milliseconds) => {
                std::thread::sleep(Duration::from_millis(milliseconds.into()));
            }
            Act::Exit(code) => std::process::exit(code.into()),
            Act::Stop => {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::STOP,
                );
            }
            Act::CloseLink => {
                let Socket::UdSocket(socket) = self.link.stream().socket();
                rustix::net::shutdown(socket, rustix::net::Shutdown::Both)?;
            }
            Act::Spin => loop {
                std::hint::spin_loop();
            },
        }
        Ok(())
    }

    /// A reply whose payload is said to stand in the shared memory.
    fn elsewhere(&mut self, serial: u32, place: [u32; 3], len: u32) -> Anything<()> {
        let reply = Reply::Call(CallReply {
            serial,
            at: 0,
            nanos: 1,
            end: end(0, 0),
        });
        let mut link = Link::new(std::io::Cursor::new(Vec::new()));
        link.send(&reply, &[])?;
        let mut frame = link.stream().get_ref().clone();
        let claimed = (12 + len % 64) | protocol::frame::SHARED;
        frame[4..8].copy_from_slice(&claimed.to_le_bytes());
        place
            .iter()
            .for_each(|number| frame.extend(number.to_le_bytes()));
        frame.extend(vec![7; (len % 64) as usize]);
        self.link.stream().socket().write_all(&frame)?;
        Ok(())
    }
}

/// The end of a call that claims to have printed so much.
fn end(verdict: u8, printed: u64) -> CallEnd {
    let text = || "\u{1b}[31mred".to_owned();
    CallEnd {
        stdout: printed,
        stderr: printed << (verdict % 32),
        verdict: match verdict % 4 {
            0 => Verdict::Value,
            1 => Verdict::Failed(text()),
            2 => Verdict::Undecodable(text()),
            _ => Verdict::Panicked(Panic {
                message: text(),
                location: text(),
                backtrace: text(),
            }),
        },
    }
}

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
