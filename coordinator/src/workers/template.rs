//! A template: a process that has run the initializer, and that workers are copied from.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::descriptors::{Giving, Taking};
use protocol::frame::Caps;
use protocol::handshake;
use protocol::link::{self, Link, LinkError};
use protocol::message::{TaskInfo, TemplateReply, ToWorker, Welcome};
use worker::private::Given;

use super::launch::{Admitted, Launcher, last_words};
use super::socket::{Impatient, Patience, SharedSocket};
use super::visitors::GREETING_LIMIT;
use crate::error::PoolError;
use crate::os::{self, GroupSignal, WorkerProcess};
use crate::payload::printed::{OutputFiles, Printed};

/// A process that is given no calls, and makes copies of itself. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Template {
    process: Arc<WorkerProcess>,
    /// The slot whose worker it was to be.
    pub(crate) slot: usize,
    files: Option<OutputFiles>,
    socket: SharedSocket,
    /// The same socket, where answers bring descriptors. One slot at a time asks for a copy.
    questions: Mutex<Taking>,
    tasks: Vec<TaskInfo>,
    /// The shared values that it has, and so each copy.
    given: Given,
    /// The user that it acts as, and so each copy.
    user: u32,
}

/// Why a process did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum AskError {
    /// It can't be copied, now or later, and why.
    Refused(String),
    /// It is of no use any more, and why.
    Lost(String),
    /// It could not do so this time, or the pool has ended.
    Failed(String),
}

impl Template {
    /// Makes a worker a template that has run the initializer, and takes from it what the template needs. One that is
    /// refused is a worker still.
    pub(crate) fn new(
        worker: &mut Admitted,
        slot: usize,
        stop: &impl AsFd,
    ) -> Result<Self, AskError> {
        let refused = |why: &str| AskError::Refused(why.to_owned());
        let process = worker.process.clone();
        let process = process.ok_or_else(|| refused("it was started by hand"))?;
        if !worker.shares {
            let why = "it shares no memory with this program: a plain worker can't be copied";
            return Err(refused(why));
        }
        let questions = link::duplicate(worker.socket.get()).map_err(failed)?;
        // By the socket that is counted: one that is refused goes on as a worker, whose mail needs these numbers.
        let asking = Asking {
            stream: worker.socket.clone(),
            fd: os::socket_fd(worker.socket.get()),
            process: &process,
            stop: Some(stop.as_fd()),
            patience: Patience::new(GREETING_LIMIT),
        };
        match asking.ask(&ToWorker::Template)? {
            TemplateReply::Ready => Ok(Template {
                process,
                slot,
                files: worker.files.take(),
                socket: worker.socket.clone(),
                questions: Mutex::new(Taking::new(questions)),
                tasks: std::mem::take(&mut worker.tasks),
                given: std::mem::take(&mut worker.given),
                user: os::effective_user(),
            }),
            reply => Err(AskError::of(reply)),
        }
    }

    pub(crate) fn process(&self) -> &Arc<WorkerProcess> {
        &self.process
    }

    fn questions(&self) -> MutexGuard<'_, Taking> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker that is started now would act as the same user.
    pub(crate) fn is_of_this_user(&self) -> bool {
        self.user == os::effective_user()
    }

    /// Has it make a copy, and lets that in as the worker of a slot. `started` hears of the process before it is let in;
    /// `stop` becomes readable when the pool ends first.
    pub(crate) fn copy(
        &self,
        launcher: &Launcher,
        slot: u32,
        stop: &impl AsFd,
        started: impl FnOnce(&Arc<WorkerProcess>),
    ) -> Result<Admitted, AskError> {
        let files = launcher.output_files().map_err(failed)?;
        let (black_box_file, black_box) = launcher.black_box().map_err(failed)?;
        let (ours, theirs) = os::socket_pair().map_err(failed)?;
        let socket = SharedSocket::new(ours);
        let process = {
            let (lifeline, writer) = os::pipe().map_err(failed)?;
            let (stdout, stderr) = OutputFiles::streams(files.as_ref()).map_err(failed)?;
            let board = launcher.board.as_ref().map(|board| board.file.as_fd());
            let mut descriptors = vec![
                os::socket_fd(&theirs),
                lifeline.as_fd(),
                stdout.as_fd(),
                stderr.as_fd(),
                black_box_file.as_fd(),
            ];
            descriptors.extend(board);
            let board = board.is_some();
            let (pid, pidfd) = self.ask_for_copy(Welcome { slot, board }, &descriptors)?;
            WorkerProcess::adopt(pid, pidfd, writer).map_err(failed)?
        };
        // From here on the copy alone holds it, and its death ends the link.
        drop(theirs);
        let process = Arc::new(process);
        let pid = process.pid();
        log::debug!(
            "slot {slot}: process {pid} is a copy of process {}",
            self.process.pid()
        );
        started(&process);
        let ready = handshake::await_ready(&mut Link::new(Impatient {
            socket: socket.clone(),
            stop: stop.as_fd(),
            patience: Some(Patience::new(GREETING_LIMIT)),
        }));
        if let Err(error) = ready {
            process.signal(GroupSignal::Kill);
            let death = process.reap();
            let cause = format!("a copy {death} before it was ready: {error}");
            return Err(AskError::Failed(last_words(cause, files.as_ref())));
        }
        let (tasks, process) = (self.tasks.clone(), Some(process));
        Ok(Admitted {
            given: self.given.clone(),
            ..Admitted::new(socket, tasks, true, black_box, pid, process, files)
        })
    }

    /// Has it make a copy. This is waited for also if the pool ends meanwhile: the copy is a child of this process, which has
    /// to reap it.
    fn ask_for_copy(
        &self,
        welcome: Welcome,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(u32, Option<OwnedFd>), AskError> {
        let mut questions = self.questions();
        let taken = questions.taken();
        let asking = Asking {
            stream: Giving {
                stream: &mut *questions,
                descriptors,
            },
            fd: os::socket_fd(self.socket.get()),
            process: &self.process,
            stop: None,
            patience: Patience::new(GREETING_LIMIT),
        };
        match asking.ask(&ToWorker::Copy(welcome))? {
            TemplateReply::Copied(pid) => Ok((pid, taken.take().pop())),
            reply => Err(AskError::of(reply)),
        }
    }

    /// Asks it to leave, and kills it if it has not left when the grace is over. Returns what it has printed since it became
    /// a template.
    pub(crate) fn dismiss(&self, grace: Duration) -> Printed {
        // Not while it answers another slot.
        let _asking = self.questions();
        // If it can't be asked, it is gone, or will be.
        let _ = Link::new(self.socket.clone()).send(&ToWorker::Exit(0), &[]);
        if !self.process.wait(Some(grace)) {
            self.process.signal(GroupSignal::Kill);
        }
        self.process.reap();
        let files = self.files.as_ref();
        files.map(OutputFiles::rest).unwrap_or_default()
    }
}

fn failed(why: impl fmt::Display) -> AskError {
    AskError::Failed(format!("no copy could be made: {why}"))
}

impl AskError {
    fn of(reply: TemplateReply) -> Self {
        match reply {
            TemplateReply::Refused(why) => AskError::Refused(why),
            TemplateReply::Failed(why) => failed(why),
            reply => AskError::Lost(format!("it answered with {reply:?}")),
        }
    }

    /// As the error of a worker that could not be started.
    pub(crate) fn into_error(self, launcher: &Launcher) -> PoolError {
        match self {
            AskError::Refused(why) | AskError::Lost(why) | AskError::Failed(why) => {
                launcher.cannot_start(why)
            }
        }
    }
}

/// A question to a process that makes copies. Its answer is not waited for beyond a time, or the process's death.
struct Asking<'s, S> {
    stream: S,
    /// The stream's descriptor.
    fd: BorrowedFd<'s>,
    process: &'s WorkerProcess,
    /// Readable when the answer is not of interest any more.
    stop: Option<BorrowedFd<'s>>,
    patience: Patience,
}

impl<S: Read + Write> Asking<'_, S> {
    fn ask(self, question: &ToWorker) -> Result<TemplateReply, AskError> {
        let (process, stop) = (self.process, self.stop);
        let mut link = Link::new(self);
        let reply = link
            .send(question, &[])
            .and_then(|()| Ok(link.receive::<TemplateReply>(Caps::GREETING)?.0));
        let why = match reply {
            Ok(reply) if !link.has_unread() => return Ok(reply),
            Ok(_) => "it said more than it was asked for".to_owned(),
            Err(_) if stop.is_some_and(|stop| is_readable(stop)) => {
                return Err(AskError::Failed("the pool ended before".to_owned()));
            }
            Err(LinkError::Closed | LinkError::Broken(_)) if process.wait(Some(Duration::ZERO)) => {
                format!("it {}", process.reap())
            }
            Err(error) => error.to_string(),
        };
        Err(AskError::Lost(why))
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    os::wait_readable(&[fd], Some(Duration::ZERO))[0]
}

impl<S: Read> Read for Asking<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = vec![self.fd, self.process.as_fd()];
        fds.extend(self.stop);
        match self.patience.wait(&fds).as_deref() {
            Some([true, ..]) => self.stream.read(buffer),
            Some(_) => Err(io::ErrorKind::BrokenPipe.into()),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl<S: Write> Write for Asking<'_, S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }
    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(buffers)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
