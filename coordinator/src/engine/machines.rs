//! What a pool knows of its agents, and how whoever speaks to them hears that something has changed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::message::TaskInfo;

use super::running::RunningCall;
use crate::scheduler::{AgentEffects, AgentId, LeaseId, Time};

/// How many news are kept until somebody takes them.
const KEPT: usize = 1024;

/// What a pool knows of its agents.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    effects: AgentEffects,
    bell: Option<Bell>,
    /// Somebody speaks to agents, and has not ended.
    pub(crate) is_attended: bool,
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    /// The tasks of their workers.
    pub(crate) tasks: Option<Arc<[TaskInfo]>>,
    /// What they have said that they run.
    pub(crate) running: BTreeMap<AgentId, Vec<RemoteCall>>,
    /// Some agent has not said what became of its calls, and the pool has ended without that.
    pub(crate) has_left: bool,
    /// The agents have heard of the last pause, or of its end.
    pub(crate) has_told: bool,
    news: VecDeque<String>,
}

/// Rung under the pool's lock: it must not wait, nor use the pool.
struct Bell(Box<dyn Fn() + Send>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

/// An agent of a pool: a machine that runs calls of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "agents"),
    allow(unreachable_pub, reason = "only agents need it")
)]
pub struct Agent {
    /// Its name.
    pub name: Arc<str>,
    /// How many calls it can run at once.
    pub slots: usize,
    /// How many calls it holds and has not ended, at most as many as it has slots.
    pub busy: usize,
    /// For how long it has been part of this pool.
    pub since: Duration,
}

/// A call that an agent has said it runs.
#[derive(Debug)]
pub(crate) struct RemoteCall {
    pub(crate) lease: LeaseId,
    /// When that was said.
    pub(crate) at: Time,
    pub(crate) call: RunningCall,
}

impl Machines {
    /// Somebody attends to agents from now on, and is told of changes in this way.
    pub(crate) fn attend(&mut self, bell: impl Fn() + Send + 'static) {
        self.bell = Some(Bell(Box::new(bell)));
        self.is_attended = true;
    }

    /// Keeps what agents are to be told.
    pub(crate) fn tell(&mut self, effects: AgentEffects) {
        let Some(bell) = self.bell.as_ref().filter(|_| !effects.is_empty()) else {
            return;
        };
        let was_empty = self.effects.is_empty();
        self.has_told &= effects.paused.is_none();
        self.effects.add(effects);
        if was_empty {
            (bell.0)();
        }
    }

    /// Takes what agents are to be told.
    pub(crate) fn take_effects(&mut self) -> AgentEffects {
        std::mem::take(&mut self.effects)
    }

    /// Keeps a line for people.
    pub(crate) fn note(&mut self, news: String) {
        if self.news.len() >= KEPT {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    /// Takes the lines for people.
    pub(crate) fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news).into()
    }
}
