//! What this side is asking for, and of whom.
//!
//! Each peer is asked for by itself: that another has the same content helps nobody when this one is lost. A few pieces are under
//! way from each, and fewer where they come slowly, so that what is urgent finds the way free; and a limited number from all
//! together, because the broker cuts off whoever does not read fast enough.

use std::collections::BTreeMap;
use std::ops::Bound;

use protocol::agent::{Bulk, Want};

use super::peer::{Peer, Progress, Target, Time};

/// How many pieces are under way from all: 16 MiB, where a broker holds 64 MiB for whoever is slow.
const OF_ALL: usize = 64;

/// What this side is asking for. Whenever that may have changed, and each second, [`due`](Self::due) says what to send.
#[derive(Default)]
pub(crate) struct Fetching {
    peers: BTreeMap<String, Peer>,
    /// Who was asked last: when few may be asked, the others come first.
    last: String,
}

impl Fetching {
    /// Begins to fetch something from somebody, unless that is under way.
    pub(crate) fn begin(&mut self, bulk: Bulk, from: &str, target: Target) {
        let peer = self.peers.entry(from.to_owned()).or_default();
        peer.begin(bulk, target);
    }

    /// A piece has come from somebody.
    pub(crate) fn arrived(&mut self, from: &str, want: Want, bytes: &[u8], now: Time) -> Progress {
        match self.peers.get_mut(from) {
            Some(peer) => peer.arrived(want, bytes, now),
            None => Progress::More,
        }
    }

    /// Somebody says that he does not have something any more. Returns whether it was being fetched from him.
    pub(crate) fn gone(&mut self, from: &str, bulk: &Bulk) -> bool {
        let peer = self.peers.get_mut(from);
        peer.is_some_and(|peer| peer.gone(bulk))
    }

    /// Only some of what is being fetched from somebody is still wanted.
    pub(crate) fn retain(&mut self, from: &str, is_wanted: impl Fn(&Bulk) -> bool) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.retain(is_wanted);
        }
    }

    /// Nothing is wanted of somebody any more.
    pub(crate) fn forget(&mut self, from: &str) {
        self.peers.remove(from);
    }

    /// Pieces to ask for, and of whom: for the first time, or because they have not come in time.
    pub(crate) fn due(&mut self, now: Time) -> Vec<(String, Want)> {
        let mut due = Vec::new();
        for (name, peer) in &mut self.peers {
            let again = peer.overdue(now).into_iter();
            due.extend(again.map(|want| (name.clone(), want)));
        }
        let mut room = OF_ALL.saturating_sub(self.peers.values().map(Peer::under_way).sum());
        for _ in 0..self.peers.len() {
            let Some(name) = self.next_peer().filter(|_| room > 0) else {
                break;
            };
            if let Some(peer) = self.peers.get_mut(&name) {
                let wants = peer.ask(room, now);
                room -= wants.len();
                due.extend(wants.into_iter().map(|want| (name.clone(), want)));
            }
            self.last = name;
        }
        due
    }

    /// The next in turn who may be asked for more.
    fn next_peer(&self) -> Option<String> {
        let behind = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let behind = self.peers.range::<str, _>(behind);
        let mut in_turn = behind.chain(&self.peers);
        let (name, _) = in_turn.find(|(_, peer)| peer.has_room())?;
        Some(name.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::collections::{BTreeSet, VecDeque};
    use std::sync::Arc;
    use std::time::Duration;

    use protocol::agent::PIECE;
    use tempfile::NamedTempFile;

    use super::super::peer::{AT_ONCE, OF_ONE, PATIENCE};
    use super::*;
    use crate::agents::bulk::{Fetched, Store};

    fn named() -> Target {
        Target::Named(Box::new(NamedTempFile::new))
    }

    /// Something of this length that nobody has.
    fn bulk(name: u8, pieces: u64) -> Bulk {
        Bulk {
            hash: [name; 32],
            len: pieces * PIECE,
        }
    }

    /// Fetches something where each third piece is lost, comes twice, or comes late.
    fn fetch(content: Vec<u8>, place: Target) -> Result<Fetched, String> {
        let mut store = Store::default();
        let bulk = store.offer(Arc::new(content)).unwrap();
        let mut fetching = Fetching::default();
        let mut now = Duration::ZERO;
        fetching.begin(bulk, "a", place);
        let mut turn = 0;
        loop {
            let mut wanted = fetching.due(now);
            // It is under way: nobody asks twice.
            fetching.begin(bulk, "a", Target::Memory);
            assert!(fetching.due(now).is_empty());
            let distinct: BTreeSet<u64> = wanted.iter().map(|(_, want)| want.piece).collect();
            assert!(distinct.len() as u64 <= AT_ONCE, "{distinct:?} at once");
            wanted.reverse();
            for (_, want) in wanted {
                turn += 1;
                let piece = store.piece(&want).unwrap();
                for _ in 0..turn % 3 {
                    match fetching.arrived("a", want, &piece, now) {
                        Progress::More => {}
                        Progress::Whole(fetched) => return Ok(fetched),
                        Progress::Gone(why) | Progress::Failed(why) => return Err(why),
                    }
                }
            }
            now += PATIENCE / 2;
        }
    }

    #[test]
    fn what_is_lost_doubled_or_late_comes_through() {
        let piece = PIECE as usize;
        for len in [0, 1, piece - 1, piece, piece + 1, 7 * piece + 5, 20 * piece] {
            let content: Vec<u8> = (0..len).map(|at| (at % 253) as u8).collect();
            for place in [Target::Memory, Target::Anywhere, named()] {
                let fetched = fetch(content.clone(), place).unwrap();
                assert!(fetched.into_bytes().unwrap() == content, "{len}");
            }
        }
    }

    #[test]
    fn what_is_not_what_was_named_is_refused() {
        let bulk = Bulk {
            hash: [7; 32],
            len: 3,
        };
        let want = Want { bulk, piece: 0 };
        for bytes in [&b"abc"[..], b"ab", b"abcd"] {
            let mut fetching = Fetching::default();
            fetching.begin(bulk, "a", Target::Anywhere);
            assert_eq!(fetching.due(Duration::ZERO).len(), 1);
            let progress = fetching.arrived("a", want, bytes, Duration::ZERO);
            assert!(matches!(progress, Progress::Gone(_)), "{bytes:?}");
        }
        // A piece that nobody asked for is nothing, nor is one of somebody who was not asked.
        let mut fetching = Fetching::default();
        fetching.begin(bulk, "a", Target::Anywhere);
        assert_eq!(fetching.due(Duration::ZERO).len(), 1);
        let other = Want { bulk, piece: 1 };
        for (from, want) in [("a", other), ("b", want)] {
            let progress = fetching.arrived(from, want, b"abc", Duration::ZERO);
            assert!(matches!(progress, Progress::More), "{from}");
        }
    }

    /// Two have the same: what was begun with one of them does not keep it from being asked for of the other.
    #[test]
    fn the_same_is_fetched_from_each_who_is_asked_for_it() {
        let mut fetching = Fetching::default();
        let bulk = bulk(1, 1);
        let now = Duration::ZERO;
        for from in ["a", "b"] {
            fetching.begin(bulk, from, Target::Memory);
            let want = Want { bulk, piece: 0 };
            assert_eq!(fetching.due(now), [(from.to_owned(), want)]);
        }
        // Who is forgotten is asked no more.
        fetching.forget("a");
        assert!(fetching.gone("b", &bulk) && !fetching.gone("b", &bulk));
        assert!(fetching.due(now + 10 * PATIENCE).is_empty());
    }

    #[test]
    fn so_many_pieces_are_under_way_and_no_more() {
        let mut fetching = Fetching::default();
        let mut now = Duration::ZERO;
        for peer in 0..20 {
            for name in 0..10 {
                fetching.begin(bulk(name, 100), &format!("{peer}"), Target::Memory);
            }
        }
        let mut under_way = fetching.due(now);
        assert_eq!(under_way.len(), 20, "one of each at first");
        let mut turns = BTreeMap::<String, u64>::new();
        let bytes = vec![0; PIECE as usize];
        for _ in 0..400 {
            now += Duration::from_millis(1);
            let (from, want) = under_way.remove(0);
            *turns.entry(from.clone()).or_default() += 1;
            let progress = fetching.arrived(&from, want, &bytes, now);
            assert!(matches!(progress, Progress::More));
            under_way.extend(fetching.due(now));
            assert!(under_way.len() <= OF_ALL);
            let of_one = under_way.iter().filter(|(name, _)| *name == from);
            assert!(of_one.count() <= OF_ONE);
        }
        assert_eq!(under_way.len(), OF_ALL);
        assert!(
            turns.len() == 20 && turns.values().all(|turns| *turns >= 10),
            "{turns:?}"
        );
    }

    /// Over a slow line nothing is asked for again that is only on its way, once it is known how slow the line is.
    #[test]
    fn a_slow_line_does_not_carry_the_same_again_and_again() {
        for takes in [Duration::from_secs(3), Duration::from_secs(30)] {
            let mut fetching = Fetching::default();
            let all = bulk(1, 40);
            fetching.begin(all, "a", Target::Memory);
            let mut line = VecDeque::new();
            let (mut now, mut free_at) = (Duration::ZERO, Duration::ZERO);
            let mut carried = 0;
            let bytes = vec![0; PIECE as usize];
            loop {
                for (_, want) in fetching.due(now) {
                    free_at = free_at.max(now) + takes;
                    line.push_back((free_at, want));
                }
                now += Duration::from_secs(1);
                let Some((_, want)) = line.front().copied().filter(|(at, _)| *at <= now) else {
                    continue;
                };
                line.pop_front();
                carried += 1;
                if let Progress::Gone(_) = fetching.arrived("a", want, &bytes, now) {
                    break;
                }
            }
            assert!(carried <= 44, "{takes:?}: {carried} pieces, of 40");
        }
    }

    #[test]
    fn nobody_who_is_silent_keeps_others_waiting() {
        let mut fetching = Fetching::default();
        for peer in 0..2 * OF_ALL {
            fetching.begin(bulk(1, 9), &format!("{peer}"), Target::Memory);
        }
        let now = Duration::ZERO;
        assert_eq!(fetching.due(now).len(), OF_ALL);
        assert_eq!(fetching.due(now + PATIENCE).len(), 2 * OF_ALL);
    }
}
