//! How many slots run calls of one map at a time.
//!
//! All of them, if calls wait for something else than a processor. If they don't, more slots than processors make none
//! of them quicker: they only take turns, each with a cold cache, and with the caller who has the next inputs. No clock
//! can tell the one from the other, because a call that waits for a processor takes longer, too. What can be seen is
//! whether more slots get more done. So that is tried, now and then.

use std::time::Duration;

use super::Time;

/// For how long what gets done is counted.
const WINDOW: Duration = Duration::from_millis(4);
/// How many windows pass between a trial that came to nothing and the next.
const REST: u32 = 32;

/// What a map's slots are limited to.
#[derive(Debug)]
pub(super) struct Throttle {
    least: u32,
    limit: u32,
    trial: Trial,
    /// Which way the next one goes.
    next: Trial,
    /// How many calls a second were done before.
    before: u64,
    /// When the window began, and how many calls were done since.
    began: Time,
    calls: u64,
    /// When there may be another trial.
    again: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    None,
    /// With twice as many slots.
    More,
    /// With half as many.
    Fewer,
}

impl Throttle {
    /// It begins with as many slots as there are processors.
    pub(super) fn new(processors: usize) -> Self {
        let least = u32::try_from(processors).unwrap_or(u32::MAX).max(1);
        Throttle {
            least,
            limit: least,
            trial: Trial::None,
            next: Trial::More,
            before: 0,
            began: Time::ZERO,
            calls: 0,
            again: Time::ZERO,
        }
    }

    /// How many slots there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Calls are done. `full` says that there are more, and as many slots as there may be.
    pub(super) fn done(&mut self, calls: u32, now: Time, full: bool) {
        self.calls += u64::from(calls);
        let took = now.saturating_sub(self.began);
        if took < WINDOW {
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = self.calls.saturating_mul(1_000_000) / micros;
        (self.began, self.calls) = (now, 0);
        // A window in which nobody needed the limit tells nothing of it. The time before the first call is none.
        if !full || took > 4 * WINDOW {
            return;
        }
        match self.trial {
            Trial::None if now < self.again => {}
            Trial::None => self.begin(rate),
            Trial::More if rate > self.before.saturating_mul(5) / 4 => self.begin(rate),
            Trial::More => self.give_up(self.limit / 2, Trial::Fewer, now),
            Trial::Fewer if rate > self.before.saturating_mul(9) / 10 => {
                self.end(Trial::Fewer, now);
            }
            Trial::Fewer => self.give_up(self.limit.saturating_mul(2), Trial::More, now),
        }
    }

    fn begin(&mut self, rate: u64) {
        self.before = rate;
        self.trial = self.next;
        match self.next {
            Trial::Fewer if self.limit > self.least => self.limit /= 2,
            _ => {
                self.trial = Trial::More;
                self.limit = self.limit.saturating_mul(2);
            }
        }
    }

    fn give_up(&mut self, limit: u32, next: Trial, now: Time) {
        self.limit = limit.max(self.least);
        self.end(next, now);
    }

    fn end(&mut self, next: Trial, now: Time) {
        self.trial = Trial::None;
        self.next = next;
        self.again = now.saturating_add(WINDOW * REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for a while, where so many slots get so many calls done in a millisecond; the limits there were.
    fn limits(throttle: &mut Throttle, per_milli: impl Fn(usize) -> u32) -> Vec<usize> {
        let milli = |ms: u32| Duration::from_millis(ms.into());
        let run = |ms: u32| {
            throttle.done(per_milli(throttle.limit()), milli(ms), true);
            throttle.limit()
        };
        (1..2000).map(run).collect()
    }

    #[test]
    fn calls_that_wait_get_more_slots_and_calls_that_work_do_not() {
        let waiting = limits(&mut Throttle::new(2), |slots| slots.min(64) as u32 * 10);
        assert!(
            waiting[200..].iter().all(|limit| *limit >= 32),
            "{waiting:?}"
        );
        let working = limits(&mut Throttle::new(2), |slots| slots.min(2) as u32 * 10);
        let more = working.iter().filter(|limit| **limit > 2).count();
        assert!(more < working.len() / 20, "{more}");
        assert!(working.iter().all(|limit| *limit <= 4));
    }

    #[test]
    fn what_has_changed_is_found_out() {
        let mut throttle = Throttle::new(2);
        limits(&mut throttle, |slots| slots.min(64) as u32 * 10);
        let mut now = Duration::from_millis(2000);
        for _ in 0..5000 {
            now += Duration::from_millis(1);
            throttle.done(20, now, true);
        }
        assert!(throttle.limit() <= 4, "{}", throttle.limit());
    }
}
