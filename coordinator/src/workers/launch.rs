//! Starts a worker and lets it in. `program` has found its executable.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use interprocess::local_socket::traits::Stream as _;
use protocol::black_box::BlackBox;
use protocol::descriptors::Giving;
use protocol::handshake::{self, CONNECT_ARGUMENT, HandshakeError, TOKEN_VARIABLE};
use protocol::lane::Side;
use protocol::link::{self, Link};
use protocol::message::{Hello, TaskInfo, Welcome};
use protocol::spin::Spinning;
use worker::private::Given;
use worker::private::spawn::Spawn;

use super::board::PoolBoard;
use super::by_hand::{ByHand, Manual};
use super::meeting::{MeetingPlace, SOCKET};
use super::program::{DEPTH_VARIABLE, Program};
use super::socket::{Impatient, SharedSocket};
use super::talk::LINGER;
use super::visitors::{self, GREETING_LIMIT, Visitor, Visitors, broken};
use crate::error::PoolError;
use crate::os::{self, Beginning, Janitor, WorkerProcess};
use crate::payload::printed::{Output, OutputFiles, TAIL};

/// How the workers of a pool are started.
pub(crate) struct Launcher {
    pub(crate) program: Program,
    /// What the workers begin with: this process's environment and directory, as they were when the pool was made.
    pub(crate) surroundings: Surroundings,
    /// Which build the workers are: that of this program, or what the first of them said.
    pub(crate) build: OnceLock<String>,
    pub(crate) output: Output,
    pub(crate) manual: Option<Manual>,
    /// Removes the places where such workers are met, should this process be killed.
    pub(crate) janitor: Janitor,
    /// How large what a worker shares with this process is, in bytes.
    pub(crate) box_size: usize,
    /// Where large inputs are written. If there is none, they travel in another way.
    pub(crate) board: Option<PoolBoard>,
}

impl fmt::Debug for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launcher")
            .field("program", &self.program.path)
            .finish_non_exhaustive()
    }
}

/// What workers begin with: by default this process's own surroundings.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Variables, with which this process's own are completed.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) directory: Option<OwnedFd>,
}

impl Surroundings {
    /// These, and for the rest those of this process as they are now.
    pub(crate) fn now(mut self) -> Self {
        let of_workers = [TOKEN_VARIABLE, DEPTH_VARIABLE];
        let is_set = |name: &OsString| self.env.iter().any(|(set, _)| set == name);
        let own = env::vars_os()
            .filter(|(name, _)| of_workers.iter().all(|other| name != other) && !is_set(name));
        let own: Vec<_> = own.collect();
        self.env.extend(own);
        self.directory = self.directory.or_else(os::current_directory);
        self
    }
}

/// A worker that was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) link: Link<Spinning<SharedSocket>>,
    pub(crate) socket: SharedSocket,
    pub(crate) pid: u32,
    /// `None` if it was started by hand.
    pub(crate) process: Option<Arc<WorkerProcess>>,
    /// `None` if what it prints goes elsewhere.
    pub(crate) files: Option<OutputFiles>,
    pub(crate) tasks: Vec<TaskInfo>,
    pub(crate) black_box: Arc<BlackBox>,
    /// Whether the worker sees that memory, or any. If not, it is given calls one at a time.
    pub(crate) shares: bool,
    /// The shared values that it has been given.
    pub(crate) given: Given,
    /// The number of the last batch. The first can't be guessed: no reply is taken for an answer that was
    /// sent before there was a question.
    pub(crate) serial: u32,
}

impl Admitted {
    pub(super) fn new(
        socket: SharedSocket,
        tasks: Vec<TaskInfo>,
        shares: bool,
        black_box: BlackBox,
        pid: u32,
        process: Option<Arc<WorkerProcess>>,
        files: Option<OutputFiles>,
    ) -> Self {
        let black_box = Arc::new(black_box);
        let mut link = Link::new(Spinning::new(socket.clone()));
        if shares {
            link.share(&black_box, Side::Coordinator);
            link.share_mail(&black_box, Side::Coordinator);
        }
        Admitted {
            link,
            socket,
            pid,
            process,
            files,
            tasks,
            black_box,
            shares,
            given: Given::default(),
            serial: getrandom::u32().unwrap_or(0),
        }
    }

    /// Prepares the black box for a batch of this many calls. A plain worker does not see the box, so its only call counts
    /// as begun.
    pub(crate) fn open(&self, calls: u32) {
        match self.shares {
            true => self.black_box.open(calls),
            false => self.black_box.open_begun(os::now()),
        }
    }
}

impl Launcher {
    /// Starts a worker for a slot, or waits for one that is started by hand. `started` hears of the
    /// process before it is let in; `stop` becomes readable when the pool ends first. `place` is where
    /// the slot's workers are met, one after another: what nobody sees can't be left behind, and the
    /// moment in which it can be seen comes only once.
    pub(crate) fn launch(
        &self,
        slot: u32,
        place: &mut Option<MeetingPlace>,
        stop: &impl AsFd,
        started: impl FnOnce(&Arc<WorkerProcess>),
    ) -> Result<Admitted, PoolError> {
        let system = |what: &str, error: io::Error| {
            PoolError::System(format!("a worker could not be started: {what}: {error}"))
        };
        let no_socket = |error| system("a socket", error);
        if let Some(tell) = &self.manual {
            let place = MeetingPlace::visible(|directory| {
                if let Err(error) = self.janitor.look_after(directory, SOCKET) {
                    log::debug!("nobody will remove {}: {error}", directory.display());
                }
            });
            let place = place.map_err(no_socket)?;
            tell(&ByHand {
                program: self.program.path.clone(),
                connect: place.name.clone(),
                token: place.token.reveal().to_owned(),
            });
            return self.admit(&place, slot, stop, None, None);
        }
        let place = match place {
            Some(place) if place.user == os::effective_user() => place,
            place => place.insert(MeetingPlace::hidden().map_err(no_socket)?),
        };
        let files = self.output_files();
        let files = files.map_err(|error| system("files for its output", error))?;
        let process = Arc::new(self.start(place, files.as_ref())?);
        log::debug!(
            "slot {slot}: started {} as process {}",
            self.program.path.display(),
            process.pid()
        );
        started(&process);
        self.admit(place, slot, stop, Some(process), files)
    }

    /// The files that a new worker prints into.
    pub(super) fn output_files(&self) -> io::Result<Option<OutputFiles>> {
        match self.output {
            Output::Null => Ok(None),
            _ => OutputFiles::new().map(Some),
        }
    }

    /// Memory that a new worker shares with this process, as a file and as it stands here.
    pub(super) fn black_box(&self) -> io::Result<(File, BlackBox)> {
        let file = os::shared_memory(self.box_size)?;
        let black_box = BlackBox::map(&file)?;
        Ok((file, black_box))
    }

    fn start(
        &self,
        place: &MeetingPlace,
        files: Option<&OutputFiles>,
    ) -> Result<WorkerProcess, PoolError> {
        let (stdout, stderr) =
            OutputFiles::streams(files).map_err(|error| self.cannot_start(error))?;
        let token = OsString::from(place.token.reveal());
        let set = [
            (TOKEN_VARIABLE.into(), token),
            (
                DEPTH_VARIABLE.into(),
                (self.program.depth + 1).to_string().into(),
            ),
        ];
        let Surroundings { env, directory } = &self.surroundings;
        let words = [
            self.program.path.as_os_str(),
            OsStr::new(CONNECT_ARGUMENT),
            place.name.as_os_str(),
        ];
        let words = words.iter().map(|word| word.as_encoded_bytes());
        let beginning = Beginning {
            directory: directory.as_ref().map(AsFd::as_fd),
            inherits: place.door.as_ref().map(AsFd::as_fd),
            stdout,
            stderr,
        };
        Spawn::new(&self.program.image, words, env.iter().cloned().chain(set))
            .and_then(|program| WorkerProcess::start(&program, &beginning))
            .map_err(|error| self.cannot_start(error))
    }

    /// Waits for the worker to connect, and checks who it is. Strangers are turned away, and cost
    /// no more than a line in the log.
    fn admit(
        &self,
        place: &MeetingPlace,
        slot: u32,
        stop: &impl AsFd,
        process: Option<Arc<WorkerProcess>>,
        files: Option<OutputFiles>,
    ) -> Result<Admitted, PoolError> {
        let mut visitors = Visitors::new(&place.listener, slot, process.as_deref());
        loop {
            let visitor = visitors.next(stop).map_err(|cause| {
                if let Some(process) = &process {
                    // One that may not be signalled is killed all the same.
                    process.signal(os::GroupSignal::Kill);
                    process.reap();
                }
                self.cannot_start(last_words(cause, files.as_ref()))
            })?;
            let peer_pid = visitor.pid;
            let error = match self.greet(visitor, place, slot, stop) {
                Ok((socket, hello, black_box)) => {
                    let pid = peer_pid.unwrap_or(hello.pid);
                    log::debug!("slot {slot}: process {pid} is ready");
                    let Hello { tasks, shares, .. } = hello;
                    return Ok(Admitted::new(
                        socket, tasks, shares, black_box, pid, process, files,
                    ));
                }
                // The pool has ended meanwhile: that is why.
                Err(_) if os::wait_readable(&[stop.as_fd()], Some(Duration::ZERO))[0] => continue,
                Err(error) => error,
            };
            visitors::turned_away(slot, &error);
            // The one that was started is known by its process id: no other will come. If it died and
            // so broke the link, its death says more than the link.
            let is_link = matches!(error, HandshakeError::Link(_));
            if let Some(process) = &process
                && !(is_link && process.wait(Some(LINGER)))
            {
                process.signal(os::GroupSignal::Kill);
                return Err(self.cannot_start(error));
            }
        }
    }

    /// Hears who the visitor is, lets it in, and waits until it is ready.
    fn greet(
        &self,
        visitor: Visitor,
        place: &MeetingPlace,
        slot: u32,
        stop: &impl AsFd,
    ) -> Result<(SharedSocket, Hello, BlackBox), HandshakeError> {
        let Visitor {
            stream, patience, ..
        } = visitor;
        stream
            .set_send_timeout(Some(GREETING_LIMIT))
            .map_err(broken)?;
        let socket = SharedSocket::new(stream);
        let mut link = Link::new(Impatient {
            socket: socket.clone(),
            stop: stop.as_fd(),
            patience: Some(patience),
        });
        let hello = self.identify(&mut link, place)?;
        let memory = self.welcome(&socket, &hello, slot)?;
        handshake::await_ready(&mut link)?;
        if link.has_unread() {
            let what = "something that it was not asked for".to_owned();
            return Err(HandshakeError::Link(link::LinkError::Malformed(what)));
        }
        socket.send_without_limit().map_err(broken)?;
        Ok((socket, hello, memory))
    }

    /// Hears who the visitor is. One that is not let in is told why.
    fn identify(
        &self,
        link: &mut Link<impl io::Read + io::Write>,
        place: &MeetingPlace,
    ) -> Result<Hello, HandshakeError> {
        let known = handshake::receive(link, &place.token).and_then(|hello| {
            match self.build.get_or_init(|| hello.build.clone()) == &hello.build {
                true => Ok(hello),
                false => Err(HandshakeError::OtherBuild),
            }
        });
        known.inspect_err(|error| handshake::refuse(link, error))
    }

    /// Tells the worker that it is let in, and gives it the memory that it shares with this process.
    fn welcome(
        &self,
        socket: &SharedSocket,
        hello: &Hello,
        slot: u32,
    ) -> Result<BlackBox, HandshakeError> {
        let (file, memory) = self.black_box().map_err(HandshakeError::NoMemory)?;
        let board = self.board.as_ref().filter(|_| hello.shares);
        let board = board.map(|board| board.file.as_fd());
        let file = hello.shares.then(|| file.as_fd());
        let descriptors: Vec<_> = file.into_iter().chain(board).collect();
        let welcome = Welcome {
            slot,
            board: board.is_some(),
        };
        let giving = Giving {
            stream: &mut socket.clone(),
            descriptors: &descriptors,
        };
        handshake::admit(&mut Link::new(giving), welcome)?;
        Ok(memory)
    }

    pub(super) fn cannot_start(&self, cause: impl fmt::Display) -> PoolError {
        PoolError::CannotStart {
            program: self.program.path.clone(),
            cause: cause.to_string(),
        }
    }
}

/// What has become of a worker, with what it has last written to stderr.
pub(super) fn last_words(cause: String, files: Option<&OutputFiles>) -> String {
    let words = files.map(|files| files.rest().stderr.tail(TAIL));
    match words.as_deref().map(str::trim) {
        None | Some("") => cause,
        Some(words) => format!("{cause}: {words}"),
    }
}
