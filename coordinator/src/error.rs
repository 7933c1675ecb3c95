//! The errors and their texts: why a call has no value, and why a pool can't be had.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a call ended without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The task returned an error: this is its text. What to do is the task's own affair; retries help if the error passes.
    Failed(String),
    /// The task panicked. This is a bug in the task: the place says where, and `RUST_BACKTRACE=1` how it came there.
    Panicked {
        /// What it said.
        message: String,
        /// Where: `src/lib.rs:10:5`.
        location: String,
        /// The worker's stack; empty unless the worker runs with `RUST_BACKTRACE=1`, as is usual for Rust.
        backtrace: String,
    },
    /// The worker died while it ran the call: it crashed, left, or was killed from outside. [`CallError::stderr`] has what it
    /// said last. A new worker has taken its place; retry the call if the death was bad luck.
    Died(Death),
    /// The call ran longer than its limit, and was killed: give it more [time](crate::Builder::timeout), or less to do.
    TimedOut(Duration),
    /// The worker needed more memory than its limit: raise the [limit](crate::Builder::memory_limit), start fewer workers, or
    /// have workers that leak [replaced](crate::Builder::recycle_above).
    OutOfMemory {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The call was cancelled before it ended: by the caller, because another call of its map
    /// failed, or because the pool ended. [`CallError::note`] says which. [`Pool::map_each`](crate::Pool::map_each) lets
    /// calls run on when others fail.
    Cancelled,
    /// The input or the output could not be carried between the processes: serde could not encode or decode it, or it is
    /// too large. [`Described`](crate::Described) carries types that only formats with field names can.
    Undecodable(String),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It left with this exit code.
    Exit(i32),
    /// It was killed by the signal of this number.
    Signal(i32),
    /// Nobody knows: something else in this program has waited for it, or has SIGCHLD ignored, and the system is
    /// older than Linux 6.15.
    Unknown,
    /// It was lost with its machine, which died, was cut off, or ended all that it ran. No worker of this machine ends so.
    Machine,
}

impl Death {
    /// As Python has it: the exit code, or the signal's number below zero. `None` if nobody knows.
    ///
    /// ```
    /// use coordinator::Death;
    /// assert_eq!(Death::Exit(3).code(), Some(3));
    /// assert_eq!(Death::Signal(9).code(), Some(-9));
    /// assert_eq!(Death::Unknown.code(), None);
    /// ```
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Death::Exit(code) => Some(code),
            Death::Signal(number) => Some(-number),
            Death::Unknown | Death::Machine => None,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Death::Exit(code) => write!(f, "exited with code {code}"),
            Death::Signal(number) => match protocol::signal_name(*number) {
                Some(name) => write!(f, "was killed by signal {number} ({name})"),
                None => write!(f, "was killed by signal {number}"),
            },
            Death::Machine => f.write_str("was lost with its machine"),
            Death::Unknown => f.write_str(
                "ended, and nobody knows how (something else in this program has waited for it)",
            ),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Failed(text) => write!(f, "failed: {text}"),
            Why::Panicked {
                message, location, ..
            } if location.is_empty() => {
                write!(f, "panicked: {message}")
            }
            Why::Panicked {
                message, location, ..
            } => write!(f, "panicked at {location}: {message}"),
            Why::Died(death) => write!(f, "its worker {death}"),
            // For the calls of `exec` and `pipe` the command line has words of its own: `cli/outcome.rs`.
            Why::TimedOut(limit) => write!(f, "timed out after {limit:?}"),
            Why::OutOfMemory { limit } => {
                write!(f, "needed more memory than its limit of {}", Size(*limit))
            }
            Why::Cancelled => f.write_str("cancelled"),
            Why::Undecodable(text) => f.write_str(text),
        }
    }
}

/// Bytes, as people say it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let Size(bytes) = *self;
        match UNITS.iter().find(|(size, _)| bytes >= *size) {
            Some((size, unit)) if bytes.is_multiple_of(*size) => {
                write!(f, "{} {unit}", bytes / size)
            }
            Some((size, unit)) => write!(f, "{:.1} {unit}", bytes as f64 / *size as f64),
            None => write!(f, "{bytes} bytes"),
        }
    }
}

/// A call that ended without a value: which one, and why.
///
/// Printed, it is one line for people, who count calls from 1; [`why`](CallError::why) is for programs. Its `Debug` form,
/// which a `main` that returns it prints, is the same line, and below it the backtrace and what the call last wrote to
/// stderr.
#[derive(Clone, PartialEq, Eq)]
pub struct CallError {
    // Boxed, so that a Result with it stays as small as its value.
    pub(crate) details: Box<Details>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) task: Arc<str>,
    pub(crate) index: u64,
    pub(crate) attempts: u32,
    pub(crate) worker: Option<u32>,
    pub(crate) machine: Option<Arc<str>>,
    pub(crate) elapsed: Duration,
    pub(crate) stderr: String,
    pub(crate) note: Option<String>,
    pub(crate) why: Why,
}

impl CallError {
    /// Why it ended so.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use coordinator::Why;
    /// if let Err(error) = pool.call(square, 7) {
    ///     match error.why() {
    ///         Why::TimedOut(limit) => println!("no answer within {limit:?}"),
    ///         Why::Died(death) => println!("its worker {death}"),
    ///         why => println!("{why}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn why(&self) -> &Why {
        &self.details.why
    }

    /// The task's name.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     assert_eq!(error.task(), "square");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn task(&self) -> &str {
        &self.details.task
    }

    /// The call's index in its map, from 0.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     println!("call {} of the map", error.index());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn index(&self) -> u64 {
        self.details.index
    }

    /// How often the call was tried; 0 if it never ran.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     println!("tried {} times", error.attempts());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.details.attempts
    }

    /// The process id of the worker that ran it last; `None` if it never ran.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     println!("in process {:?}", error.worker());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        self.details.worker
    }

    /// The agent whose machine ran it last; `None` if it ran here, or never.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     println!("on {}", error.machine().unwrap_or("this machine"));
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn machine(&self) -> Option<&str> {
        self.details.machine.as_deref()
    }

    /// How long the last attempt ran.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     println!("after {:?}", error.elapsed());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.details.elapsed
    }

    /// The last lines, at most 4 KiB, of what the last attempt wrote to stderr.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     eprint!("{}", error.stderr());
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stderr(&self) -> &str {
        &self.details.stderr
    }

    /// What else there is to know: why it was cancelled, for example.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// if let Err(error) = pool.call(square, 7) {
    ///     println!("{}", error.note().unwrap_or("no more is known"));
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.details.note.as_deref()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details {
            task,
            index,
            attempts,
            worker,
            machine,
            elapsed,
            stderr,
            note,
            why,
        } = &*self.details;
        let number = index.saturating_add(1);
        write!(f, "call {number} of `{task}`: {why}")?;
        if let Some(note) = note {
            write!(f, ": {note}")?;
        }
        if let Some(pid) = worker {
            write!(f, " (worker {pid}")?;
            if let Some(machine) = machine {
                write!(f, " on {machine}")?;
            }
            write!(f, ", which ran it for {elapsed:.1?}")?;
            if *attempts > 1 {
                write!(f, ", attempt {attempts}")?;
            }
            f.write_str(")")?;
        } else if let Some(machine) = machine {
            write!(f, " ({machine})")?;
        }
        // What a dying process said last is usually the reason; a task's own error stands above.
        if matches!(why, Why::Died(_))
            && let Some(line) = stderr.lines().rev().find(|line| !line.trim().is_empty())
        {
            write!(f, "; its last words: {}", line.trim())?;
        }
        Ok(())
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Why::Panicked { backtrace, .. } = &self.details.why
            && !backtrace.trim().is_empty()
        {
            write!(f, "\n\nstack of the worker:\n{}", backtrace.trim_end())?;
        }
        if !self.details.stderr.trim().is_empty() {
            write!(f, "\n\nlast on stderr:\n{}", self.details.stderr.trim_end())?;
        }
        Ok(())
    }
}

impl std::error::Error for CallError {}

/// Why a pool could not be had, or is of no further use. Its `Debug` form reads as `Display` does.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no executable to start as a worker.
    NoWorker {
        /// Where one was looked for: a line for each place.
        looked: Vec<String>,
    },
    /// A worker could not be started, or did not get ready.
    CannotStart {
        /// The executable.
        program: PathBuf,
        /// What happened.
        cause: String,
    },
    /// The initializer failed.
    Initializer(String),
    /// A setting that can't be, and what to use instead.
    Setting(String),
    /// The operating system refused something the pool needs.
    System(String),
    /// `join` before `close`: it would wait for ever.
    NotClosed,
    /// The pool is another process's: this one is a copy of that, made by `fork`.
    Copied,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::NoWorker { looked } => {
                f.write_str("no worker executable; the pool looked for")?;
                for (number, place) in looked.iter().enumerate() {
                    write!(f, "\n  {}. {place}", number + 1)?;
                }
                Ok(())
            }
            PoolError::CannotStart { program, cause } => {
                write!(
                    f,
                    "the worker {} could not be started: {cause}",
                    program.display()
                )
            }
            PoolError::Initializer(why) => write!(f, "the initializer of the workers {why}"),
            PoolError::Setting(why) | PoolError::System(why) => f.write_str(why),
            PoolError::NotClosed => f.write_str(
                "the pool is still open: call close() before join(), or terminate() instead",
            ),
            PoolError::Copied => f.write_str(
                "this process is a copy (made by fork) of the one that built the pool, which alone can use it: \
                 build a pool in the copy, or before anything is copied only there where it is used",
            ),
        }
    }
}

impl fmt::Debug for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for PoolError {}
