//! One function in a process of its own.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use worker::Task;

use super::pending::Pending;
use super::pool::Pool;
use crate::error::{CallError, PoolError};
use crate::payload::printed::Output;

/// A child whose function ends at once still lives this long, unless it is joined: a program that
/// asks right after the start whether it is alive gets the same answer each time.
const AT_LEAST: Duration = Duration::from_millis(50);

/// A function that is to run in a process of its own.
///
/// ```no_run
/// # use coordinator::task;
/// # #[task] fn power(base: u64, exponent: u32) -> u64 { base.pow(exponent) }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut child = coordinator::Process::new(power, (2, 10)).start()?;
/// assert!(child.is_alive());
/// assert_eq!(child.join()?, 1024);
/// assert_eq!(child.exit_code(), Some(0));
/// # Ok(()) }
/// ```
#[must_use = "a process does nothing until start() is called"]
pub struct Process<T: Task> {
    task: T,
    input: T::Input,
    program: Option<PathBuf>,
    output: Output,
    timeout: Option<Duration>,
}

impl<T: Task> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&T::NAME).finish()
    }
}

impl<T: Task> Process<T> {
    /// A process that will run the task on this input.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut child = Process::new(square, 7).start()?;
    /// assert_eq!(child.join()?, 49);
    /// # Ok(()) }
    /// ```
    pub fn new(task: T, input: T::Input) -> Self {
        Process {
            task,
            input,
            program: None,
            output: Output::default(),
            timeout: None,
        }
    }

    /// The executable to run; see [`Builder::worker`](crate::Builder::worker).
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let child = Process::new(square, 7).worker("./my-worker").start()?;
    /// # Ok(()) }
    /// ```
    pub fn worker(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// What becomes of what it prints. It is forwarded when the child is joined.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use coordinator::Output;
    /// let child = Process::new(square, 7).output(Output::Capture).start()?;
    /// # Ok(()) }
    /// ```
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// How long the function may run before the process is killed.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// let child = Process::new(square, 7).timeout(Duration::from_secs(5)).start()?;
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Starts the process, and the function in it.
    ///
    /// # Errors
    ///
    /// The process could not be started.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let child = Process::new(square, 7).start()?;
    /// # Ok(()) }
    /// ```
    pub fn start(self) -> Result<Child<T::Output>, PoolError> {
        let mut builder = Pool::builder()
            .workers(1)
            .output(self.output)
            .single(AT_LEAST);
        if let Some(program) = self.program {
            builder = builder.worker(program);
        }
        let pool = builder.build()?;
        let id = pool.workers().first().map_or(0, |worker| worker.pid);
        let mut with = pool.with();
        if let Some(limit) = self.timeout {
            with = with.timeout(limit);
        }
        let pending = with.submit(self.task, self.input);
        pool.close();
        Ok(Child {
            pool,
            id,
            state: State::Running(pending),
        })
    }
}

/// A process that was started. Dropping it terminates it. In a copy of the program, made by `fork`, it is nobody's
/// child: it is not alive there, has no exit code, and can't be joined or signalled.
pub struct Child<O> {
    pool: Pool,
    id: u32,
    state: State<O>,
}

enum State<O> {
    Running(Pending<O>),
    Taken,
}

impl<O> fmt::Debug for Child<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<O> Child<O> {
    /// Its process id.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// println!("process {}", child.id());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the process is still there.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// child.join()?;
    /// assert!(!child.is_alive());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        if self.pool.shared().is_copied() {
            return false;
        }
        let state = self.pool.shared().state();
        state.last_death.is_none() && state.slots_left > 0
    }

    /// The exit code of the process, or the number of the signal that killed it below zero, as
    /// Python has it; `None` while it is alive, and if [nobody knows](crate::Death::Unknown). A function that fails or panics ends its process
    /// with 1.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// child.join()?;
    /// assert_eq!(child.exit_code(), Some(0));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        if self.pool.shared().is_copied() {
            return None;
        }
        self.pool
            .shared()
            .state()
            .last_death
            .and_then(crate::Death::code)
    }

    /// Waits for the process to end, and returns what the function returned.
    ///
    /// # Errors
    ///
    /// The function failed or panicked, or the process died.
    ///
    /// # Panics
    ///
    /// If an earlier `join` or `join_timeout` has returned the result already.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// assert_eq!(child.join()?, 49);
    /// # Ok(()) }
    /// ```
    pub fn join(&mut self) -> Result<O, CallError> {
        self.pool.wait_for_end(None);
        self.take()
            .expect("the result of this child was taken by an earlier join")
    }

    /// As [`join`](Self::join), for at most `limit`; `None` if the process has not ended.
    ///
    /// # Panics
    ///
    /// If an earlier `join` or `join_timeout` has returned the result already.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// use std::time::Duration;
    /// match child.join_timeout(Duration::from_secs(1)) {
    ///     Some(result) => assert_eq!(result?, 49),
    ///     None => child.kill(),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn join_timeout(&mut self, limit: Duration) -> Option<Result<O, CallError>> {
        if !self.pool.wait_for_end(Some(limit)) {
            return None;
        }
        Some(
            self.take()
                .expect("the result of this child was taken by an earlier join"),
        )
    }

    fn take(&mut self) -> Option<Result<O, CallError>> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Running(pending) => Some(pending.wait()),
            State::Taken => None,
        }
    }

    /// Sends SIGTERM to the process and all that it has started.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// child.terminate();
    /// # Ok(()) }
    /// ```
    pub fn terminate(&self) {
        self.signal(crate::os::GroupSignal::Term);
    }

    /// Sends SIGKILL to the process and all that it has started.
    ///
    /// ```no_run
    /// # use coordinator::{Process, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut child = coordinator::Process::new(square, 7).start()?;
    /// child.kill();
    /// assert!(child.join().is_err());
    /// assert_eq!(child.exit_code(), Some(-9));
    /// # Ok(()) }
    /// ```
    pub fn kill(&self) {
        self.signal(crate::os::GroupSignal::Kill);
    }

    fn signal(&self, signal: crate::os::GroupSignal) {
        if self.pool.shared().is_copied() {
            return;
        }
        let state = self.pool.shared().state();
        let posts = state.posts.iter();
        let processes: Vec<_> = posts.filter_map(|post| post.process.clone()).collect();
        // Nobody is to wait for the look through all that it has started.
        drop(state);
        for process in processes {
            process.signal(signal);
        }
    }
}
