//! How settings become a pool.

use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use protocol::black_box;

use super::available::{available_workers, most_workers};
use super::builder::Builder;
use super::pool::Pool;
#[cfg(feature = "agents")]
use crate::agents::{Wanted, desk};
use crate::engine::config::Config;
use crate::engine::shared::PoolShared;
use crate::engine::{slot_thread, supervisor};
use crate::error::PoolError;
use crate::os::{self, Janitor};
use crate::scheduler::{RestartLimit, Scheduler, SlotId};
use crate::workers::board::PoolBoard;
use crate::workers::launch::Launcher;
use crate::workers::program;

/// How large a worker's lane is where addresses are scarce (`ulimit -v`), in bytes.
const SHORT_LANE: usize = 256 << 10;
/// How much of a scarce address space is left to the host and the pool's other threads, in bytes.
const RESERVE: usize = 16 << 20;
/// What a thread takes besides its stack, in bytes: the pages around it, and a stack for signals.
const THREAD: usize = 64 << 10;

/// The stacks of the pool's threads, in bytes: nothing runs there that needs much, and there may be hundreds.
const STACK: usize = 256 << 10;

impl Builder {
    /// Starts the workers. Returns when the first is ready.
    ///
    /// # Errors
    ///
    /// There is no worker executable, no worker could be started, its initializer failed, or a
    /// setting makes no sense.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().workers(2).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn build(self) -> Result<Pool, PoolError> {
        let pool = self.build_now()?;
        pool.wait_for_worker()?;
        Ok(pool)
    }

    /// Whether a pool of so many workers can be, with these settings.
    fn check(&self, slots: usize) -> Result<(), PoolError> {
        let most = most_workers();
        #[cfg(feature = "agents")]
        let has_agents = self.agents.is_some();
        #[cfg(not(feature = "agents"))]
        let has_agents = false;
        let wrong = if slots == 0 && !has_agents {
            "a pool of 0 workers runs nothing: use 1 or more".to_owned()
        } else if slots > 0 && most == 0 {
            "a worker needs more open files than this process may have: raise the limit (ulimit -n)"
                .to_owned()
        } else if slots > most {
            format!(
                "{slots} workers need more open files than this process may have: use {most} or fewer, or raise \
                 the limit (ulimit -n)"
            )
        } else if self.recycle_after == Some(0) {
            "recycle_after(0) would leave no worker a call: use 1 or more".to_owned()
        } else if self.recycle_above == Some(0) || self.limits.memory == Some(0) {
            "no worker can live in 0 bytes of memory: use as many as a call needs".to_owned()
        } else if self.restart_limit.count == 0 {
            "restart_limit(0, …) would allow no failure at all: use 1 or more".to_owned()
        } else {
            return Ok(());
        };
        Err(PoolError::Setting(wrong))
    }

    /// As [`build`](Self::build), but returns at once, without waiting for a worker. A program that handles Ctrl-C
    /// needs this, so that it can end a pool whose workers never get ready. If none does, calls, [`Pool::tasks`] and
    /// [`Pool::join`] end with the reason.
    ///
    /// # Errors
    ///
    /// There is no worker executable, or a setting makes no sense.
    ///
    /// ```no_run
    /// # use coordinator::Pool;
    /// let pool = Pool::builder().build_now()?;
    /// // … here a signal handler may learn of the pool, and end it while its workers start
    /// pool.tasks()?; // waits for the first worker
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn build_now(self) -> Result<Pool, PoolError> {
        let slots = self.workers.unwrap_or_else(available_workers);
        self.check(slots)?;
        #[cfg(feature = "agents")]
        let wanted = self.wanted()?;
        let initializer = self.initializer.transpose().map_err(|why| {
            PoolError::Initializer(format!("has an input that can't be encoded: {why}"))
        })?;
        let program = program::find(self.program.as_deref())?;
        log::debug!("{slots} workers of {}", program.path.display());
        let build = match program.is_this {
            true => OnceLock::from(worker::private::image::build()),
            false => OnceLock::new(),
        };
        let by_hand = self.manual.is_some();
        let shared = SharedMemory::for_slots(slots, by_hand)?;
        let launcher = Launcher {
            program,
            surroundings: self.surroundings.now(),
            build,
            output: self.output,
            manual: self.manual,
            janitor: Janitor::default(),
            box_size: shared.box_size,
            board: shared.board,
        };
        let config = Config {
            launcher,
            slots,
            processors: os::processors(),
            limits: self.limits,
            initializer,
            recycle_after: self.recycle_after,
            recycle_above: self.recycle_above,
            warm_copies: self.warm_copies && !by_hand,
            single: self.single,
        };
        let pool = Pool::start(config, self.restart_limit)?;
        #[cfg(feature = "agents")]
        if let Some(wanted) = wanted {
            pool.attend(wanted)?;
        }
        Ok(pool)
    }

    /// What there is to know of the agents of this pool.
    #[cfg(feature = "agents")]
    fn wanted(&self) -> Result<Option<Wanted>, PoolError> {
        let Some(agents) = &self.agents else {
            return Ok(None);
        };
        if self.manual.is_some() {
            let why = "workers that are started by hand are on this machine: leave out either those or the agents";
            return Err(PoolError::Setting(why.to_owned()));
        }
        Wanted::new(agents, self.lease, self.limits.grace).map(Some)
    }
}

impl Pool {
    /// Waits for the first worker, unless workers are started by hand.
    fn wait_for_worker(&self) -> Result<(), PoolError> {
        if self.shared.config.launcher.manual.is_some() {
            return Ok(());
        }
        self.shared.wait_until(None, |state| {
            state.counts.started > 0 || state.failure.is_some() || !state.machines.agents.is_empty()
        });
        match self.shared.state().failure.clone() {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// Starts the threads.
    fn start(config: Config, restart_limit: RestartLimit) -> Result<Pool, PoolError> {
        let slots = config.slots;
        let jobs = Scheduler::new(slots, config.processors, restart_limit);
        let refused = |what: &str, error: std::io::Error| {
            PoolError::System(format!("the pool could not be made: {what}: {error}"))
        };
        let shared = PoolShared::new(config, jobs).map_err(|error| refused("a pipe", error))?;
        let shared = Arc::new(shared);
        let pool = Pool {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
        };
        let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name);
            thread.stack_size(STACK).spawn(body)
        };
        for number in 0..slots {
            let theirs = Arc::clone(&shared);
            let body = Box::new(move || slot_thread::run(&theirs, SlotId(number)));
            match spawn(format!("slot {}", number + 1), body) {
                Ok(thread) => pool.threads().push(thread),
                Err(error) => {
                    // The slots that have no thread can't leave by themselves.
                    shared.state().slots_left -= slots - number;
                    return Err(refused("a thread", error));
                }
            }
        }
        let theirs = Arc::clone(&shared);
        let thread = spawn(
            "supervisor".to_owned(),
            Box::new(move || supervisor::run(&theirs)),
        );
        pool.threads()
            .push(thread.map_err(|error| refused("a thread", error))?);
        Ok(pool)
    }

    /// Has a thread speak to agents.
    #[cfg(feature = "agents")]
    fn attend(&self, wanted: Wanted) -> Result<(), PoolError> {
        let (bell, events) = desk::bell();
        let rings = bell.clone();
        self.shared.act(|state| {
            state.machines.attend(move || rings.ring());
        });
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("agents".to_owned());
        let thread = thread.spawn(move || desk::run(&shared, wanted, &bell, events));
        match thread {
            Ok(thread) => {
                self.threads().push(thread);
                Ok(())
            }
            Err(error) => {
                self.shared.state().machines.is_attended = false;
                Err(PoolError::System(format!(
                    "the pool could not be made: a thread: {error}"
                )))
            }
        }
    }
}

/// The memory that a pool shares with its workers.
struct SharedMemory {
    /// The size of each worker's black box, in bytes.
    box_size: usize,
    board: Option<PoolBoard>,
}

impl SharedMemory {
    /// Plans the memory for a pool with this many workers. Much of it is rarely used, so where addresses are scarce
    /// (`ulimit -v`), the boxes get a short lane, and there is no board.
    fn for_slots(slots: usize, by_hand: bool) -> Result<Self, PoolError> {
        let Some(left) = os::address_space_left() else {
            // Nobody knows when a worker that was started by hand is dead, and has stopped reading the board.
            let board = (!by_hand).then(|| PoolBoard::new(slots)).transpose();
            return Ok(SharedMemory {
                box_size: black_box::SIZE,
                board: board.unwrap_or_else(|error| {
                    log::debug!("there is no board for large inputs: {error}");
                    None
                }),
            });
        };
        let box_size = black_box::LEAST_SIZE + SHORT_LANE;
        let most = left.saturating_sub(RESERVE) / (STACK + THREAD + box_size);
        if slots > most {
            return Err(PoolError::Setting(format!(
                "{slots} workers need more memory than this process may map: use {} or fewer, or raise the limit \
                 (ulimit -v)",
                most.max(1)
            )));
        }
        os::use_few_arenas();
        Ok(SharedMemory {
            box_size,
            board: None,
        })
    }
}
