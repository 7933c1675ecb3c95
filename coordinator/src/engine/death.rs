//! A worker's end: how far it has come if it died, and what follows for its calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::link::LinkError;
use protocol::message::ToWorker;

use super::recruit;
use super::seat::Seat;
use super::shared::PoolShared;
use super::state::{Post, Wanted};
use super::stray::StraySource;
use crate::error::{Death, PoolError, Why};
use crate::os::WorkerProcess;
use crate::payload::Trace;
use crate::payload::printed::Printed;
use crate::scheduler::{Idle, Loss, Next, Running};
use crate::workers::talk::LINGER;

/// How long a worker has at least to leave when it is asked to.
pub(super) const TO_LEAVE: Duration = Duration::from_secs(1);

impl Seat {
    /// The worker died while it had nothing to do.
    pub(crate) fn lose_idle(&mut self, shared: &PoolShared, idle: Idle) {
        let death = self.bury(shared);
        log::debug!(
            "slot {}: idle worker {} {death}",
            self.slot.number(),
            self.worker.pid
        );
        let printed = self.last_words();
        if shared.config.single.is_none() {
            let pid = self.worker.pid;
            shared.strayed(StraySource::Exit, self.slot, pid, printed.clone());
        }
        let trace = self.trace(Duration::ZERO, printed);
        let now = shared.now();
        shared.act(|state| {
            state.counts.died += 1;
            if shared.config.single.is_none() {
                return state.jobs.idle_died(idle);
            }
            let (jobs, sight) = state.jobs_and_sight();
            match jobs.next(idle, 1, now, &sight) {
                Next::Run(running, _) => {
                    _ = jobs.died(running, 1, Why::Died(death), trace, now, &sight);
                }
                Next::Wait(idle, _) => {
                    jobs.idle_died(idle);
                    let cause = format!("the process {death} before its function began");
                    jobs.give_up(&cause);
                }
                Next::Leave => {}
            }
        });
    }

    /// The worker died in the middle of a batch, or sent something that makes no sense. This finds out how far it has come;
    /// `Scheduler::died` decides what follows for its calls.
    pub(super) fn lose(
        &mut self,
        shared: &PoolShared,
        running: Running,
        error: &LinkError,
        began: Instant,
    ) {
        let note = self.see_it_dead(error);
        // From here on the black box says which calls began and ended. A worker that was started by hand may still
        // live, so its ticket is closed: it must not begin another call.
        let (started, convicted) = shared.act(|state| {
            let (jobs, sight) = state.jobs_and_sight();
            (jobs.gone(&running, &sight), jobs.why_killed(&running))
        });
        // A message that makes no sense is charged to the call that the worker is running.
        let rubbish = matches!(error, LinkError::Malformed(_));
        let started = if rubbish { started.max(1) } else { started };
        let now = shared.now();
        shared.act(|state| state.collect(self.slot, now));
        let refused = self.worker.process.as_deref();
        let refused = refused.and_then(WorkerProcess::refused);
        let note = note.or(convicted.map(str::to_owned));
        let note = note.or(refused.map(|why| {
            format!("its worker was killed at once, because this program may not signal it: {why}")
        }));
        let death = self.bury(shared);
        let mut trace = self.trace(began.elapsed(), Printed::default());
        trace.printed = self.last_words();
        trace.note = note;
        log::debug!(
            "slot {}: worker {} {death}",
            self.slot.number(),
            self.worker.pid
        );
        let why = self.why_it_died(death, &trace);
        let loss = self.died(shared, running, started, why, trace);
        let by_itself = !matches!(death, Death::Signal(_));
        if loss == Loss::default() && self.answered == 0 && by_itself {
            // It never did anything, and left: that is as bad as a start that failed. One that was killed says nothing of
            // the next.
            let error = PoolError::CannotStart {
                program: shared.config.launcher.program.path.clone(),
                cause: format!("it {death} before its first call"),
            };
            recruit::failed(shared, error);
        }
    }

    /// Waits until the worker is dead, and kills it if it is not about to be. Says so if it was killed.
    fn see_it_dead(&self, error: &LinkError) -> Option<String> {
        let process = self.worker.process.as_deref();
        let note = match (error, process) {
            (LinkError::Malformed(what), _) => {
                let (slot, pid) = (self.slot.number(), self.worker.pid);
                log::warn!("slot {slot}: worker {pid} is killed, because it sent rubbish: {what}");
                self.kill();
                Some(format!("it was killed because it sent rubbish: {what}"))
            }
            (error, Some(process)) if !process.wait(Some(LINGER)) => {
                self.kill();
                let why = match error {
                    LinkError::Closed => "it closed its link".to_owned(),
                    error => error.to_string(),
                };
                Some(format!("it was killed because {why}"))
            }
            _ => None,
        };
        if let Some(process) = process {
            process.wait(None);
        }
        note
    }

    /// Tells the scheduler of the worker's death.
    fn died(
        &self,
        shared: &PoolShared,
        running: Running,
        started: u32,
        why: Why,
        trace: Trace,
    ) -> Loss {
        let started = match shared.config.single {
            // A `Process` has a single call, which ends with its process, begun or not.
            Some(_) => started.max(1),
            None => started,
        };
        let now = shared.now();
        shared.act(|state| {
            state.counts.died += 1;
            // Before it is told of: whoever lets go of the call a moment later forwards what it has printed.
            let wanted = Wanted::unless(state.jobs.is_unwanted(&running, None));
            state.keep_printed(&trace.printed, wanted);
            let (jobs, sight) = state.jobs_and_sight();
            let loss = jobs.died(running, started, why, trace, now, &sight);
            state.posts[self.slot.0].black_box = None;
            state.counts.failed += u64::from(loss.charged);
            loss
        })
    }

    /// Asks the worker to leave, and kills it if it has not left when the grace is over.
    pub(crate) fn dismiss(&mut self, shared: &PoolShared) {
        if let Some(least) = shared.config.single {
            let left = least.saturating_sub(self.ready_since.elapsed());
            shared.wait_until(Some(left), |state| state.hurry);
        }
        let code = i32::from(shared.config.single.is_some() && self.last_failed);
        if let Err(error) = self.worker.link.send(&ToWorker::Exit(code), &[]) {
            // Most workers have left by now.
            let (slot, pid) = (self.slot.number(), self.worker.pid);
            log::debug!("slot {slot}: worker {pid} could not be asked to leave: {error}");
        }
        if let Some(process) = self.worker.process.as_deref()
            && !process.wait(Some(shared.config.limits.grace.max(TO_LEAVE)))
        {
            log::warn!(
                "slot {}: worker {} did not leave when asked to, and is killed",
                self.slot.number(),
                self.worker.pid
            );
            self.kill();
        }
        self.bury(shared);
        let (pid, last) = (self.worker.pid, self.last_words());
        shared.strayed(StraySource::Exit, self.slot, pid, last);
    }

    /// Waits for the worker's death, and clears its post. Its black box stays there until the scheduler knows:
    /// an idle slot that took calls back in between would see none that had been started, and run the one
    /// again that the worker has died of.
    fn bury(&self, shared: &PoolShared) -> Death {
        let reap = |process: &Arc<WorkerProcess>| process.reap();
        // Only the person who started a worker by hand knows how it ended.
        let death = self.worker.process.as_ref().map_or(Death::Exit(0), reap);
        let mut state = shared.state();
        let post = &mut state.posts[self.slot.0];
        *post = Post {
            black_box: post.black_box.take(),
            ..Post::default()
        };
        state.last_death = Some(death);
        drop(state);
        shared.milestone();
        death
    }
}
