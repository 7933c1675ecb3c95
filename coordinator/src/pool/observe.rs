//! What a pool tells of itself: its counts, its workers, what they run, and what they can run.

use std::sync::Arc;
use std::time::Duration;

use protocol::message::TaskInfo;

use super::pool::Pool;
#[cfg(feature = "agents")]
use crate::engine::machines::Agent;
use crate::engine::running::RunningCall;
use crate::engine::stray::Stray;
use crate::error::PoolError;
use crate::scheduler::SlotId;

/// What a pool has done and is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Workers that got ready, replacements included.
    pub workers_started: u64,
    /// Workers that died without having been asked to.
    pub workers_died: u64,
    /// Attempts that returned a value.
    pub succeeded: u64,
    /// Attempts that did not.
    pub failed: u64,
    /// Workers that run a call now. One whose report can be taken does not count any more.
    pub running: usize,
    /// Calls that wait for a worker, or for their next attempt. Together with `running`, these are all
    /// calls that were made and have not ended: whoever wants to make one only while there are fewer
    /// than so many looks at the sum.
    pub waiting: usize,
}

/// A worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Worker {
    /// The slot it fills, counted from 1.
    pub slot: usize,
    /// Its process id.
    pub pid: u32,
    /// How many calls it has answered for.
    pub calls: u64,
    /// The task and the index of the call it is running, and for how long.
    pub running: Option<(String, u64, Duration)>,
}

/// Where a call that runs has its place in what another coordinator has given.
#[cfg(feature = "agents")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningPlace {
    pub(crate) lease: u64,
    pub(crate) index: u64,
    pub(crate) slot: usize,
    pub(crate) worker: u32,
    pub(crate) elapsed: Duration,
}

impl Pool {
    /// What the pool has done and is doing.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// pool.map(square, 0..100)?;
    /// assert_eq!(pool.stats().succeeded, 100);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.shared().is_copied() {
            return Stats::default();
        }
        let state = self.shared().state();
        let (running, waiting) = state.jobs.load();
        let counts = state.counts;
        Stats {
            workers_started: counts.started,
            workers_died: counts.died,
            succeeded: counts.succeeded,
            failed: counts.failed,
            running,
            waiting,
        }
    }

    /// What each worker that is busy is running now, in the order of the slots. It takes some
    /// microseconds for each, and disturbs none of them: it may be asked many times a second.
    ///
    /// Each call's output is held in its file until it is dropped, with all that is printed behind it.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for call in pool.running() {
    ///     println!("slot {} has been running call {} for {:?}", call.slot, call.index, call.elapsed);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn running(&self) -> Vec<RunningCall> {
        if self.shared().is_copied() {
            return Vec::new();
        }
        self.shared().act(|state| {
            let now = self.shared().now();
            let slots = (0..state.posts.len()).map(SlotId);
            let here: Vec<RunningCall> = slots
                .filter_map(|slot| state.running_on(slot, now))
                .collect();
            let elsewhere = state.machines.running.values().flatten();
            // One that has ended since its agent spoke of it is no longer held by its lease.
            let elsewhere = elsewhere.filter(|remote| {
                let known = state.jobs.leased_call(remote.lease, remote.call.index);
                known.is_some_and(|(_, attempt)| attempt == remote.call.attempt)
            });
            let elsewhere = elsewhere.map(|remote| RunningCall {
                elapsed: remote.call.elapsed + now.saturating_sub(remote.at),
                ..remote.call.clone()
            });
            here.into_iter().chain(elsewhere).collect()
        })
    }

    /// The machines that run calls besides this one, in the order in which they have joined.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Pool};
    /// let pool = Pool::builder().agents(Agents::over_ssh(["box2"])).build()?;
    /// for agent in pool.agents() {
    ///     println!("{} runs {} of {}", agent.name, agent.busy, agent.slots);
    /// }
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    #[cfg(feature = "agents")]
    #[must_use]
    pub fn agents(&self) -> Vec<Agent> {
        if self.shared().is_copied() {
            return Vec::new();
        }
        let state = self.shared().state();
        let now = self.shared().now();
        let agents = state.machines.agents.iter();
        let shown = agents.map(|(id, agent)| Agent {
            busy: (state.jobs.held_by(*id) as usize).min(agent.slots),
            since: now.saturating_sub(agent.since),
            ..agent.clone()
        });
        shown.collect()
    }

    /// Takes what there is to say of agents since the last time, a line for each: that one has joined, has left, is lost, or
    /// can't take part, and why.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Pool};
    /// let pool = Pool::builder().agents(Agents::over_ssh(["box2"])).build()?;
    /// for line in pool.take_agent_news() {
    ///     eprintln!("{line}");
    /// }
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    #[cfg(feature = "agents")]
    #[must_use]
    pub fn take_agent_news(&self) -> Vec<String> {
        if self.shared().is_copied() {
            return Vec::new();
        }
        self.shared().state().machines.take_news()
    }

    /// Whether some agent may still run calls of this pool, which has ended: it has not said in time what became of them. It ends
    /// them by itself when its lease is over.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Pool};
    /// let pool = Pool::builder().agents(Agents::over_ssh(["box2"])).build()?;
    /// pool.terminate();
    /// if pool.has_left_calls() {
    ///     eprintln!("some machine has not answered, and may run calls until its lease is over");
    /// }
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    #[cfg(feature = "agents")]
    #[must_use]
    pub fn has_left_calls(&self) -> bool {
        !self.shared().is_copied() && self.shared().state().machines.has_left
    }

    /// What runs here, without its output: the lease that each call is part of, its place in that, and for how long.
    #[cfg(feature = "agents")]
    pub(crate) fn running_places(&self) -> Vec<RunningPlace> {
        let now = self.shared().now();
        let mut state = self.shared().state();
        let (jobs, sight) = state.jobs_and_sight();
        let posts = sight.posts.iter().enumerate();
        let places = posts.filter_map(|(slot, post)| {
            let call = jobs.running_on(SlotId(slot), &sight)?;
            let place = call.job.place;
            Some(RunningPlace {
                lease: place.lease,
                index: place.first + call.index,
                slot: slot + 1,
                worker: post.pid?,
                elapsed: now.saturating_sub(call.since),
            })
        });
        places.collect()
    }

    /// Why the pool can't work, if it can't.
    #[cfg(feature = "agents")]
    pub(crate) fn failure(&self) -> Option<PoolError> {
        self.shared().state().failure.clone()
    }

    /// Takes what workers have printed outside of calls since the last time: before their first, as an
    /// [initializer](crate::Builder::initializer) does, or after their last. With [`Output::Forward`](crate::Output::Forward)
    /// there is none, because it is forwarded as it comes.
    ///
    /// The last 1,024 are kept.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for stray in pool.take_strays() {
    ///     print!("{}", String::from_utf8_lossy(&stray.stderr.read()?));
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn take_strays(&self) -> Vec<Stray> {
        if self.shared().is_copied() {
            return Vec::new();
        }
        std::mem::take(&mut self.shared().state().strays).into()
    }

    /// The workers that live now.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for worker in pool.workers() {
    ///     println!("process {} has run {} calls", worker.pid, worker.calls);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn workers(&self) -> Vec<Worker> {
        if self.shared().is_copied() {
            return Vec::new();
        }
        let now = self.shared().now();
        let mut state = self.shared().state();
        let (jobs, sight) = state.jobs_and_sight();
        let posts = sight.posts.iter().enumerate();
        posts
            .filter_map(|(slot, post)| {
                let running = jobs.running_on(SlotId(slot), &sight).map(|call| {
                    let elapsed = now.saturating_sub(call.since);
                    (call.job.task.to_string(), call.index, elapsed)
                });
                Some(Worker {
                    slot: slot + 1,
                    pid: post.pid?,
                    calls: post.calls,
                    running,
                })
            })
            .collect()
    }

    /// The tasks that the workers can run. Waits for the first worker.
    ///
    /// # Errors
    ///
    /// No worker could be started, or the pool is [another process's](PoolError::Copied).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for task in pool.tasks()?.iter() {
    ///     println!("{}", task.signature);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn tasks(&self) -> Result<Arc<[TaskInfo]>, PoolError> {
        let shared = self.shared();
        if shared.is_copied() {
            return Err(PoolError::Copied);
        }
        shared.wait_until(None, |state| {
            state.tasks.is_some()
                || state.machines.tasks.is_some()
                || state.failure.is_some()
                || !state.jobs.wants_worker()
        });
        let state = shared.state();
        let tasks = state.tasks.as_ref().or(state.machines.tasks.as_ref());
        match (tasks, &state.failure) {
            (Some(tasks), _) => Ok(Arc::clone(tasks)),
            (None, Some(failure)) => Err(failure.clone()),
            (None, None) => Err(PoolError::System(
                "the pool ended before it had a worker".to_owned(),
            )),
        }
    }
}
