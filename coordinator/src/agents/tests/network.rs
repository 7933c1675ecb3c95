//! A network that loses, doubles and delays messages, and holds back or swallows those of an agent that is cut off.

use std::time::Duration;

/// Numbers that follow from a seed.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn number(&mut self, below: u64) -> u64 {
        // Marsaglia's xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }

    pub(super) fn millis(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.number(below))
    }

    /// Whether something happens that does in one of so many cases.
    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.number(many) == 0
    }
}

/// When something is cut off, from one time to another; what is sent meanwhile comes afterwards, or never.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) agent: usize,
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) holds: bool,
}

/// How bad the network is.
#[derive(Debug)]
pub(super) struct Weather {
    /// One message in so many is lost, comes twice, or comes late; 0 for none.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
    /// How late, in milliseconds.
    pub(super) delay: u64,
    /// When it becomes fair.
    pub(super) until: Duration,
    pub(super) cuts: Vec<Cut>,
}

impl Weather {
    /// When a message from or to an agent arrives: never, once, or several times.
    pub(super) fn arrivals(&self, agent: usize, now: Duration, dice: &mut Dice) -> Vec<Duration> {
        let usual = |dice: &mut Dice| now + Duration::from_micros(200 + dice.number(2000));
        if now >= self.until {
            return vec![usual(dice)];
        }
        let mut arrivals = vec![usual(dice)];
        if self.doubled > 0 && dice.one_in(self.doubled) {
            arrivals.push(now + dice.millis(self.delay));
        }
        if self.late > 0 && dice.one_in(self.late) {
            arrivals[0] = now + dice.millis(self.delay);
        }
        if self.lost > 0 && dice.one_in(self.lost) {
            arrivals.remove(0);
        }
        for cut in self.cuts.iter().filter(|cut| cut.agent == agent) {
            let swallowed = |at: Duration| {
                (cut.from..cut.to).contains(&at) || (cut.from..cut.to).contains(&now)
            };
            if cut.holds {
                let held = |at: Duration| if swallowed(at) { at.max(cut.to) } else { at };
                arrivals = arrivals.into_iter().map(held).collect();
            } else {
                arrivals.retain(|at| !swallowed(*at));
            }
        }
        arrivals
    }
}
