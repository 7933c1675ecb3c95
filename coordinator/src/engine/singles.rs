//! Calls that are made one by one. Those of one kind are calls of one map, so that they share batches and a pace; each is known
//! by its place in that map.

use std::any::TypeId;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::watcher::Watcher;
use crate::payload::{EncodedInputs, Job, Trace};
use crate::scheduler::{Limits, MapId, MapSpec, Scheduler};

/// How many maps without calls are kept, each with what it has learnt of its calls.
const KEPT: usize = 16;

/// What calls have in common that share a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// The task's type.
    pub(crate) task: TypeId,
    pub(crate) limits: Limits,
    pub(crate) at_most_once: bool,
}

/// The maps of single calls, and who waits for which call.
#[derive(Debug, Default)]
pub(crate) struct Singles {
    maps: HashMap<Kind, MapId>,
    /// The map that was asked for last: most programs make calls of one kind, or many of one kind at a time.
    last: Option<(Kind, MapId)>,
    /// How many maps there may be before those without calls are looked for.
    most: usize,
    watchers: BTreeMap<(MapId, u64), Arc<Watcher>>,
}

impl Singles {
    /// The map of a kind of calls, if there is one already.
    pub(crate) fn find(&mut self, kind: &Kind) -> Option<MapId> {
        if let Some((last, map)) = &self.last
            && last == kind
        {
            return Some(*map);
        }
        let map = *self.maps.get(kind)?;
        self.last = Some((*kind, map));
        Some(map)
    }

    /// Opens a map for a kind of calls that has none, or says why the pool takes no more calls.
    pub(crate) fn open(
        &mut self,
        jobs: &mut Scheduler<Arc<Job>, EncodedInputs, Trace>,
        kind: Kind,
        spec: MapSpec<Arc<Job>>,
    ) -> Result<MapId, String> {
        if self.maps.len() >= self.most.max(KEPT) {
            self.maps.retain(|_, map| {
                let is_used = !jobs.is_unused(*map);
                if !is_used {
                    jobs.forget(*map);
                }
                is_used
            });
            // So that looking for them costs little for each new map, however many are in use.
            self.most = 2 * self.maps.len();
            self.last = None;
        }
        let map = jobs.open(spec)?;
        self.maps.insert(kind, map);
        Ok(map)
    }

    /// Has a watcher hear when a call ends.
    pub(crate) fn watch(&mut self, map: MapId, index: u64, watcher: &Arc<Watcher>) {
        self.watchers
            .entry((map, index))
            .or_insert_with(|| Arc::clone(watcher));
    }

    /// Nobody waits for a call any more. The caller has the watcher, too, so no code of the host runs here.
    pub(crate) fn unwatch(&mut self, map: MapId, index: u64) {
        self.watchers.remove(&(map, index));
    }

    /// Who waits for some calls.
    pub(super) fn watchers_of(
        &self,
        map: MapId,
        calls: Range<u64>,
    ) -> impl Iterator<Item = &Arc<Watcher>> {
        let calls = (map, calls.start)..(map, calls.end);
        self.watchers.range(calls).map(|(_, watcher)| watcher)
    }
}
