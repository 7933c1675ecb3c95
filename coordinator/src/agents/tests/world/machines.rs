//! The machines of a play: an agent's process on each, with its calls, its clock, and its deaths.

use super::*;
use crate::agents::member::Told;

/// A call that an agent runs.
#[derive(Debug)]
pub(super) struct Run {
    lease: u64,
    index: u64,
    attempt: u32,
    began: Duration,
    ends: Duration,
    /// It is being killed, and will not end by itself.
    dying: bool,
    /// It is stopped, and would take so long yet.
    left: Option<Duration>,
}

/// An agent's process.
pub(super) struct Agent {
    pub(super) member: Member,
    pub(super) epoch: u64,
    pub(super) slots: u32,
    /// How fast its clock runs, in millionths, and what it shows more.
    pub(super) pace: u64,
    pub(super) offset: Duration,
    pub(super) grace: Duration,
    pub(super) queue: VecDeque<(u64, u64, u32)>,
    pub(super) runs: Vec<Run>,
    /// It is dead until then; for ever, if this is the end of time.
    pub(super) dead_until: Option<Duration>,
    /// It is stopped until then. Its workers are not.
    pub(super) stopped_until: Duration,
    pub(super) ending: bool,
    /// Its workers are stopped.
    pub(super) paused: bool,
    /// When it looks again.
    pub(super) tick_at: Duration,
}

impl Agent {
    pub(super) fn clock(&self, now: Duration) -> Duration {
        scaled(now, self.pace) + self.offset
    }
}

pub(super) fn scaled(time: Duration, millionths: u64) -> Duration {
    let nanos = time.as_nanos() * u128::from(millionths) / 1_000_000;
    Duration::from_nanos(u64::try_from(nanos).unwrap())
}

impl World {
    pub(super) fn tick(&mut self, agent: usize) -> Result<(), String> {
        let a = &self.agents[agent];
        if a.dead_until.is_some() || a.tick_at > self.now {
            return Ok(());
        }
        let clock = a.clock(self.now);
        let named = self.named(agent);
        let deeds = self.agents[agent].member.tick(clock, named);
        self.agent_does(agent, deeds)?;
        self.agents[agent].tick_at = Duration::MAX;
        self.set_timer(agent);
        Ok(())
    }

    /// An agent will look again when it has something to do.
    pub(super) fn set_timer(&mut self, agent: usize) {
        let a = &mut self.agents[agent];
        let left = a.member.next_tick().saturating_sub(a.clock(self.now));
        let left = Duration::from_secs_f64(left.as_secs_f64() * 1e6 / a.pace as f64);
        let at = self.now + left.max(Duration::from_millis(1)) + Duration::from_micros(10);
        if at < a.tick_at {
            a.tick_at = at;
            self.at(at, Event::Tick(agent));
        }
    }

    pub(super) fn named(&self, agent: usize) -> Vec<Named> {
        let long = self.agents[agent]
            .runs
            .iter()
            .filter(|run| self.now >= run.began + NAMED);
        long.map(|run| Named {
            lease: run.lease,
            index: run.index,
            slot: 1,
            worker: 1,
            nanos: 0,
        })
        .collect()
    }

    pub(super) fn agent_does(
        &mut self,
        agent: usize,
        deeds: Vec<member::Deed>,
    ) -> Result<(), String> {
        for deed in deeds {
            match deed {
                member::Deed::Send(up) => {
                    for at in self.weather.arrivals(agent, self.now, &mut self.dice) {
                        self.at(at, Event::Up(agent, up.clone()));
                    }
                }
                member::Deed::Run(lease) => {
                    let calls = lease.first..lease.first + lease.lens.count();
                    let calls = calls.map(|index| (lease.number, index, lease.attempt));
                    self.agents[agent].queue.extend(calls);
                    self.start(agent)?;
                }
                member::Deed::Pause(is_paused) => self.pauses(agent, is_paused)?,
                member::Deed::Refused(_) => {}
                member::Deed::Recall { lease, from, .. } => self.gives_back(agent, lease, from)?,
                member::Deed::EndAll => {
                    let now = self.now;
                    let a = &mut self.agents[agent];
                    a.queue.clear();
                    a.ending = true;
                    a.paused = false;
                    // Its grace is by its own clock.
                    let grace =
                        Duration::from_secs_f64(a.grace.as_secs_f64() * 1e6 / a.pace as f64);
                    for run in a.runs.iter_mut().filter(|run| !run.dying && run.ends > now) {
                        run.dying = true;
                        run.left = None;
                        let takes = match self.dice.one_in(2) {
                            true => grace,
                            false => self.dice.millis(grace.as_millis() as u64),
                        };
                        run.ends = now + takes;
                    }
                    let ends: Vec<Duration> = a.runs.iter().map(|run| run.ends).collect();
                    ends.into_iter()
                        .chain([now])
                        .for_each(|at| self.at(at, Event::Ends(agent)));
                }
            }
        }
        Ok(())
    }

    /// Begins calls, as many as there is room for.
    pub(super) fn start(&mut self, agent: usize) -> Result<(), String> {
        while self.agents[agent].runs.len() < self.agents[agent].slots as usize
            && !self.agents[agent].paused
        {
            let Some((lease, index, attempt)) = self.agents[agent].queue.pop_front() else {
                return Ok(());
            };
            if let Some(other) = self.running.insert(index, agent) {
                return Err(format!(
                    "{:?}: call {index} runs at {other} and at {agent}",
                    self.now
                ));
            }
            self.begun.insert(index);
            let takes = match self.dice.number(4) {
                0 => self.dice.millis(5),
                1 | 2 => self.dice.millis(300),
                _ => self.dice.millis(8000),
            };
            let run = Run {
                lease,
                index,
                attempt,
                began: self.now,
                ends: self.now + takes,
                dying: false,
                left: None,
            };
            self.at(run.ends, Event::Ends(agent));
            if takes > NAMED {
                self.at(self.now + NAMED, Event::Name(agent));
            }
            self.agents[agent].runs.push(run);
        }
        Ok(())
    }

    /// Calls of an agent have ended, by themselves or because they were killed.
    pub(super) fn ends(&mut self, agent: usize) -> Result<(), String> {
        let now = self.now;
        while let Some(at) = self.agents[agent]
            .runs
            .iter()
            .position(|run| run.ends <= now)
        {
            let run = self.agents[agent].runs.swap_remove(at);
            if self.running.get(&run.index) == Some(&agent) {
                self.running.remove(&run.index);
            }
            if run.dying || self.agents[agent].dead_until.is_some() {
                continue;
            }
            self.finished.insert((run.index, run.attempt));
            let what = match fails(run.index) {
                true => What::Ended {
                    index: run.index,
                    ending: Ending::Failed("no".to_owned()),
                    nanos: 0,
                    slot: 1,
                    worker: 1,
                    stdout: 0,
                    stderr: 0,
                    note: None,
                },
                false => {
                    let mut one = Runs::default();
                    one.push(1);
                    What::Values(vec![Values {
                        first: run.index,
                        lens: one.clone(),
                        nanos: one,
                        slot: 1,
                        worker: 1,
                    }])
                }
            };
            let deed = self.agents[agent]
                .member
                .ended(run.lease, 1, what, Told::default());
            self.agent_does(agent, deed.into_iter().collect())?;
        }
        if self.agents[agent].ending && self.agents[agent].runs.is_empty() {
            self.agents[agent].ending = false;
            let clock = self.agents[agent].clock(now);
            let deeds = self.agents[agent].member.all_dead(clock);
            self.agent_does(agent, deeds)?;
        }
        self.start(agent)
    }

    pub(super) fn gives_back(&mut self, agent: usize, lease: u64, from: u64) -> Result<(), String> {
        let back = |(of, index, _): &(u64, u64, u32)| *of == lease && *index >= from;
        let queue = &mut self.agents[agent].queue;
        let indices: BTreeSet<u64> = queue
            .iter()
            .filter(|call| back(call))
            .map(|(_, index, _)| *index)
            .collect();
        queue.retain(|call| !back(call));
        let calls = match (indices.first(), indices.last()) {
            (Some(first), Some(last)) => *first..*last + 1,
            _ => from..from,
        };
        let deed = self.agents[agent].member.returned(lease, calls);
        self.agent_does(agent, deed.into_iter().collect())
    }

    /// An agent stops its workers, or lets them go on. What is being killed dies all the same.
    fn pauses(&mut self, agent: usize, is_paused: bool) -> Result<(), String> {
        let now = self.now;
        let a = &mut self.agents[agent];
        a.paused = is_paused;
        let mut ends = Vec::new();
        for run in a.runs.iter_mut().filter(|run| !run.dying) {
            match (is_paused, run.left) {
                (true, None) if run.ends > now => {
                    run.left = Some(run.ends - now);
                    run.ends = Duration::MAX;
                }
                (false, Some(left)) => {
                    run.left = None;
                    run.ends = now + left;
                    ends.push(run.ends);
                }
                _ => {}
            }
        }
        for at in ends {
            self.at(at, Event::Ends(agent));
        }
        self.start(agent)
    }

    /// An agent hears what its coordinator tells all.
    pub(super) fn hears_all(&mut self, agent: usize, all: All) -> Result<(), String> {
        if self.agents[agent].dead_until.is_some() {
            return Ok(());
        }
        let member = &mut self.agents[agent].member;
        let deed = match all {
            All::Pause { patience, turns } => member.pause(Duration::from_nanos(patience), turns),
            All::Resume { turns } => member.resume(turns),
            All::End => None,
        };
        self.agent_does(agent, deed.into_iter().collect())?;
        self.set_fuse(agent);
        self.set_timer(agent);
        Ok(())
    }

    /// An agent is killed, and its calls with it. Most come back.
    pub(super) fn dies(&mut self, agent: usize) {
        if self.agents[agent].dead_until.is_some() {
            return;
        }
        let lives_on = self.agents[agent].member.broken == Some(Broken::NoLock);
        for run in std::mem::take(&mut self.agents[agent].runs) {
            // Without the lock, nobody waits for the former process.
            if !lives_on || run.ends <= self.now {
                self.running.remove(&run.index);
            }
        }
        let comes_back = agent == 0 || !self.dice.one_in(4);
        let a = &mut self.agents[agent];
        a.stopped_until = Duration::ZERO;
        a.queue.clear();
        a.ending = false;
        a.paused = false;
        a.dead_until = Some(Duration::MAX);
        if comes_back {
            let at = self.now + self.dice.millis(3 * LEASE.as_millis() as u64);
            self.agents[agent].dead_until = Some(at);
            self.at(at, Event::Returns(agent));
        }
    }

    /// Its service starts it again. It holds the lock, so its former process is dead.
    pub(super) fn returns(&mut self, agent: usize) -> Result<(), String> {
        let now = self.now;
        let a = &mut self.agents[agent];
        // More than any life that the former process can have begun.
        a.epoch += 1000;
        a.dead_until = None;
        let broken = a.member.broken;
        a.member = Member::new(about(a.slots), a.epoch, LEASE, a.grace, a.clock(now));
        a.member.broken = broken;
        a.tick_at = now;
        self.tick(agent)
    }

    /// Calls of a stopped agent end all the same: nobody reads what they say.
    pub(super) fn end_unseen(&mut self, agent: usize) {
        let now = self.now;
        let ended = self.agents[agent].runs.iter().filter(|run| run.ends <= now);
        for index in ended.map(|run| run.index).collect::<Vec<_>>() {
            if self.running.get(&index) == Some(&agent) {
                self.running.remove(&index);
            }
        }
    }

    pub(super) fn set_fuse(&mut self, agent: usize) {
        let a = &self.agents[agent];
        if let Some(fuse) = a.member.fuse() {
            let left = fuse.saturating_sub(a.clock(self.now));
            let left = Duration::from_secs_f64(left.as_secs_f64() * 1e6 / a.pace as f64)
                + Duration::from_micros(10);
            self.at(
                self.now + left + Duration::from_micros(1),
                Event::Fuse(agent),
            );
        }
    }

    /// The kernel's timer: it kills an agent whose time is over. That must not come to one that was not stopped, or its calls
    /// would not have their grace.
    pub(super) fn burns(&mut self, agent: usize) -> Result<(), String> {
        let a = &self.agents[agent];
        let is_over = a
            .member
            .fuse()
            .is_some_and(|fuse| fuse <= a.clock(self.now));
        if is_over && a.dead_until.is_none() && a.member.broken != Some(Broken::NoFuse) {
            if a.stopped_until + LEASE < self.now {
                return Err(format!(
                    "{:?}: the timer killed agent {agent}, which was awake",
                    self.now
                ));
            }
            self.dies(agent);
        }
        Ok(())
    }
}
