//! What becomes of calls by their workers' word: in a reply, or in the black box of a worker that has not sent it yet.

use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use protocol::message::{CallEnd, CallReply, CallsReply, Verdict};
use protocol::parcel::{Owned, Parcel};

use super::state::{State, Wanted};
use crate::payload::printed::Printed;
use crate::payload::{By, Payload, Trace, Values};
use crate::scheduler::{MOST_CALLS, Running, SlotId, Time};
use crate::workers::talk;

/// What a reply says of consecutive calls.
pub(super) struct Answer {
    /// The place of the first in its batch.
    at: u32,
    pub(super) count: u32,
    worked: Duration,
    values: Arc<Values>,
    ends: Vec<(u32, CallEnd)>,
}

impl Answer {
    /// Checks a reply to a batch whose first call has this index.
    pub(super) fn check(first: u64, reply: CallsReply, payload: Payload) -> Result<Self, String> {
        let count = match u32::try_from(reply.lens.count()) {
            Ok(few @ 1..=MOST_CALLS) if reply.nanos.count() == u64::from(few) => few,
            _ => return Err("a reply to no calls, or to more than a batch has".to_owned()),
        };
        let (lens, nanos) = (reply.lens.to_vec(), reply.nanos.to_vec());
        let values = Values::new(first + u64::from(reply.at), lens, nanos, payload)?;
        if !are_in_order(&reply.ends, count) {
            return Err("ends of calls that are none of those that it is about".to_owned());
        }
        Ok(Answer {
            at: reply.at,
            count,
            worked: Duration::from_nanos(reply.nanos.sum()),
            values: Arc::new(values),
            ends: reply.ends,
        })
    }

    /// Whether the last of the calls did not succeed.
    pub(super) fn last_failed(&self) -> bool {
        let last = self.ends.last();
        last.is_some_and(|(place, end)| place + 1 == self.count && !end.verdict.is_value())
    }
}

/// What is left of a call that ended in this way, and how many bytes that is. Only a value has an output.
fn one(by: By, elapsed: Duration, end: &CallEnd, output: Payload) -> (Trace, usize) {
    let output = match end.verdict {
        Verdict::Value => output,
        _ => Payload::default(),
    };
    let bytes = output.len();
    let trace = Trace::one(by, elapsed, Printed::default(), output);
    (trace, bytes)
}

/// Calls of which a worker speaks in one breath.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// These returned values, and printed nothing.
    Values(Range<u32>),
    /// This one ended in some other way.
    One(u32, CallEnd),
}

/// Whether ends are those of calls among the first so many, in ascending order.
fn are_in_order(ends: &[(u32, CallEnd)], count: u32) -> bool {
    ends.is_sorted_by(|one, next| one.0 < next.0)
        && ends.last().is_none_or(|(last, _)| *last < count)
}

/// Consecutive calls, of which some ended in this way, in order.
fn parts(count: u32, ends: Vec<(u32, CallEnd)>) -> impl Iterator<Item = Part> {
    let mut next = 0;
    let mut ends = ends.into_iter().peekable();
    iter::from_fn(move || {
        let until = ends.peek().map_or(count, |(place, _)| *place);
        if next < until {
            return Some(Part::Values(std::mem::replace(&mut next, until)..until));
        }
        let (place, end) = ends.next()?;
        next = place + 1;
        Some(Part::One(place, end))
    })
}

impl State {
    /// Hears of consecutive calls. Says whether there was news.
    pub(super) fn hear_calls(
        &mut self,
        running: &Running,
        by: &By,
        answer: Answer,
        now: Time,
    ) -> Result<bool, String> {
        let Answer {
            at, count, values, ..
        } = answer;
        self.jobs.may_answer(running, at, count)?;
        self.jobs.worked(running, answer.worked);
        self.posts[by.slot.0].calls += u64::from(count);
        let mut is_news = false;
        for part in parts(count, answer.ends) {
            match part {
                Part::Values(calls) => {
                    let many = calls.end - calls.start;
                    let mut news = 0;
                    self.jobs
                        .values(running, at + calls.start, many, now, |fresh| {
                            news = fresh.end - fresh.start;
                            let trace = Trace::many(by.clone(), Arc::clone(&values));
                            (trace, values.size(fresh.start - at, fresh.end - at))
                        })?;
                    // What was found in its black box before has been counted.
                    self.counts.succeeded += u64::from(news);
                    is_news |= news > 0;
                }
                Part::One(place, end) => {
                    let (elapsed, output) = values.one(place);
                    let trace = one(by.clone(), elapsed, &end, output);
                    is_news |= self.hear_end(running, at + place, end, trace, now)?;
                }
            }
        }
        Ok(is_news)
    }

    /// Hears of one call. Says whether that was news.
    pub(super) fn hear_call(
        &mut self,
        running: &Running,
        by: By,
        reply: CallReply,
        output: Payload,
        now: Time,
    ) -> Result<bool, String> {
        let elapsed = Duration::from_nanos(reply.nanos);
        self.jobs.worked(running, elapsed);
        self.posts[by.slot.0].calls += 1;
        let trace = one(by, elapsed, &reply.end, output);
        self.hear_end(running, reply.at, reply.end, trace, now)
    }

    fn hear_end(
        &mut self,
        running: &Running,
        at: u32,
        end: CallEnd,
        (mut trace, bytes): (Trace, usize),
        now: Time,
    ) -> Result<bool, String> {
        // If it has been decided that the call ends in another way, what it has printed belongs to that outcome.
        if self.jobs.is_news(running, at) {
            trace.printed = self.printed(trace.by.slot, &end);
            if !trace.printed.is_empty() {
                // Before it is told of: whoever lets go of the call a moment later forwards what it has printed.
                let wanted = Wanted::unless(self.jobs.is_unwanted(running, Some(at)));
                self.keep_printed(&trace.printed, wanted);
            }
        }
        let result = talk::why(end.verdict).map_or(Ok(()), Err);
        let succeeded = result.is_ok();
        let (jobs, sight) = self.jobs_and_sight();
        let is_news = jobs.reply(running, at, result, (trace, bytes), now, &sight)?;
        if is_news {
            self.counts.ended(succeeded);
        }
        Ok(is_news)
    }

    /// Reports what a slot's worker has finished and not said yet.
    pub(crate) fn collect(&mut self, slot: SlotId, now: Time) {
        let Some((first, reported)) = self.jobs.unreported(slot) else {
            return;
        };
        let post = &self.posts[slot.0];
        let (Some(black_box), Some(pid)) = (&post.black_box, post.pid) else {
            return;
        };
        let found = black_box.finished(reported);
        let count = u32::try_from(found.lens.len()).unwrap_or(0);
        let payload = Payload::from(Parcel::Whole(Owned::new(found.outputs)));
        let values = Values::new(
            first + u64::from(reported),
            found.lens,
            found.nanos,
            payload,
        );
        // A box that makes no sense says nothing.
        let (Ok(values), true) = (values, are_in_order(&found.ends, count)) else {
            return;
        };
        let values = Arc::new(values);
        for part in parts(count, found.ends) {
            let by = By::here(slot, pid);
            match part {
                Part::Values(calls) => {
                    let many = calls.end - calls.start;
                    let news = self.jobs.found(slot, many, now, |news| {
                        let trace = Trace::many(by, Arc::clone(&values));
                        (trace, values.size(calls.start, calls.start + news))
                    });
                    self.counts.succeeded += u64::from(news);
                }
                Part::One(place, end) => {
                    // It may have been decided that it ends in another way, or is not run.
                    if self.jobs.unreported(slot) != Some((first, reported + place)) {
                        return;
                    }
                    let (elapsed, output) = values.one(place);
                    let trace = one(by, elapsed, &end, output);
                    self.find_end(slot, end, trace, now);
                }
            }
        }
    }

    /// The next call of a slot ended in this way, as the black box says.
    fn find_end(
        &mut self,
        slot: SlotId,
        end: CallEnd,
        (mut trace, bytes): (Trace, usize),
        now: Time,
    ) {
        trace.printed = self.printed(slot, &end);
        if !trace.printed.is_empty() {
            let wanted = Wanted::unless(self.jobs.is_next_unwanted(slot));
            self.keep_printed(&trace.printed, wanted);
        }
        let result = talk::why(end.verdict).map_or(Ok(()), Err);
        self.counts.ended(result.is_ok());
        let (jobs, sight) = self.jobs_and_sight();
        jobs.found_end(slot, result, (trace, bytes), now, &sight);
    }

    /// Keeps what a call has printed until the state is not held any more.
    pub(super) fn keep_printed(&mut self, printed: &Printed, wanted: Wanted) {
        if !printed.is_empty() {
            self.printed.push((printed.clone(), wanted));
        }
    }

    /// What a slot's next call has printed, which ended in this way.
    fn printed(&self, slot: SlotId, end: &CallEnd) -> Printed {
        let files = self.posts[slot.0].files.as_ref();
        let printed = files.map(|files| files.advance(end.stdout, end.stderr));
        printed.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> CallEnd {
        CallEnd {
            stdout: 1,
            stderr: 2,
            verdict: Verdict::Value,
        }
    }

    fn ends(places: &[u32]) -> Vec<(u32, CallEnd)> {
        places.iter().map(|place| (*place, end())).collect()
    }

    #[test]
    fn calls_are_taken_apart_in_order() {
        use Part::{One, Values};
        let of = |count, places: &[u32]| parts(count, ends(places)).collect::<Vec<_>>();
        assert_eq!(of(3, &[]), [Values(0..3)]);
        assert_eq!(of(1, &[0]), [One(0, end())]);
        assert_eq!(
            of(5, &[0, 1, 3]),
            [
                One(0, end()),
                One(1, end()),
                Values(2..3),
                One(3, end()),
                Values(4..5)
            ]
        );
        assert_eq!(of(0, &[]), []);
    }

    #[test]
    fn ends_are_those_of_calls_in_order() {
        assert!(are_in_order(&ends(&[]), 0));
        assert!(are_in_order(&ends(&[0, 2]), 3));
        assert!(!are_in_order(&ends(&[0, 3]), 3));
        assert!(!are_in_order(&ends(&[1, 1]), 3));
        assert!(!are_in_order(&ends(&[2, 0]), 3));
    }
}
