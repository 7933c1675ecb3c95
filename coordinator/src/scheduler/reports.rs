//! What slots report: that they have a worker, what became of their calls, and that it died.

use std::time::Duration;

use super::pace::Pace;
use super::{
    Bundle, Busy, Doomed, End, Idle, Loss, MOST_CALLS, Map, MapId, Next, PACES, RestartLimit,
    Running, Scheduler, Sight, Slot, SlotId, Time,
};
use crate::error::{Death, Why};

/// SIGKILL.
const KILLED: i32 = 9;
/// How long starts must fail for the cause to be more than a bad moment.
const STANDS: Duration = Duration::from_secs(1);

impl<J: Clone, I: Bundle, T: Clone> Scheduler<J, I, T> {
    /// A slot's worker is ready for calls.
    pub(crate) fn ready(&mut self, slot: SlotId) -> Idle {
        self.lived = true;
        // A worker has started, so what kept workers from starting is over.
        self.failed_starts.clear();
        self.slots[slot.0] = Slot::Idle;
        Idle::fresh(slot)
    }

    /// What a slot with an idle worker is to do, which may run at most so many calls.
    pub(crate) fn next(
        &mut self,
        idle: Idle,
        most: u32,
        now: Time,
        sight: &impl Sight,
    ) -> Next<J, I> {
        self.promote_delayed(now);
        let slot = idle.slot;
        let is_due = self.end_watch(slot, now);
        if !idle.is_fresh {
            self.coming = self.coming.saturating_sub(1);
        }
        if self.is_drained() {
            return Next::Leave;
        }
        if self.paused.is_some() {
            return Next::Wait(Idle::waiting(slot), None);
        }
        if !self.ready.is_empty() {
            self.free_stuck(now, sight);
        }
        let looks = self.ready.is_empty() && (is_due || idle.is_fresh);
        let took_back = looks && self.take_back(now, sight);
        let Some(map) = self.next_map(!idle.is_fresh && !took_back, now) else {
            self.recall_some(now);
            return self.wait(slot, now);
        };
        self.turn += 1;
        let (turn, slots) = (self.turn, self.slots.len());
        let most = most.clamp(1, MOST_CALLS).min(self.most_in_turn(map));
        self.remind(map);
        let batch = self.with_map(map, |map| {
            map.turn = turn;
            let batch = map.next_batch(most, slots, slot);
            map.served(batch.count, now);
            batch
        });
        let limits = self.maps.get(&map).map(|map| map.spec.limits);
        let limits = limits.unwrap_or_default();
        self.effects.rearm |= limits.timeout.is_some() || limits.memory.is_some();
        if batch.count > 1 && !self.is_batching(map) {
            // A thread that waits for a result sleeps until it is told of one. From here on it has to look for
            // itself, now and then, because the worker may be held up by the last of these calls and not report those
            // before.
            self.effects.wake.insert(map);
        }
        if batch.count > 1 && self.maps.get(&map).is_some_and(|map| map.spec.separate) {
            self.glance_at(now);
        }
        let busy = Busy::new(map, &batch, now, limits);
        self.slots[slot.0] = Slot::Busy(busy);
        self.pass_on();
        let running = Running { slot, map };
        Next::Run(running, batch)
    }

    /// Whether there is, or will be, something that nobody may have been woken up for: a call that is
    /// ready, or waits for its time, or may be taken back in a moment.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.delayed.is_empty() || self.has_spare()
    }

    /// The call for which somebody was to be woken runs already.
    pub(crate) fn spare_a_waking(&mut self) {
        self.effects.work = self.effects.work.saturating_sub(1);
    }

    /// Whether a call of this map would be the next to run, and the only one.
    pub(crate) fn is_next(&self, map: MapId) -> bool {
        let next = self.ready.first().map(|(.., next)| *next);
        let is_next = self.paused.is_none() && self.ready.len() == 1 && next == Some(map);
        let map = self.maps.get(&map).filter(|_| is_next);
        map.is_some_and(|map| map.ready_calls() == 1 && map.wants_more())
    }

    /// The batch has been sent: its first call begins about now.
    pub(crate) fn sent(&mut self, running: &Running, now: Time) {
        if let Some(busy) = self.slots[running.slot.0].busy_mut() {
            busy.next_call(now);
        }
    }

    /// Whether nobody will take what a call of a batch prints: the one at a place, or else the next one that ends.
    pub(crate) fn is_unwanted(&self, running: &Running, at: Option<u32>) -> bool {
        let Some(busy) = self.slots[running.slot.0].busy() else {
            return self.is_detached(running.map);
        };
        let at = at.unwrap_or(busy.reported);
        self.is_let_go(busy.map, busy.first + u64::from(at))
    }

    /// Whether nobody will take what the next call prints that a slot's worker has not been heard to finish.
    pub(crate) fn is_next_unwanted(&self, slot: SlotId) -> bool {
        let busy = self.slots[slot.0].busy();
        busy.is_some_and(|busy| self.is_let_go(busy.map, busy.first + u64::from(busy.reported)))
    }

    /// Whether a worker may answer for these calls of its batch now, and why not.
    pub(crate) fn may_answer(&self, running: &Running, at: u32, count: u32) -> Result<(), String> {
        let busy = self.slots[running.slot.0].busy();
        let busy = busy.ok_or("a reply, where nothing was running")?;
        busy.answered_by(at, count).map(drop)
    }

    /// Whether how a call of a batch ended is news, and decides what becomes of it.
    pub(crate) fn is_news(&self, running: &Running, at: u32) -> bool {
        let busy = self.slots[running.slot.0].busy();
        busy.is_some_and(|busy| {
            let spared = busy.doomed().and_then(|doomed| doomed.call);
            busy.reported <= at && spared.is_none_or(|spared| at < spared)
        })
    }

    /// Calls have returned values, by the worker's word.
    pub(crate) fn values(
        &mut self,
        running: &Running,
        at: u32,
        count: u32,
        now: Time,
        trace: impl FnOnce(std::ops::Range<u32>) -> (T, usize),
    ) -> Result<(), String> {
        let busy = self.slots[running.slot.0].busy_mut();
        let busy = busy.ok_or("a reply, where nothing was running")?;
        let news = busy.hear(at, count)?;
        busy.next_call(now);
        self.effects.rearm |= busy.owes(now);
        let (map, first) = (busy.map, busy.first + u64::from(news.start));
        if !news.is_empty() {
            let count = news.end - news.start;
            let (trace, bytes) = trace(news);
            self.settled_values(map, first, count, trace, bytes);
        }
        Ok(())
    }

    /// The worker has worked for so long on calls that it has answered for, by its own word.
    pub(crate) fn worked(&mut self, running: &Running, time: Duration) {
        if let Some(busy) = self.slots[running.slot.0].busy_mut() {
            busy.worked = busy.worked.saturating_add(time);
        }
    }

    /// One call has ended, by the worker's word; what is left of it has so many bytes.
    /// Says whether that was news.
    pub(crate) fn reply(
        &mut self,
        running: &Running,
        at: u32,
        result: Result<(), Why>,
        (trace, bytes): (T, usize),
        now: Time,
        sight: &impl Sight,
    ) -> Result<bool, String> {
        let busy = self.slots[running.slot.0].busy_mut();
        let busy = busy.ok_or("a reply, where nothing was running")?;
        let news = busy.hear(at, 1)?;
        busy.next_call(now);
        self.effects.rearm |= busy.owes(now);
        let (map, index) = (busy.map, busy.first + u64::from(at));
        let is_new = !news.is_empty();
        if is_new {
            self.settle((map, index), result, trace, bytes, now, sight);
        }
        Ok(is_new)
    }

    /// The worker will run no more than so many calls of its batch.
    pub(crate) fn stopped(&mut self, running: &Running, at: u32) -> Result<(), String> {
        let busy = self.slots[running.slot.0].busy_mut();
        let busy = busy.ok_or("the end of a batch, where none was running")?;
        if at != busy.heard || at != busy.limit {
            return Err(format!(
                "that it ran {at} calls of its batch, where it has answered for {} and may run {}",
                busy.heard, busy.limit
            ));
        }
        busy.heard = busy.sent;
        Ok(())
    }

    /// The first call that a slot's worker has not been heard to finish, by its place in the batch.
    pub(crate) fn unreported(&self, slot: SlotId) -> Option<(u64, u32)> {
        let busy = self.slots[slot.0].busy()?;
        let spared = busy.doomed().and_then(|doomed| doomed.call);
        let end = spared.unwrap_or(busy.limit).min(busy.limit);
        (busy.reported < end).then_some((busy.first, busy.reported))
    }

    /// The next calls have returned values that were found in the black box, unless it has been decided
    /// that they end otherwise. Says how many of them are news; `trace` is asked for as many.
    pub(crate) fn found(
        &mut self,
        slot: SlotId,
        count: u32,
        now: Time,
        trace: impl FnOnce(u32) -> (T, usize),
    ) -> u32 {
        let Some(busy) = self.slots[slot.0].busy_mut() else {
            return 0;
        };
        let (map, first) = (busy.map, busy.first + u64::from(busy.reported));
        let spared = busy.doomed().and_then(|doomed| doomed.call);
        let end = spared.unwrap_or(busy.limit).min(busy.limit);
        let count = count.min(end.saturating_sub(busy.reported));
        if count > 0 {
            busy.reported += count;
            self.effects.rearm |= busy.owes(now);
            let (trace, bytes) = trace(count);
            self.settled_values(map, first, count, trace, bytes);
        }
        count
    }

    /// The next call has ended in this way, as was found in the black box. It is [unreported](Self::unreported).
    pub(crate) fn found_end(
        &mut self,
        slot: SlotId,
        result: Result<(), Why>,
        (trace, bytes): (T, usize),
        now: Time,
        sight: &impl Sight,
    ) {
        let Some(busy) = self.slots[slot.0].busy_mut() else {
            return;
        };
        let call = (busy.map, busy.first + u64::from(busy.reported));
        busy.reported += 1;
        self.effects.rearm |= busy.owes(now);
        self.settle(call, result, trace, bytes, now, sight);
    }

    /// Whether the worker has answered for all of its calls, and may go on living.
    pub(crate) fn is_answered(&self, running: &Running) -> bool {
        let busy = self.slots[running.slot.0].busy();
        busy.is_none_or(|busy| busy.is_answered() && busy.doomed().is_none())
    }

    /// The worker has answered for all of its calls.
    pub(crate) fn idle_again(&mut self, running: Running, now: Time) -> Result<Idle, Running> {
        if !self.is_answered(&running) {
            return Err(running);
        }
        if let Some(busy) = self.slots[running.slot.0].busy() {
            // The time that the message took, and that the worker waited for a processor, is not part of what the
            // calls cost.
            let took = busy.worked.min(now.saturating_sub(busy.begun));
            let calls = busy.limit;
            let mut learned = None;
            self.released(running.map, |map| {
                map.learn(calls, took, now);
                learned = map.spec.kind.map(|kind| (kind, map.pace.for_another()));
            });
            self.remember(learned);
        }
        self.slots[running.slot.0] = Slot::Idle;
        self.leave_if_drained();
        Ok(Idle::fresh(running.slot))
    }

    /// Tells a map that knows nothing of its calls yet what those of another map of its kind cost.
    pub(super) fn remind(&mut self, id: MapId) {
        let Some(map) = self.maps.get_mut(&id).filter(|map| !map.pace.is_known()) else {
            return;
        };
        let known = map.spec.kind.and_then(|kind| self.paces.get(&kind));
        map.pace = known.copied().unwrap_or(map.pace);
    }

    /// Remembers what calls of a kind of maps cost.
    fn remember(&mut self, learned: Option<(u64, Pace)>) {
        let Some((kind, pace)) = learned.filter(|(_, pace)| pace.is_known()) else {
            return;
        };
        if self.paces.len() >= PACES && !self.paces.contains_key(&kind) {
            self.paces.clear();
        }
        self.paces.insert(kind, pace);
    }

    pub(super) fn released(&mut self, id: MapId, and: impl FnOnce(&mut Map<J, I, T>)) {
        if self.maps.contains_key(&id) {
            self.with_map(id, |map| {
                map.released();
                and(map);
            });
            self.forget_if_done(id);
        }
    }

    /// The worker is dead, or will not be listened to any more: it starts nothing from here on, and nobody looks at it.
    /// Returns how many calls it has started.
    pub(crate) fn gone(&mut self, running: &Running, sight: &impl Sight) -> u32 {
        let Some(busy) = self.slots[running.slot.0].busy_mut() else {
            return 0;
        };
        busy.is_gone = true;
        sight.lower(running.slot, 0);
        let seen = busy.note(sight.look(running.slot));
        if busy.doomed().is_none() {
            busy.end = match seen {
                Some(_) => End::Open,
                None => End::Killed { doom: Doomed::LIED },
            };
        }
        busy.started
    }

    /// The worker died after it had started this many calls. The call that was running is charged, if there was
    /// one; those behind it are not. The engine's `Seat::lose` has found out how far the worker had come.
    pub(crate) fn died(
        &mut self,
        running: Running,
        started: u32,
        why: Why,
        trace: T,
        now: Time,
        sight: &impl Sight,
    ) -> Loss {
        let slot = std::mem::replace(&mut self.slots[running.slot.0], Slot::Starting);
        let Slot::Busy(busy) = slot else {
            return Loss::default();
        };
        let doomed = busy.doomed();
        let behind = self.answers_for(&busy, started);
        let index = |call: u32| busy.first + u64::from(call);
        if behind < busy.limit && self.maps.contains_key(&busy.map) {
            let count = busy.limit - behind;
            self.with_map(busy.map, |map| map.give_back(index(behind), count));
            self.call_for(busy.map);
        }
        for call in busy.reported..behind {
            let why = match doomed.filter(|doomed| doomed.call == Some(call)) {
                Some(doomed) => doomed.doom.why(),
                None => why.clone(),
            };
            self.settle(
                (busy.map, index(call)),
                Err(why),
                trace.clone(),
                0,
                now,
                sight,
            );
        }
        self.effects.wake.insert(busy.map);
        self.released(busy.map, |_| ());
        self.leave_if_drained();
        Loss {
            charged: behind > busy.reported,
            doomed: doomed.is_some(),
        }
    }

    /// How many calls of its batch a dead worker has to answer for, those that have ended included: up to the one that it ran.
    fn answers_for(&mut self, busy: &Busy, started: u32) -> u32 {
        let doomed = busy.doomed();
        let doomed_call = doomed
            .and_then(|doomed| doomed.call)
            .filter(|call| *call >= busy.reported && *call < busy.limit);
        // There are several only if their outputs were lost with a link that broke: they have run, and
        // must not run again.
        let behind = doomed_call
            .map_or(0, |call| call + 1)
            .max(started)
            .max(busy.started)
            .clamp(busy.reported, busy.limit);
        // A call that no worker survives reading is charged in the end, or it would go round for ever. So is one that makes
        // its worker lie, as soon as it is known which one that is.
        let lied = doomed == Some(Doomed::LIED);
        let is_unseen = behind == busy.reported;
        let is_deadly = (lied || is_unseen) && self.is_deadly(busy, behind, lied);
        behind + u32::from(is_deadly && is_unseen)
    }

    /// Whether the next call of a batch, which ended with its worker, has to answer for that though nobody saw it begin.
    fn is_deadly(&mut self, busy: &Busy, next: u32, lied: bool) -> bool {
        let left = busy.limit - next;
        let map = self.maps.get_mut(&busy.map).filter(|_| left > 0);
        map.is_some_and(|map| map.is_deadly(busy.first + u64::from(next), left, lied))
    }

    /// A slot's thread has gone without a word, and its worker with it. What the worker ran ends as if it had been killed.
    pub(crate) fn abandon(&mut self, slot: SlotId, trace: T, now: Time, sight: &impl Sight) {
        let Some(busy) = self.slots[slot.0].busy() else {
            return;
        };
        let running = Running {
            slot,
            map: busy.map,
        };
        let started = busy.started.max(busy.reported + 1);
        let why = Why::Died(Death::Signal(KILLED));
        self.died(running, started, why, trace, now, sight);
    }

    /// The worker died, or was let go, while it had nothing to do.
    pub(crate) fn idle_died(&mut self, idle: Idle) {
        self.slots[idle.slot.0] = Slot::Starting;
        self.end_watch(idle.slot, Time::ZERO);
        self.coming = self.coming.saturating_sub(1);
        self.pass_on();
    }

    /// A worker could not be started. Ends the pool if that happens before any worker ever got ready; or if none is
    /// left, and it has happened too often and for a while.
    pub(crate) fn start_failed(&mut self, cause: &str, now: Time) {
        let RestartLimit { count, per } = self.restart_limit;
        self.failed_starts
            .retain(|failed| failed.saturating_add(per) > now);
        self.failed_starts.push(now);
        let lives = |slot: &Slot| !matches!(slot, Slot::Starting);
        let is_last = !self.slots.iter().any(lives);
        let first = self.failed_starts.first().copied().unwrap_or(now);
        let stands = now.saturating_sub(first) >= STANDS.min(per / 10);
        let is_often = self.failed_starts.len() >= count as usize;
        if !self.lived || (is_last && is_often && stands) {
            self.give_up(cause);
        }
    }

    /// Whether a slot still needs a worker.
    pub(crate) fn wants_worker(&self) -> bool {
        !self.is_drained()
    }
}
