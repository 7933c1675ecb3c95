//! A set of indexes. Neighbours stand together, so calls that are let go one behind the other take no memory each.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of indexes: the beginnings of its spans, with their ends. Spans neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<u64, u64>);

impl Spans {
    pub(super) fn contains(&self, index: u64) -> bool {
        let before = self.0.range(..=index).next_back();
        before.is_some_and(|(_, end)| *end > index)
    }

    pub(super) fn insert(&mut self, index: u64) {
        if self.contains(index) {
            return;
        }
        let end = self.0.remove(&(index + 1)).unwrap_or(index + 1);
        match self.0.range_mut(..index).next_back() {
            Some((_, before)) if *before == index => *before = end,
            _ => _ = self.0.insert(index, end),
        }
    }

    /// Takes out what lies in a range; says how many indexes that were.
    pub(super) fn take(&mut self, range: Range<u64>) -> u64 {
        let mut taken = 0;
        if range.is_empty() {
            return taken;
        }
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, end);
            }
            if start < range.start {
                self.0.insert(start, range.start);
            }
            taken += end.min(range.end) - start.max(range.start);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_whose_spans_never_touch(
            steps in prop::collection::vec((any::<bool>(), 0..40_u64, 0..20_u64), 0..200),
        ) {
            let (mut spans, mut set) = (Spans::default(), BTreeSet::new());
            for (is_new, at, length) in steps {
                if is_new {
                    spans.insert(at);
                    set.insert(at);
                } else {
                    let before = set.len();
                    set.retain(|index| !(at..at + length).contains(index));
                    prop_assert_eq!(spans.take(at..at + length), (before - set.len()) as u64);
                }
                for index in 0..64 {
                    prop_assert_eq!(spans.contains(index), set.contains(&index));
                }
                let ends: Vec<_> = spans.0.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
