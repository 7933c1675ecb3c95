//! What a run says by itself: that it wants machines, and that something is not as it should be.

use std::time::{Duration, Instant};

use protocol::agent;

use super::{AWAY, Desk, NOBODY, TICK, give_up};
use crate::agents::{broker, subjects};

impl Desk {
    /// Says that this run wants machines.
    pub(super) fn say_open(&mut self) {
        let state = self.shared.state();
        let wants = state.jobs.wants_worker();
        self.open.is_hungry = state.jobs.has_ready();
        drop(state);
        if wants {
            match agent::encode(&self.open, &self.initializer) {
                Ok(bytes) => _ = self.broker.publish(&subjects::call(), bytes),
                Err(error) => give_up(
                    &self.shared,
                    &format!("agents can't be told of this run: {error}"),
                ),
            }
        }
    }

    /// Says if nobody has been there for long.
    pub(super) fn note_silence(&mut self) {
        if let Some(since) = self.away_since
            && since.elapsed() >= AWAY
        {
            self.away_since = None;
            let url = &self.url;
            let news = match self.was_connected {
                true => format!("the broker {url} is away: waiting for it"),
                false => format!("{}; waiting for it", broker::silence(url)),
            };
            self.ledger.note(news);
        }
        let state = self.shared.state();
        let is_alone = self.shared.config.slots == 0 && state.machines.agents.is_empty();
        drop(state);
        let passed = self.looked_at.elapsed();
        self.looked_at = Instant::now();
        self.alone = alone_for(self.alone, passed, is_alone);
        if !is_alone {
            self.waits_in_silence = false;
        } else if self.waits_in_silence && self.alone >= AWAY {
            self.waits_in_silence = false;
            let news = "no machine takes part yet: `coordinator agents` shows who is there, and what each does";
            self.ledger.note(news.to_owned());
        } else if self.alone >= NOBODY {
            let minutes = NOBODY.as_secs() / 60;
            let why =
                format!("no machine has taken part for {minutes} min, and there is no worker here");
            give_up(&self.shared, &why);
        }
    }

    /// Says what the broker does not allow. Without that no agent can take part.
    pub(super) fn note_refusals(&mut self) {
        let Some(told) = self.refusals.take() else {
            return;
        };
        let url = &self.url;
        let why = format!(
            "the broker {url} does not give this run the rights it needs: {}",
            told.what
        );
        if !told.is_needed {
            return self.ledger.note(why);
        }
        let why = format!("{why}; a run needs submit.key, or a key with the same rights");
        match self.shared.config.slots {
            0 => give_up(&self.shared, &why),
            _ => self
                .ledger
                .note(format!("{why}; only this machine runs calls")),
        }
    }

    /// Tries what this run will have to publish, so that a missing right is told of before it is needed. No agent hears that:
    /// none has this run yet.
    pub(super) fn try_rights(&self) {
        for subject in [subjects::all(&self.run), subjects::down(&self.run, "none")] {
            self.broker.publish(&subject, Vec::new());
        }
    }
}

/// For how long nobody has been there. One that was stopped meanwhile has not waited for anybody: of what has passed since the
/// last look, no more counts than usually lies between two.
fn alone_for(so_far: Duration, passed: Duration, is_alone: bool) -> Duration {
    match is_alone {
        true => so_far + passed.min(2 * TICK),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_stopped_has_waited_for_nobody() {
        let mut alone = Duration::ZERO;
        for passed in [TICK, 2 * NOBODY, TICK] {
            alone = alone_for(alone, passed, true);
        }
        assert_eq!(alone, 4 * TICK);
        assert_eq!(alone_for(alone, TICK, false), Duration::ZERO);
    }
}
