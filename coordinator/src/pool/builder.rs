//! A pool's settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::board::InputSheet;
use protocol::message::Encoding;
use worker::Task;
use worker::private::take_kept;

use super::codec::{Codec, Typed};
use super::pool::Pool;
#[cfg(feature = "agents")]
use crate::agents::Agents;
use crate::engine::config::Initializer;
use crate::error::PoolError;
use crate::payload::printed::Output;
use crate::payload::{Job, Place};
use crate::scheduler::{Limits, RestartLimit};
use crate::workers::by_hand::{ByHand, Manual};
use crate::workers::launch::Surroundings;

/// The settings of a pool; made by [`Pool::builder`].
///
/// ```standalone_crate
/// # coordinator::enable_in_tests!();
/// # use coordinator::{Pool, task};
/// # #[task] fn square(x: i64) -> i64 { x * x }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let pool = Pool::builder()
///     .workers(2)
///     .timeout(Duration::from_secs(30))   // a call that hangs
///     .retries(1)                         // a call that fails now and then
///     .memory_limit(500 << 20)            // a call that eats all memory
///     .recycle_after(1000)                // a task that leaks
///     .build()?;
/// assert_eq!(pool.call(square, 7)?, 49);
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder {
    pub(super) workers: Option<usize>,
    pub(super) program: Option<PathBuf>,
    pub(super) output: Output,
    pub(super) manual: Option<Manual>,
    pub(super) limits: Limits,
    pub(super) initializer: Option<Result<Initializer, String>>,
    pub(super) recycle_after: Option<u64>,
    pub(super) recycle_above: Option<u64>,
    pub(super) warm_copies: bool,
    pub(super) restart_limit: RestartLimit,
    pub(super) single: Option<Duration>,
    #[cfg(feature = "agents")]
    pub(super) agents: Option<Agents>,
    #[cfg(feature = "agents")]
    pub(super) lease: Option<Duration>,
    pub(super) surroundings: Surroundings,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            workers: None,
            program: None,
            output: Output::default(),
            manual: None,
            limits: Limits::default(),
            initializer: None,
            recycle_after: None,
            recycle_above: None,
            warm_copies: false,
            restart_limit: RestartLimit {
                count: 3,
                per: Duration::from_secs(10),
            },
            single: None,
            #[cfg(feature = "agents")]
            agents: None,
            #[cfg(feature = "agents")]
            lease: None,
            surroundings: Surroundings::default(),
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `workers` processes.
    ///
    /// # Errors
    ///
    /// There is no worker executable, or it could not be started; `workers` is 0.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(4)?;
    /// assert_eq!(pool.map(square, 1..=4)?, [1, 4, 9, 16]);
    /// # Ok(()) }
    /// ```
    pub fn new(workers: usize) -> Result<Pool, PoolError> {
        Pool::builder().workers(workers).build()
    }

    /// A pool with other settings than the usual.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().workers(4).retries(1).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// How many workers. Default: [`available_workers`](crate::available_workers).
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().workers(8).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The worker's executable. Without it the pool takes what `COORDINATOR_WORKER` names, this same
    /// executable if it called `coordinator::init()`, or `worker` beside it.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().worker("./my-worker").build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn worker(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// What becomes of what the tasks print. Default: [`Output::Forward`].
    ///
    /// ```no_run
    /// # use coordinator::{Output, Pool};
    /// let pool = Pool::builder().output(Output::Capture).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Runs a task in each worker before its first call. If it fails, the pool ends, saying why.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// #[task]
    /// fn load(model: String) -> Result<(), std::io::Error> {
    ///     let bytes = std::fs::read(model)?; // … and keep them in a static
    ///     # drop(bytes);
    ///     Ok(())
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder().initializer(load, "model.bin".to_owned()).build()?;
    /// # Ok(()) }
    /// ```
    pub fn initializer<T: Task>(mut self, _task: T, input: T::Input) -> Self {
        let codec = Typed::<T>::new();
        let mut encoded = Vec::new();
        let sheet = &mut InputSheet::new(&mut encoded, None);
        let outcome = codec.encode(input, sheet);
        let mut kept = Vec::new();
        take_kept(|each| kept.push(each));
        self.initializer = Some(outcome.map(|()| {
            let job = Job {
                task: worker::private::name_of::<T>().into(),
                types: Some(T::TYPES.to_owned()),
                encoding: Encoding::Postcard,
                place: Place::default(),
            };
            Initializer {
                job,
                input: encoded,
                kept,
            }
        }));
        self
    }

    /// Replaces each worker after this many calls: for tasks that leak.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().recycle_after(1000).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn recycle_after(mut self, calls: u64) -> Self {
        self.recycle_after = Some(calls);
        self
    }

    /// Replaces a worker that has more than this many bytes of memory after a call: for tasks that leak
    /// a little, now and then. Counted as for [`memory_limit`](Self::memory_limit).
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().recycle_above(500 << 20).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn recycle_above(mut self, bytes: u64) -> Self {
        self.recycle_above = Some(bytes);
        self
    }

    /// Copies workers from one that has run the [`initializer`](Self::initializer), instead of starting each as a new
    /// process. Off by default.
    ///
    /// The first worker runs the initializer and becomes the *template*: it is given no calls, and a worker is a fork of
    /// it. So the initializer runs once, however many workers there are and however often they are replaced. A
    /// worker is there within milliseconds, and shares the memory that the initializer has filled until one of them
    /// writes to it. With [`recycle_after(1)`](Self::recycle_after) each call has a process of its own, which begins
    /// with the initializer's state.
    ///
    /// ```standalone_crate
    /// # coordinator::enable_in_tests!();
    /// use std::sync::OnceLock;
    /// use coordinator::{Pool, task};
    ///
    /// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
    ///
    /// #[task]
    /// fn load(size: u64) {
    ///     TABLE.get_or_init(|| (0..size).map(|n| n * n).collect()); // takes its time, once
    /// }
    ///
    /// #[task]
    /// fn look_up(n: usize) -> Option<u64> {
    ///     TABLE.get()?.get(n).copied()
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder()
    ///     .workers(2)
    ///     .initializer(load, 1000)
    ///     .warm_copies(true)
    ///     .recycle_after(1) // a fresh process for each call
    ///     .build()?;
    /// assert_eq!(pool.map(look_up, [3, 4, 5])?, [Some(9), Some(16), Some(25)]);
    /// # Ok(()) }
    /// ```
    ///
    /// A process that has a second thread can't be copied: if the initializer leaves one running, a line in the log
    /// (level `warn`) says so, and all workers start as without this. If the template dies, the next worker is started anew
    /// and becomes the template. Workers by hand and workers that share no memory are never copied.
    ///
    /// Copies have in common what forked processes have: open files with their positions, connections, and the state of
    /// random number generators that the initializer has used. Handlers of `pthread_atfork` do not run. The guide's page on
    /// limits says more.
    pub fn warm_copies(mut self, on: bool) -> Self {
        self.warm_copies = on;
        self
    }

    /// How long a call may run, from the moment it starts. At the limit its worker gets SIGTERM, after
    /// the [`grace`](Self::grace) SIGKILL, with all that it has started; the call ends as
    /// [`Why::TimedOut`](crate::Why::TimedOut). Default: no limit. Time for which the pool is
    /// [paused](Pool::pause), or this whole program stopped, does not count.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// use std::time::Duration;
    /// let pool = Pool::builder().timeout(Duration::from_secs(30)).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = Some(limit);
        self
    }

    /// How long a worker that is being stopped has between SIGTERM and SIGKILL. Default: 1 s.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// use std::time::Duration;
    /// let pool = Pool::builder().timeout(Duration::from_secs(30)).grace(Duration::from_secs(5)).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace;
        self
    }

    /// How often a call that did not succeed is tried again. Default: never, because a call may
    /// have had effects.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().retries(2).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn retries(mut self, retries: u32) -> Self {
        self.limits.retries = retries;
        self
    }

    /// How long to wait before a call is tried again, at first; doubled each time, and stretched by
    /// up to a half. Default: no time.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// use std::time::Duration;
    /// let pool = Pool::builder().retries(2).backoff(Duration::from_millis(100)).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.limits.backoff = backoff;
        self
    }

    /// How much memory a worker may have while it runs a call, in bytes. Beyond it the worker gets
    /// SIGKILL, and the call ends as [`Why::OutOfMemory`](crate::Why::OutOfMemory). Default: no limit.
    ///
    /// What counts is what the worker and the processes it has started have to themselves and really
    /// use: files they read and memory they share do not. A single allocation of more than twice
    /// the limit fails at once; if the worker aborts for it, that counts as out of memory, too, as far as
    /// its stderr is captured to tell. Workers started by hand are not limited.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().memory_limit(500 << 20).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.limits.memory = Some(bytes);
        self
    }

    /// How many workers may fail to start within a time before the pool gives up. Default: 3 in 10 s.
    ///
    /// As long as any worker lives, the pool goes on with those that do, and tries again, less and less often. It gives
    /// up when none is left, so many starts have failed in a row, and have done so for a second (or a tenth of `per`, if
    /// that is less). If the first worker can't be started at all, it gives up at once.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// use std::time::Duration;
    /// let pool = Pool::builder().restart_limit(10, Duration::from_secs(60)).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn restart_limit(mut self, count: u32, per: Duration) -> Self {
        self.restart_limit = RestartLimit { count, per };
        self
    }

    /// Starts no workers, but tells `how` to start each one by hand, and waits for it.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().workers(1).by_hand(|how| {
    ///     let (program, connect) = (how.program.display(), how.connect.display());
    ///     eprintln!("COORDINATOR_TOKEN={} gdb --args {program} --connect {connect}", how.token);
    /// }).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn by_hand(mut self, how: impl Fn(&ByHand) + Send + Sync + 'static) -> Self {
        self.manual = Some(Arc::new(how));
        self
    }

    /// Has machines run calls besides this one; with [`workers(0)`](Self::workers), instead of it.
    ///
    /// Calls run there in the directory of the same name, with the environment of the agent. What a call prints comes with its
    /// outcome. With the feature `agents` only; `docs/many-machines.md` is the guide.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Pool};
    /// let pool = Pool::builder().workers(8).agents(Agents::over_ssh(["box2", "box3:16"])).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    #[cfg(feature = "agents")]
    pub fn agents(mut self, agents: Agents) -> Self {
        self.agents = Some(agents);
        self
    }

    /// How long an agent's machine may be out of sight before its calls are given to others. An agent that is cut off has ended
    /// them by then. Default: 15 s, and at least 10 s more than the [`grace`](Self::grace).
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Pool};
    /// use std::time::Duration;
    /// let agents = Agents::at("tls://hub").key("submit.key");
    /// let pool = Pool::builder().agents(agents).lease(Duration::from_secs(60)).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    #[cfg(feature = "agents")]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Starts workers in this directory, and with these variables besides.
    #[cfg(feature = "agents")]
    pub(crate) fn surroundings(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = surroundings;
        self
    }

    /// An initializer whose input is encoded already.
    #[cfg(feature = "agents")]
    pub(crate) fn encoded_initializer(mut self, initializer: Initializer) -> Self {
        self.initializer = Some(Ok(initializer));
        self
    }

    /// The worker is a process of its own that ends with its call; see [`Config::single`](crate::engine::config::Config::single).
    pub(crate) fn single(mut self, at_least: Duration) -> Self {
        self.single = Some(at_least);
        self
    }
}
