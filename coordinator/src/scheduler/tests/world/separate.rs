//! Separate calls in the random world: each is taken, let go or cancelled by itself.

use super::*;

impl World {
    /// The calls of a map that somebody has, and that have ended.
    fn ended_of(&self, map: MapId) -> impl Iterator<Item = u64> {
        let known = &self.maps[&map];
        (0..known.pushed).filter(move |index| {
            let is_held = !known.taken.contains_key(index) && !known.let_go.contains(index);
            is_held && self.jobs.has_ended(map, *index)
        })
    }

    /// The separate calls that have ended and were not taken.
    pub(super) fn ended_separately(&self) -> BTreeSet<(MapId, u64)> {
        let maps = self.maps.iter();
        let maps = maps.filter(|(_, known)| known.separate && !known.forgotten);
        maps.flat_map(|(map, _)| self.ended_of(*map).map(|index| (*map, index)))
            .collect()
    }

    /// A call that somebody has: any of those, by number.
    fn held(&self, n: usize, call: usize) -> Option<(MapId, u64)> {
        let map = self.nth(n).filter(|map| self.maps[map].separate)?;
        let known = &self.maps[&map];
        let is_held =
            |index: &u64| !known.taken.contains_key(index) && !known.let_go.contains(index);
        let held: Vec<u64> = (0..known.pushed).filter(is_held).collect();
        Some((map, *held.get(call % held.len().max(1))?))
    }

    pub(super) fn take_one(&mut self, n: usize, call: usize) {
        if let Some((map, index)) = self.held(n, call) {
            let has_ended = self.jobs.has_ended(map, index);
            let ended = self.jobs.take_one(map, index);
            assert_eq!(has_ended, ended.is_some());
            if let Some(ended) = ended {
                self.has(map, index, ended);
            }
        }
    }

    pub(super) fn let_go(&mut self, n: usize, call: usize) {
        if let Some((map, index)) = self.held(n, call) {
            match self.jobs.let_go(map, index) {
                Some(ended) => self.has(map, index, ended),
                None => _ = self.known(map).let_go.insert(index),
            }
        }
    }

    pub(super) fn cancel_one(&mut self, n: usize, call: usize) {
        if let Some((map, index)) = self.held(n, call) {
            let had_ended = self.jobs.has_ended(map, index);
            self.jobs
                .cancel_one(map, index, self.now, "cancelled", &self.workers);
            if !had_ended {
                self.known(map).cancelled_calls.insert(index);
            }
        }
    }

    /// Takes whatever has ended; whether something had.
    pub(super) fn take_all_separate(&mut self, map: MapId) -> bool {
        let ended: Vec<u64> = self.ended_of(map).collect();
        for index in &ended {
            let ended = self.jobs.take_one(map, *index).unwrap();
            self.has(map, *index, ended);
        }
        !ended.is_empty()
    }

    fn has(&mut self, map: MapId, index: u64, ended: Ended<u32>) {
        let known = self.known(map);
        assert!(ended.attempts <= known.retries + 1, "too many attempts");
        let before = known.taken.insert(index, ended);
        assert!(before.is_none(), "ended twice");
    }

    /// A map of separate calls has been played out.
    pub(super) fn check_separate(&self, map: MapId) {
        let known = &self.maps[&map];
        let all = known.taken.len() + known.let_go.len();
        assert_eq!(all as u64, known.pushed, "a call without an end");
        assert!(self.jobs.is_unused(map), "something of it is kept");
        let is_over = matches!(self.jobs.phase, Phase::Over(_));
        for (index, ended) in &known.taken {
            let is_cancelled = ended.result == Err(Why::Cancelled);
            let may_be = known.cancelled || is_over || known.cancelled_calls.contains(index);
            assert!(may_be || !is_cancelled, "another's cancelling ended it");
            if known.cancelled_calls.contains(index) {
                let has_run = known.begun.contains_key(index) || known.unbegun > 0;
                assert!(is_cancelled || has_run, "it was cancelled before it ran");
            }
        }
    }
}
