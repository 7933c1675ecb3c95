//! How a process becomes a worker.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use protocol::black_box::BlackBox;
use protocol::board::View;
use protocol::descriptors::{Taken, Taking};
use protocol::handshake::{self, CONNECT_ARGUMENT, TOKEN_VARIABLE};
use protocol::lane::Side;
use protocol::link::{self, Link, LinkError};
use protocol::message::{Hello, Welcome};
use protocol::spin::Spinning;

use crate::template::{self, Birth};
use crate::{by_hand, current, os, registry, run, serve};

/// The exit code of a worker that could not join a coordinator.
const EXIT_NOT_JOINED: i32 = 2;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Lets one program be both sides: call it first thing in `main`.
///
/// In a process that a coordinator has started as a worker (its arguments are `--connect NAME`, and
/// `COORDINATOR_TOKEN` is set) it runs calls until the coordinator is done and then exits; it does
/// not return. In any other process it notes that this program can be its own worker, and returns
/// at once.
///
/// ```
/// worker::init();
/// // here it is the coordinator
/// ```
///
/// A worker runs its calls inside this function, and so inside whatever surrounds it. Within `#[tokio::main]` all calls
/// would run inside the runtime, where `block_on` panics. Start the runtime afterwards:
///
/// ```ignore
/// fn main() {
///     worker::init();
///     let runtime = tokio::runtime::Runtime::new().expect("there is a runtime");
///     runtime.block_on(async {
///         // here it is the coordinator, and awaits what it submits
///     });
/// }
/// ```
///
/// # Panics
///
/// In builds with debug assertions, if an async runtime exists already. If there are other threads, it says so on stderr.
pub fn init() {
    look_around();
    INITIALIZED.store(true, Ordering::Relaxed);
    let mut arguments = env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(CONNECT_ARGUMENT)) {
        return;
    }
    let (Some(name), None) = (arguments.next(), arguments.next()) else {
        return;
    };
    // Without the token, `--connect` is an option of the program itself.
    if env::var_os(TOKEN_VARIABLE).is_some() {
        std::process::exit(join(&name));
    }
}

/// In debug builds, complains of a runtime or of threads that should not exist yet.
fn look_around() {
    if !cfg!(debug_assertions) {
        return;
    }
    match os::what_runs() {
        None => {}
        Some(os::Before::Runtime(why)) => panic!(
            "`worker::init()` is called inside an async runtime ({why}), so tasks would run inside it, too, and \
             `block_on` in a task would panic; call it first thing in a `main` that is not async, and start the \
             runtime afterwards: `fn main() {{ worker::init(); Runtime::new().unwrap().block_on(run()) }}`"
        ),
        Some(os::Before::Threads(names)) => by_hand::complain(&format!(
            "`worker::init()` should come first in `main`, because each worker does what stands before it: other \
             threads run already (`{names}`)"
        )),
    }
}

/// Does what [`init`] does, in a program whose author does not write `main`: the C runtime calls it before `main`. See
/// [`enable_in_tests`](crate::enable_in_tests).
pub extern "C" fn before_main() {
    INITIALIZED.store(true, Ordering::Relaxed);
    if !is_summoned() {
        return;
    }
    // Not every C library passes the arguments to functions that it calls before `main`.
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1).map(OsStr::from_bytes);
    if let (Some(connect), Some(name)) = (words.next(), words.next())
        && connect == CONNECT_ARGUMENT
    {
        // Rust's runtime would set this, but it starts later.
        os::ignore_broken_pipes();
        std::process::exit(join(name));
    }
}

/// Whether [`init`] has been called: whether this program can be its own worker.
///
/// ```
/// worker::init();
/// assert!(worker::is_initialized());
/// ```
#[must_use]
pub fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// Whether this process was started to be a worker, but has not become one.
#[must_use]
pub fn is_summoned() -> bool {
    env::var_os(TOKEN_VARIABLE).is_some()
}

/// The whole `main` of a program that is nothing but a worker: `--connect NAME` joins a coordinator,
/// `call TASK INPUT` runs a task with no coordinator, `tasks` lists the tasks.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     worker::main()
/// }
/// ```
#[must_use]
pub fn main() -> ExitCode {
    look_around();
    INITIALIZED.store(true, Ordering::Relaxed);
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [connect, name] if connect == CONNECT_ARGUMENT => std::process::exit(join(name)),
        arguments => by_hand::main(arguments),
    }
}

/// Joins the coordinator that listens on `name`, works for it, and returns an exit code.
fn join(name: &OsStr) -> i32 {
    match work(name) {
        Ok(code) => code,
        Err(why) => {
            by_hand::complain(&format!(
                "cannot work for {}: {why}",
                name.to_string_lossy()
            ));
            EXIT_NOT_JOINED
        }
    }
}

fn work(name: &OsStr) -> Result<i32, String> {
    let began = Instant::now();
    os::take_lifeline().map_err(|error| format!("stdin: {error}"))?;
    os::line_buffer_c_stdout();
    let token = env::var(TOKEN_VARIABLE).map_err(|_| {
        format!("{TOKEN_VARIABLE} is not set: copy the whole line that the coordinator printed")
    })?;
    // Whoever has the token may join the coordinator as a worker, and programs that tasks start must not.
    os::unset(TOKEN_VARIABLE);
    os::name_process();
    let tasks = registry::all()?.infos();
    let hello = Hello {
        token,
        pid: std::process::id(),
        tasks,
        build: os::image::build(),
        shares: true,
    };
    let socket = Taking::new(meet(name)?);
    os::close_inherited(name);
    let taken = socket.taken();
    let mut link = Link::new(Spinning::new(socket));
    let introduced = handshake::introduce(&mut link, &hello);
    if let Err(handshake::HandshakeError::Link(LinkError::Closed | LinkError::Broken(_))) =
        introduced
    {
        // The coordinator died before it could remove the directory in which they were to meet.
        remove_meeting_place(name);
    }
    let welcome = introduced.map_err(|error| error.to_string())?;
    run::install_panic_hook();
    let worker = Worker::new(link, taken.clone(), welcome, taken.take())?;
    let served = worker.serve(began);
    #[cfg(feature = "builtin")]
    crate::builtin::at_end();
    served
}

/// A worker that has been let in.
struct Worker {
    link: Link<Spinning<Taking>>,
    /// The descriptors that arrive on the link.
    taken: Taken,
    slot: u32,
    black_box: Arc<BlackBox>,
}

impl Worker {
    /// Maps the memory that came with the welcome, and says that it is ready.
    fn new(
        mut link: Link<Spinning<Taking>>,
        taken: Taken,
        welcome: Welcome,
        memory: Vec<OwnedFd>,
    ) -> Result<Self, String> {
        let (black_box, board) = map_memory(memory, &welcome)?;
        current::look_at(&black_box);
        handshake::ready(&mut link).map_err(|error| error.to_string())?;
        link.share(&black_box, Side::Worker);
        link.share_mail(&black_box, Side::Worker);
        if let Some(board) = board {
            link.share_board(board);
        }
        Ok(Worker {
            link,
            taken,
            slot: welcome.slot,
            black_box,
        })
    }

    /// In a copy of a template: becomes the worker that was asked for. `None` if nobody wants it any more.
    fn born(birth: Birth) -> Result<Option<Self>, String> {
        let Some((socket, welcome, memory)) = birth.begin()? else {
            return Ok(None);
        };
        let socket = Taking::new(socket);
        let taken = socket.taken();
        Worker::new(Link::new(Spinning::new(socket)), taken, welcome, memory).map(Some)
    }

    /// Works until there is nothing more to do, and returns an exit code. A copy of this process returns, too.
    fn serve(mut self, began: Instant) -> Result<i32, String> {
        loop {
            match serve::serve(&mut self.link, &self.taken, self.slot, &self.black_box) {
                Ok(serve::End::Template) => {}
                Ok(serve::End::Exit(code)) => return end(Ok(code)),
                Err(error) => return end(Err(error)),
            }
            // From here on it speaks by its socket alone. The link and the box are the worker's that it was; a copy has its own.
            let Worker { link, taken, .. } = self;
            match template::serve(link.into_stream().into_stream(), &taken, began.elapsed()) {
                Ok(template::End::Copy(birth)) => match Worker::born(birth)? {
                    Some(copy) => self = copy,
                    None => return Ok(0),
                },
                Ok(template::End::Exit(code)) => return end(Ok(code)),
                Err(error) => return end(Err(error)),
            }
        }
    }
}

/// Maps the memory that the coordinator shares with this worker.
fn map_memory(
    memory: Vec<OwnedFd>,
    welcome: &Welcome,
) -> Result<(Arc<BlackBox>, Option<View>), String> {
    let mut memory = memory.into_iter().map(File::from);
    let mut next = |what: &str| {
        let lost = || format!("{what} did not come: this process has no room for further files");
        memory.next().ok_or_else(lost)
    };
    let failed = |what: &str, error: io::Error| format!("{what} can't be mapped: {error}");
    let black_box = BlackBox::map(&next("the black box")?);
    let black_box = black_box.map_err(|error| failed("the black box", error))?;
    let board = match welcome.board {
        true => {
            let board = View::map(&next("the board")?);
            Some(board.map_err(|error| failed("the board", error))?)
        }
        false => None,
    };
    Ok((Arc::new(black_box), board))
}

/// How the worker ends: with an exit code, or with an error to report.
fn end(served: Result<i32, LinkError>) -> Result<i32, String> {
    match served {
        // The coordinator recognizes this exit code as a memory limit that was reached.
        Err(LinkError::Broken(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
            eprintln!("memory allocation of a batch of calls failed");
            std::process::abort();
        }
        // The coordinator is gone, so nobody would read a message.
        Err(LinkError::Closed) => Ok(0),
        Err(LinkError::Broken(error)) if is_hung_up(&error) => Ok(0),
        served => served.map_err(|error| error.to_string()),
    }
}

/// Whether the error means that the other side has closed the link.
fn is_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

/// Connects to the coordinator that listens under a name. A coordinator that started this process lets it inherit a
/// descriptor, which is safe. A name that a person typed may belong to anybody by now, so its owner is checked.
fn meet(name: &OsStr) -> Result<link::Socket, String> {
    let is_typed = os::inherited(name).is_none();
    if is_typed {
        os::check_place(Path::new(name))?;
    }
    let socket = link::connect(name).map_err(|error| connect_failed(&error))?;
    if is_typed {
        let link::Socket::UdSocket(socket) = &socket;
        os::check_peer(socket)?;
    }
    Ok(socket)
}

fn connect_failed(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "no coordinator waits under this name",
        io::ErrorKind::ConnectionRefused => "the coordinator that waited there is gone",
        _ => "copy the line that the coordinator printed",
    };
    format!("{error}; {hint}")
}

fn remove_meeting_place(name: &OsStr) {
    let socket = Path::new(name);
    // Removing the directory fails if it held anything but the socket.
    if std::fs::remove_file(socket).is_ok()
        && let Some(directory) = socket.parent()
    {
        let _ = std::fs::remove_dir(directory);
    }
}
