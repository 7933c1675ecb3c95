//! The pool, as its users see it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use worker::Task;

#[cfg(feature = "agents")]
use super::calls::encoded::{self, EncodedEnds, EncodedMap};
use super::calls::{Stream, StreamUnordered, ThreadedStream};
use super::pending::Pending;
use super::with::With;
use crate::engine::shared::PoolShared;
use crate::engine::state::State;
use crate::error::{CallError, PoolError};
#[cfg(feature = "agents")]
use crate::payload::{EncodedInputs, Job};
#[cfg(feature = "agents")]
use crate::scheduler::Limits;

/// A fixed number of worker processes that run calls.
///
/// A pool can be shared by any number of threads; maps that run at the same time share its workers
/// fairly. Dropping it terminates it.
///
/// A pool belongs to the process that built it. In a copy of that process, made by `fork`, every call ends at once as
/// [cancelled](crate::Why::Cancelled), saying so, and to close, end or drop the pool does nothing there; so build it
/// after `fork`, or after `daemon`.
#[derive(Debug)]
pub struct Pool {
    pub(super) shared: Arc<PoolShared>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How long a pause waits for other machines to hear of it.
const TO_TELL: Duration = Duration::from_millis(500);

/// How long the pool's end waits for the host's stdout, for what calls printed that nobody waited for.
const TO_PRINT: Duration = Duration::from_secs(1);

impl Pool {
    /// Runs calls whose inputs are encoded, for another coordinator.
    #[cfg(feature = "agents")]
    pub(crate) fn run_encoded(
        &self,
        job: Job,
        limits: Limits,
        inputs: EncodedInputs,
    ) -> Result<(EncodedMap, EncodedEnds), String> {
        encoded::run(&self.shared, job, limits, inputs)
    }

    pub(super) fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settings for the calls that are made through it: `pool.with().timeout(d).map(…)`.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// let pool = Pool::new(2)?;
    /// let limited = pool.with().timeout(Duration::from_secs(10)).retries(1);
    /// assert_eq!(limited.map(square, [5, 6])?, [25, 36]);
    /// # Ok(()) }
    /// ```
    pub fn with(&self) -> With<'_> {
        With::new(&self.shared)
    }

    /// Runs the task on each input and returns the outputs in input order.
    ///
    /// ```no_run
    /// # use coordinator::task;
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = coordinator::Pool::new(4)?;
    /// assert_eq!(pool.map(square, 1..=3)?, [1, 4, 9]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The first call, by index, that did not succeed; those behind it are cancelled.
    pub fn map<T: Task>(
        &self,
        task: T,
        inputs: impl IntoIterator<Item = T::Input>,
    ) -> Result<Vec<T::Output>, CallError> {
        self.with().map(task, inputs)
    }

    /// Runs the task on each input and returns, in input order, how each call ended.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn half(x: i64) -> Result<i64, String> { if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) } }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// let outcomes = pool.map_each(half, [4, 5]);
    /// assert_eq!(outcomes[0].as_ref().unwrap(), &2);
    /// assert!(outcomes[1].as_ref().unwrap_err().to_string().contains("5 is odd"));
    /// # Ok(()) }
    /// ```
    pub fn map_each<T: Task>(
        &self,
        task: T,
        inputs: impl IntoIterator<Item = T::Input>,
    ) -> Vec<Result<T::Output, CallError>> {
        self.with().map_each(task, inputs)
    }

    /// Runs the task on each input, lazily: results come in input order, inputs are read as results
    /// are taken, and only a window of both is in memory. Dropping the iterator cancels the rest.
    ///
    /// The inputs are read on the caller's thread, while it asks for a result. A result that is ready is handed
    /// out before another input is asked for; if none is ready, the stream waits for the next input. Take
    /// [`stream_threaded`](Self::stream_threaded) for inputs that arrive over time, as from a socket or a
    /// channel, and for those that wait for an earlier result.
    ///
    /// If reading an input panics, the results before it come first, and then the panic.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// let squares: Result<Vec<i64>, _> = pool.stream(square, 1..).take(3).collect();
    /// assert_eq!(squares?, [1, 4, 9]);
    /// # Ok(()) }
    /// ```
    pub fn stream<T: Task, I: IntoIterator<Item = T::Input>>(
        &self,
        task: T,
        inputs: I,
    ) -> Stream<T, I::IntoIter> {
        self.with().stream(task, inputs)
    }

    /// As [`stream`](Self::stream), with the inputs read on a thread of their own: each call begins as soon as its
    /// input has come, and each result is handed out as soon as it is there, however long the next input
    /// takes. Costs more for each call than [`stream`](Self::stream).
    ///
    /// The thread reads on while nobody takes results, until the window is full. After the stream was dropped,
    /// it ends when the next input comes.
    ///
    /// ```no_run
    /// # use coordinator::task;
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # let pool = coordinator::Pool::new(4)?;
    /// use std::io::BufRead as _;
    ///
    /// let lines = std::io::BufReader::new(std::io::stdin()).lines();
    /// let numbers = lines.map_while(|line| line.ok()?.parse().ok());
    /// for result in pool.stream_threaded(square, numbers) {
    ///     println!("{result:?}");
    /// }
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn stream_threaded<T, I>(&self, task: T, inputs: I) -> ThreadedStream<T>
    where
        T: Task,
        I: IntoIterator<Item = T::Input> + Send + 'static,
    {
        self.with().stream_threaded(task, inputs)
    }

    /// As [`stream`](Self::stream), with results as they come, each with its index.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// for (index, result) in pool.stream_unordered(square, 0..10) {
    ///     assert_eq!(result?, (index * index) as i64);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream_unordered<T: Task, I: IntoIterator<Item = T::Input>>(
        &self,
        task: T,
        inputs: I,
    ) -> StreamUnordered<T, I::IntoIter> {
        self.with().stream_unordered(task, inputs)
    }

    /// Runs the task on one input and waits for it.
    ///
    /// # Errors
    ///
    /// The call did not succeed.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.call(square, 7)?, 49);
    /// # Ok(()) }
    /// ```
    pub fn call<T: Task>(&self, task: T, input: T::Input) -> Result<T::Output, CallError> {
        self.with().call(task, input)
    }

    /// Runs the task on one input, and does not wait.
    ///
    /// Calls are handed to workers in the order in which they were submitted. There may be any number of them: short ones travel
    /// together, as those of a map do.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// let (three, four) = (pool.submit(square, 3), pool.submit(square, 4));
    /// assert_eq!(three.wait()? + four.wait()?, 25);
    /// # Ok(()) }
    /// ```
    pub fn submit<T: Task>(&self, task: T, input: T::Input) -> Pending<T::Output> {
        self.with().submit(task, input)
    }

    /// Writes a large value down once, for all calls that need it: their inputs then hold no more than a
    /// reference, and each worker decodes it once.
    ///
    /// ```standalone_crate
    /// use coordinator::{Pool, Shared};
    /// use coordinator::task;
    ///
    /// #[task]
    /// fn nth(table: Shared<Vec<u64>>, n: usize) -> u64 {
    ///     table[n]
    /// }
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     coordinator::init();
    ///     let pool = Pool::new(2)?;
    ///     let table = pool.share((0..1_000_000).collect::<Vec<u64>>());
    ///     let numbers = pool.map(nth, (0..100).map(|n| (table.clone(), n * 1000)))?;
    ///     assert_eq!(numbers[7], 7000);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// See [`Shared`](worker::Shared) for how long it lives.
    pub fn share<T: Serialize + DeserializeOwned>(&self, value: T) -> worker::Shared<T> {
        worker::Shared::new(value)
    }

    /// Takes no further calls. Those that were submitted are finished; a stream reads no further
    /// inputs.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 7);
    /// pool.close();
    /// assert_eq!(pending.wait()?, 49);
    /// assert!(pool.call(square, 8).is_err());
    /// # Ok(()) }
    /// ```
    pub fn close(&self) {
        if self.shared.is_copied() {
            return;
        }
        self.shared.act(|state| state.jobs.close());
        self.shared.milestone();
    }

    /// Waits until the calls that were submitted have ended and all workers are gone.
    ///
    /// # Errors
    ///
    /// The pool was not closed, it could not work, or it is [another process's](PoolError::Copied).
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 3);
    /// pool.close();
    /// pool.join()?;
    /// assert_eq!(pending.wait()?, 9);
    /// # Ok(()) }
    /// ```
    pub fn join(&self) -> Result<(), PoolError> {
        if self.shared.is_copied() {
            return Err(PoolError::Copied);
        }
        if self.shared.state().jobs.refusal().is_none() {
            return Err(PoolError::NotClosed);
        }
        self.wait_for_end(None);
        match self.shared.state().failure.clone() {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// Waits for the end, for at most `limit`; says whether it has come.
    pub(crate) fn wait_for_end(&self, limit: Option<Duration>) -> bool {
        if self.shared.is_copied() {
            return true;
        }
        self.shared.state().hurry = true;
        self.shared.milestone();
        let is_over = |state: &State| state.slots_left == 0 && !state.machines.is_attended;
        if !self.shared.wait_until(limit, is_over) {
            return false;
        }
        self.shared.wake_supervisor();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread of the pool panicked: this is a bug");
            }
        }
        self.shared.printer.wait(TO_PRINT);
        true
    }

    /// Starts nothing more: what runs is finished, and all that waits, for another attempt too, is
    /// cancelled. Does not wait; [`join`](Self::join) does.
    ///
    /// Together with [`terminate`](Self::terminate), and with [`pause`](Self::pause) and
    /// [`resume`](Self::resume), this is what a program needs that handles Ctrl-C and its like: the pool
    /// installs no signal handler, and its workers don't see the terminal's signals. All four may be
    /// called from any thread.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 3);
    /// pool.stop();
    /// // The call has ended: it was running already, or was cancelled.
    /// let _ = pending.wait();
    /// pool.join()?;
    /// # Ok(()) }
    /// ```
    pub fn stop(&self) {
        if self.shared.is_copied() {
            return;
        }
        let now = self.shared.now();
        self.shared
            .act(|state| state.jobs.stop(now, "the pool was stopped before it began"));
        self.shared.milestone();
    }

    /// Stops the workers that run calls (SIGSTOP), and starts nothing, until
    /// [`resume`](Self::resume). The time does not count for deadlines.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// pool.pause();
    /// // … the machine has something better to do
    /// pool.resume();
    /// # Ok(()) }
    /// ```
    pub fn pause(&self) {
        if self.shared.is_copied() {
            return;
        }
        let now = self.shared.now();
        self.shared.act(|state| state.jobs.pause(now));
        // This program may be stopped a moment later, and other machines have to hear of it before.
        self.shared.wait_until(Some(TO_TELL), |state| {
            !state.machines.is_attended || state.machines.has_told
        });
    }

    /// Goes on after a [`pause`](Self::pause).
    ///
    /// See [`pause`](Self::pause) for an example.
    pub fn resume(&self) {
        if self.shared.is_copied() {
            return;
        }
        let now = self.shared.now();
        self.shared.act(|state| state.jobs.resume(now));
    }

    /// Ends the pool now: calls that wait are cancelled, workers get SIGTERM and, after the grace,
    /// SIGKILL, with all that they have started. Returns when they are gone.
    ///
    /// It may be called, and the pool be dropped, by a waker. If the host's stdout takes nothing, it waits a
    /// second for it; what calls printed that nobody waits for is then written when stdout takes it.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 7);
    /// pool.terminate();
    /// println!("{:?}", pending.wait());
    /// # Ok(()) }
    /// ```
    pub fn terminate(&self) {
        if self.shared.is_copied() {
            return;
        }
        let now = self.shared.now();
        self.shared.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            jobs.terminate(now, "the pool was terminated", &sight);
        });
        self.wait_for_end(None);
    }

    pub(crate) fn shared(&self) -> &Arc<PoolShared> {
        &self.shared
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.shared.is_copied() {
            // The threads are not here.
            let threads = self
                .threads
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            return std::mem::forget(std::mem::take(threads));
        }
        self.terminate();
    }
}
