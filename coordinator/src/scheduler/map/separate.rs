//! A map whose calls have nothing to do with each other, but that they are of the same kind: each has a caller of its own, who
//! takes it, lets go of it, or cancels it.
//!
//! So they share what makes the calls of a map cheap: stretches, batches, one pace. Calls that have ended together stay
//! together until the last of them is taken; each caller takes a copy of what they have in common.

use std::collections::BTreeMap;
use std::ops::Range;

use super::spans::Spans;
use super::{Ended, Fate, Map, Stretch, cancelled};
use crate::scheduler::{Bundle, Taker};

/// What is known of such calls besides.
#[derive(Debug, Default)]
pub(super) struct Separate {
    /// Calls that have not ended, and whose results nobody will take.
    let_go: Spans,
    /// Calls that were cancelled while somebody had them, and why. They have not ended.
    cancelled: BTreeMap<u64, String>,
    /// When calls came, among the pool's maps and other separate calls: by the first of each row of calls that came one right
    /// behind the other.
    arrivals: BTreeMap<u64, u64>,
    /// Calls that have ended since the last [`Map::take_news`].
    news: Vec<Range<u64>>,
}

impl<J: Clone, I: Bundle, T: Clone> Map<J, I, T> {
    /// Consecutive calls have ended in the same way. Those that nobody waits for any more are forgotten.
    pub(super) fn end_separate(&mut self, first: u64, count: u32, ended: Ended<T>) {
        let calls = first..first + u64::from(count);
        if !self.separate.cancelled.is_empty() {
            let cancelled = self.separate.cancelled.range(calls.clone());
            for index in cancelled.map(|(index, _)| *index).collect::<Vec<_>>() {
                self.separate.cancelled.remove(&index);
            }
        }
        // There are no more of them than calls, so the number fits.
        let gone = self.separate.let_go.take(calls.clone()) as u32;
        if gone < count {
            let fate = Fate::Ended {
                ended: Box::new(ended),
                bytes: 0,
                left: count - gone,
            };
            self.insert(first, count, fate);
        }
        self.separate.news.push(calls);
    }

    /// The calls that are pushed next have this number among the pool's maps and separate calls.
    pub(in crate::scheduler) fn arrive(&mut self, number: u64) {
        let end = self.end;
        let arrivals = &mut self.separate.arrivals;
        let last = arrivals.last_key_value();
        if last.is_some_and(|(first, since)| number - since == end - first) {
            return;
        }
        arrivals.insert(end, number);
        // What came before the first that waits need not be known any more.
        let first = self.ready.first().copied().unwrap_or(end);
        while let Some(second) = arrivals.keys().nth(1)
            && *second <= first
        {
            arrivals.pop_first();
        }
    }

    /// When a call came; the beginning of time if that is not known any more, because it has been running meanwhile.
    pub(super) fn arrival(&self, index: u64) -> u64 {
        let row = self.separate.arrivals.range(..=index).next_back();
        row.map_or(0, |(first, number)| number + (index - first))
    }

    /// How many calls from the first on that is ready came before that number; it says 1 to `most`.
    pub(in crate::scheduler) fn came_before(&self, number: u64, most: u32) -> u32 {
        let first = self.ready.first().copied().unwrap_or(self.end);
        // Later calls have higher numbers, so halving finds the last of them.
        let (mut enough, mut more) = (1, most);
        while enough < more {
            let middle = more - (more - enough) / 2;
            match self.arrival(first + u64::from(middle) - 1) < number {
                true => enough = middle,
                false => more = middle - 1,
            }
        }
        enough
    }

    /// Which calls have ended since the last time.
    pub(in crate::scheduler) fn take_news(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.separate.news)
    }

    fn holding(&self, index: u64) -> Option<&Stretch<I, T>> {
        let (first, stretch) = self.stretches.range(..=index).next_back()?;
        (index - first < u64::from(stretch.count)).then_some(stretch)
    }

    /// Whether [`take_one`](Self::take_one) would find something.
    pub(in crate::scheduler) fn has_ended(&self, index: u64) -> bool {
        let stretch = self.holding(index);
        stretch.is_some_and(|stretch| matches!(stretch.fate, Fate::Ended { .. }))
    }

    /// How a call has ended, if it has. Each is asked for once, by the one who has it.
    pub(in crate::scheduler) fn take_one(&mut self, index: u64) -> Option<Ended<T>> {
        let (&first, stretch) = self.stretches.range_mut(..=index).next_back()?;
        let Fate::Ended { ended, left, .. } = &mut stretch.fate else {
            return None;
        };
        if index - first >= u64::from(stretch.count) {
            return None;
        }
        *left -= 1;
        let ended = match left {
            0 => match self.stretches.remove(&first)?.fate {
                Fate::Ended { ended, .. } => *ended,
                Fate::Waiting { .. } | Fate::Running { .. } => return None,
            },
            _ => (**ended).clone(),
        };
        self.taken(1);
        Some(ended)
    }

    /// Nobody will take a call's result any more. What it is, if it has ended already; else it is forgotten when it does.
    pub(in crate::scheduler) fn let_go(&mut self, index: u64) -> Option<Ended<T>> {
        let ended = self.take_one(index);
        if ended.is_none() {
            self.separate.let_go.insert(index);
            self.taken(1);
        }
        ended
    }

    pub(in crate::scheduler) fn is_let_go(&self, index: u64) -> bool {
        self.separate.let_go.contains(index)
    }

    /// Who runs a call, if somebody does.
    pub(in crate::scheduler) fn taker(&self, index: u64) -> Option<Taker> {
        match self.holding(index)?.fate {
            Fate::Running { by, .. } => Some(by),
            Fate::Waiting { .. } | Fate::Ended { .. } => None,
        }
    }

    /// Cancels one call, if it has not ended: one that waits ends now. Says who has it, if somebody does.
    pub(in crate::scheduler) fn cancel_one(&mut self, index: u64, note: &str) -> Option<Taker> {
        let by = self.taker(index);
        match by {
            Some(_) => {
                let cancelled = &mut self.separate.cancelled;
                cancelled.entry(index).or_insert_with(|| note.to_owned());
            }
            None => self.cancel_waiting_one(index, note),
        }
        by
    }

    /// Why a call was cancelled that somebody has.
    pub(super) fn why_cancelled(&self, index: u64) -> Option<&String> {
        self.separate.cancelled.get(&index)
    }

    /// Some calls wait again: those that were cancelled meanwhile end.
    pub(super) fn end_cancelled(&mut self, calls: Range<u64>) {
        if self.separate.cancelled.is_empty() {
            return;
        }
        let cancelled = self.separate.cancelled.range(calls);
        let cancelled = cancelled.map(|(index, note)| (*index, note.clone()));
        for (index, note) in cancelled.collect::<Vec<_>>() {
            self.cancel_waiting_one(index, &note);
        }
    }

    fn cancel_waiting_one(&mut self, index: u64, note: &str) {
        self.within(index, index + 1);
        if let Some(attempts) = self.end_waiting(index) {
            self.end_separate(index, 1, cancelled(attempts, Some(note.to_owned())));
        }
    }

    /// Whether it has neither calls that have not ended, nor results that somebody will take.
    pub(in crate::scheduler) fn is_unused(&self) -> bool {
        self.unfinished == 0 && self.untaken == 0
    }
}
