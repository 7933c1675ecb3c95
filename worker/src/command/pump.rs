//! Brings what commands write to where the worker writes.
//!
//! The worker's stdout and stderr are files, and what is in them is the output of other calls, too. A command that
//! had them for its own could empty them: `> /dev/stdout` does. So it has pipes, and what comes out of them is
//! appended to the files: by a thread while the command runs, and to the last byte when it has ended.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;

use super::pipes::{set_nonblocking, unread};
use crate::os::spawn::Blocked;

/// As much as a pipe holds.
const CHUNK: usize = 64 << 10;
/// What the thread needs is little.
const STACK: usize = 64 << 10;

static PUMP: Mutex<Option<&'static Pump>> = Mutex::new(None);

/// Two pipes for all commands, one after another, and where they lead.
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
    /// Why something could not be kept.
    error: Option<io::Error>,
}

impl Pump {
    /// The one of this process, which runs as long as the process does.
    pub(crate) fn get() -> io::Result<&'static Pump> {
        let mut pump = PUMP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pump) = *pump {
            return Ok(pump);
        }
        let new: &'static Pump = Box::leak(Box::new(Pump {
            stdout: Channel::to(io::stdout().as_fd())?,
            stderr: Channel::to(io::stderr().as_fd())?,
        }));
        // The thread that runs the calls is to hear the signals.
        let _signals = Blocked::all();
        let thread = thread::Builder::new().name("pump".to_owned());
        thread.stack_size(STACK).spawn(|| new.run())?;
        *pump = Some(new);
        Ok(new)
    }

    /// Where the next command's stdout and stderr lead.
    pub(crate) fn writes(&self) -> io::Result<(BorrowedFd<'_>, BorrowedFd<'_>)> {
        for channel in [&self.stdout, &self.stderr] {
            // The command before may have changed what it had in common with the next.
            rustix::fs::fcntl_setfl(&channel.writes, OFlags::WRONLY)?;
        }
        Ok((self.stdout.writes.as_fd(), self.stderr.writes.as_fd()))
    }

    /// Brings what has been written so far to the files. An error if anything could not be kept since the last time.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let ends = [&self.stdout, &self.stderr].map(|channel| {
            let mut to = channel.outlet();
            channel.empty(&mut to);
            to.error.take().map_or(Ok(()), Err)
        });
        ends.into_iter().collect()
    }

    fn run(&self) {
        loop {
            let channels = [&self.stdout, &self.stderr];
            let mut polled = channels.map(|channel| PollFd::new(&channel.reads, PollFlags::IN));
            // If it fails nothing is ready, and it is tried again.
            let _ = rustix::event::poll(&mut polled, None);
            for (channel, polled) in channels.iter().zip(polled) {
                if !polled.revents().is_empty() {
                    channel.empty(&mut channel.outlet());
                }
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

    /// Brings what there is now to the file. What a descendant of some command adds meanwhile, perhaps for ever, is
    /// not waited for.
    fn empty(&self, to: &mut Outlet) {
        // If the system does not tell, as much as there can be: the end is not waited for, either.
        let mut left = unread(&self.reads).unwrap_or(CHUNK);
        while left > 0 {
            let read = match (&self.reads).read(&mut to.buffer) {
                Ok(read @ 1..) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // There is nothing more; it never ends, because this process can write there, too.
                _ => return,
            };
            left = left.saturating_sub(read);
            // What can't be kept is taken all the same: the command is not to wait for ever.
            if let Err(error) = to.file.write_all(&to.buffer[..read]) {
                to.error.get_or_insert(error);
            }
        }
    }
}
