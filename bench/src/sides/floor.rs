//! The least that processes cost: bare programs, which know nothing of pools.

use std::io::{Read, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_bytes::ByteBuf;

use super::ours::{join, megabyte};
use super::{MIB, Setting, Values, WORKERS, check, median_of, time};
use crate::Problem;

/// The bare program: it leaves at once, or (`echo SIZE`) it sends back what it is sent, over the
/// socket that is its stdin, in pieces of that size.
pub(crate) fn bare(mut arguments: impl Iterator<Item = String>) -> Result<(), Problem> {
    if arguments.next().as_deref() != Some("echo") {
        return Ok(());
    }
    let size = arguments.next().ok_or("no size")?.parse()?;
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut buffer = vec![0; size];
    // At the end of the stream it has done its work; the exit code interests nobody.
    while socket.read_exact(&mut buffer).is_ok() {
        socket.write_all(&buffer)?;
    }
    Ok(())
}

/// A bare program at the other end of a socket.
struct Echo {
    socket: UnixStream,
    child: Child,
}

impl Echo {
    fn start(size: usize) -> Result<Self, Problem> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["bare", "echo", &size.to_string()])
            .stdin(OwnedFd::from(theirs))
            .spawn()?;
        Ok(Echo { socket, child })
    }

    /// There and back.
    fn exchange(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        self.socket.write_all(buffer)?;
        Ok(self.socket.read_exact(buffer)?)
    }

    /// One after another, each gone when it was sent, and come back into memory of its own.
    fn exchange_all(&mut self, payloads: Vec<ByteBuf>) -> Result<Vec<ByteBuf>, Problem> {
        let exchanged = payloads.into_iter().map(|payload| {
            let len = payload.len();
            self.socket.write_all(&payload)?;
            drop(payload);
            let mut back = Vec::with_capacity(len);
            (&self.socket).take(len as u64).read_to_end(&mut back)?;
            Ok(ByteBuf::from(back))
        });
        exchanged.collect()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It sees the end of the stream and leaves. There is nothing to be done if it does not.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// 16 bytes there and back.
pub(crate) fn ping_pong(setting: &Setting) -> Result<Values, Problem> {
    let mut buffer = [7; 16];
    let mut echo = Echo::start(buffer.len())?;
    time(median_of(setting.pick(20_000, 1000), || {
        echo.exchange(&mut buffer)
    })?)
}

/// 1 MiB there and back, with as many processes at once as a pool has workers.
pub(crate) fn payloads(setting: &Setting) -> Result<Values, Problem> {
    payload_with(WORKERS, setting)
}

/// 1 MiB there and back, with one process.
pub(crate) fn payload(setting: &Setting) -> Result<Values, Problem> {
    payload_with(1, setting)
}

fn payload_with(processes: usize, setting: &Setting) -> Result<Values, Problem> {
    let each = setting.pick(500, 20) / processes;
    let mut ready = Vec::new();
    for _ in 0..processes {
        let (mut echo, mut buffer) = (Echo::start(MIB)?, megabyte());
        echo.exchange(&mut buffer)?;
        ready.push((echo, buffer));
    }
    let started = Instant::now();
    thread::scope(|scope| {
        let threads = ready.iter_mut().map(|(echo, buffer)| {
            scope.spawn(move || -> Result<(), Problem> {
                for _ in 0..each {
                    echo.exchange(buffer)?;
                }
                check(*buffer == megabyte())
            })
        });
        join(threads.collect())
    })?;
    time(started.elapsed().as_secs_f64() / (processes * each) as f64)
}

/// As many different megabytes there as a map has, and all that comes back kept, by as many processes at once.
pub(crate) fn payloads_kept(setting: &Setting) -> Result<Values, Problem> {
    let (maps, calls) = setting.pick((10, 50), (2, 10));
    let each = calls / WORKERS;
    let mut ready = Vec::new();
    for _ in 0..WORKERS {
        let (mut echo, payloads) = (Echo::start(MIB)?, vec![megabyte(); each]);
        ready.push((echo.exchange_all(payloads)?, echo));
    }
    let started = Instant::now();
    thread::scope(|scope| {
        let threads = ready.iter_mut().map(|(payloads, echo)| {
            scope.spawn(move || -> Result<(), Problem> {
                for _ in 0..maps {
                    *payloads = echo.exchange_all(mem::take(payloads))?;
                }
                Ok(())
            })
        });
        join(threads.collect())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let mut payloads = ready.iter().flat_map(|(payloads, _)| payloads);
    check(payloads.all(|payload| *payload == megabyte()))?;
    time(seconds / (maps * WORKERS * each) as f64)
}

/// Four processes at once, from start to end.
pub(crate) fn start(setting: &Setting) -> Result<Values, Problem> {
    let program = std::env::current_exe()?;
    time(median_of(setting.pick(50, 10), || {
        let children = (0..4).map(|_| {
            Command::new(&program)
                .arg("bare")
                .stdin(Stdio::null())
                .spawn()
        });
        for child in children.collect::<Vec<_>>() {
            check(child?.wait()?.success())?;
        }
        Ok(())
    })?)
}
