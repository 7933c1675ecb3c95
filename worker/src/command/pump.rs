//! Appends the output of commands to the worker's own stdout and stderr.
//!
//! The worker's stdout and stderr are files, which also hold the output of other calls. A command that
//! wrote to them directly could empty them, as `> /dev/stdout` does. So a command writes to pipes. A thread appends what
//! comes out of the pipes to the files while the command runs, and the worker appends the rest when the command has ended.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::pipes::{set_nonblocking, unread};
use crate::os::spawn::Blocked;

/// The size of a read, in bytes: the capacity of a pipe.
const CHUNK: usize = 64 << 10;
/// The size of the thread's stack, in bytes. The thread needs little.
const STACK: usize = 64 << 10;

static PUMP: Mutex<Option<&'static Pump>> = Mutex::new(None);

/// The two pipes that all commands use one after another, and the files that they lead to.
pub(crate) struct Pump {
    stdout: Channel,
    stderr: Channel,
}

struct Channel {
    writes: PipeWriter,
    reads: PipeReader,
    to: Mutex<Outlet>,
}

struct Outlet {
    file: File,
    buffer: Box<[u8]>,
    /// Why some output could not be written to its file.
    error: Option<io::Error>,
}

impl Pump {
    /// The pump of this process, which runs for as long as the process does.
    pub(crate) fn get() -> io::Result<&'static Pump> {
        let mut pump = PUMP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pump) = *pump {
            return Ok(pump);
        }
        let new: &'static Pump = Box::leak(Box::new(Pump {
            stdout: Channel::to(io::stdout().as_fd())?,
            stderr: Channel::to(io::stderr().as_fd())?,
        }));
        // The pump's thread blocks all signals, so that the thread that runs calls receives them.
        let _signals = Blocked::all();
        let thread = thread::Builder::new().name("pump".to_owned());
        thread.stack_size(STACK).spawn(|| new.run())?;
        *pump = Some(new);
        Ok(new)
    }

    /// The descriptors for the next command's stdout and stderr.
    pub(crate) fn writes(&self) -> io::Result<(BorrowedFd<'_>, BorrowedFd<'_>)> {
        for channel in [&self.stdout, &self.stderr] {
            // The command before may have changed the flags of the open file, which the next command shares.
            rustix::fs::fcntl_setfl(&channel.writes, OFlags::WRONLY)?;
        }
        Ok((self.stdout.writes.as_fd(), self.stderr.writes.as_fd()))
    }

    /// Moves all output so far to the files. Returns an error if any output since the last call could not be written.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let now = Timespec::default();
        self.empty(Some(&now));
        let ends = self.channels().map(|channel| {
            // If the thread has read the last of it, the lock waits until that is written.
            let error = channel.outlet().error.take();
            error.map_or(Ok(()), Err)
        });
        ends.into_iter().collect()
    }

    fn run(&self) {
        loop {
            self.empty(None);
        }
    }

    fn channels(&self) -> [&Channel; 2] {
        [&self.stdout, &self.stderr]
    }

    /// Moves what the pipes hold, and waits until there is something, or for this time.
    fn empty(&self, limit: Option<&Timespec>) {
        let channels = self.channels();
        let mut polled = channels.map(|channel| PollFd::new(&channel.reads, PollFlags::IN));
        let asked = rustix::event::poll(&mut polled, limit);
        for (channel, polled) in channels.iter().zip(polled) {
            // Nothing is lost if the system does not tell: the pipes are read then, which does not wait.
            if asked.is_err() || !polled.revents().is_empty() {
                channel.empty(&mut channel.outlet());
            }
        }
    }
}

impl Channel {
    fn to(stream: BorrowedFd<'_>) -> io::Result<Self> {
        let (reads, writes) = io::pipe()?;
        set_nonblocking(&reads)?;
        Ok(Channel {
            writes,
            reads,
            to: Mutex::new(Outlet {
                file: stream.try_clone_to_owned()?.into(),
                buffer: vec![0; CHUNK].into(),
                error: None,
            }),
        })
    }

    fn outlet(&self) -> MutexGuard<'_, Outlet> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the pipe's present content to its file. It does not wait for output that a descendant of some command adds
    /// meanwhile, perhaps for ever.
    fn empty(&self, to: &mut Outlet) {
        // If the system does not tell, take a pipe's capacity, so that this ends in any case.
        let mut left = unread(&self.reads).unwrap_or(CHUNK);
        while left > 0 {
            let read = match (&self.reads).read(&mut to.buffer) {
                Ok(read @ 1..) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The pipe is empty. It never reports its end, because this process holds the writing end, too.
                _ => return,
            };
            left = left.saturating_sub(read);
            // Output that can't be written is read all the same, so that the command does not wait for ever.
            if let Err(error) = to.file.write_all(&to.buffer[..read]) {
                to.error.get_or_insert(error);
            }
        }
    }
}
