//! A pool's settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::message::Encoding;
use worker::Task;

use super::Pool;
use super::codec::{Codec, Typed};
use crate::error::PoolError;
use crate::launch::{self, ByHand, Launcher, Manual};
use crate::output::Output;
use crate::scheduler::RestartLimit;
use crate::shared::{Config, Initializer, Job};

/// How long a worker has between SIGTERM and SIGKILL, unless the builder says otherwise.
const GRACE: Duration = Duration::from_secs(1);

/// The settings of a pool; made by [`Pool::builder`].
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder {
    workers: Option<usize>,
    program: Option<PathBuf>,
    output: Output,
    manual: Option<Manual>,
    grace: Duration,
    initializer: Option<Result<Initializer, String>>,
    recycle_after: Option<u64>,
    restart_limit: RestartLimit,
    single: Option<Duration>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            workers: None,
            program: None,
            output: Output::default(),
            manual: None,
            grace: GRACE,
            initializer: None,
            recycle_after: None,
            restart_limit: RestartLimit {
                count: 3,
                per: Duration::from_secs(10),
            },
            single: None,
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

impl Builder {
    /// How many workers. Default: [`available_workers`](crate::available_workers).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The worker's executable. Without it the pool takes what `COORDINATOR_WORKER` names, this same
    /// executable if it called `worker::init()`, or `worker` beside it.
    pub fn worker(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// What becomes of what the tasks print. Default: [`Output::Forward`].
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Runs a task in each worker before its first call. If it fails, the pool ends, saying why.
    pub fn initializer<T: Task>(mut self, _task: T, input: T::Input) -> Self {
        let codec = Typed::<T>::new();
        self.initializer = Some(codec.encode(input).map(|input| {
            let job = Job {
                task: T::NAME.to_owned(),
                types: Some(T::TYPES.to_owned()),
                encoding: Encoding::Postcard,
            };
            Initializer { job, input }
        }));
        self
    }

    /// Replaces each worker after this many calls: for tasks that leak.
    pub fn recycle_after(mut self, calls: u64) -> Self {
        self.recycle_after = Some(calls);
        self
    }

    /// How long a worker that is being stopped has between SIGTERM and SIGKILL. Default: 1 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many workers may fail to start within a time before the pool gives up. Default: 3 in 10 s.
    pub fn restart_limit(mut self, count: u32, per: Duration) -> Self {
        self.restart_limit = RestartLimit { count, per };
        self
    }

    /// Starts no workers, but tells `how` to start each one by hand, and waits for it.
    pub fn by_hand(mut self, how: impl Fn(&ByHand) + Send + Sync + 'static) -> Self {
        self.manual = Some(Arc::new(how));
        self
    }

    /// The worker is a process of its own that ends with its call; see [`Config::single`].
    pub(crate) fn single(mut self, at_least: Duration) -> Self {
        self.single = Some(at_least);
        self
    }

    /// Starts the workers. Returns when the first is ready.
    ///
    /// # Errors
    ///
    /// There is no worker executable, no worker could be started, its initializer failed, or a
    /// setting makes no sense.
    pub fn build(self) -> Result<Pool, PoolError> {
        let setting = |why: &str| Err(PoolError::Setting(why.to_owned()));
        let slots = self.workers.unwrap_or_else(crate::available_workers);
        if slots == 0 {
            return setting("a pool of 0 workers runs nothing: use 1 or more");
        }
        if self.recycle_after == Some(0) {
            return setting("recycle_after(0) would leave no worker a call: use 1 or more");
        }
        if self.restart_limit.count == 0 {
            return setting("restart_limit(0, …) would allow no failure at all: use 1 or more");
        }
        let initializer = self.initializer.transpose().map_err(|why| {
            PoolError::Initializer(format!("has an input that can't be encoded: {why}"))
        })?;
        let program = launch::find_program(self.program.as_deref())?;
        log::debug!("{slots} workers of {}", program.display());
        let launcher = Launcher {
            program,
            output: self.output,
            manual: self.manual,
        };
        let config = Config {
            launcher,
            slots,
            grace: self.grace,
            initializer,
            recycle_after: self.recycle_after,
            single: self.single,
        };
        Pool::start(config, self.restart_limit)
    }
}
