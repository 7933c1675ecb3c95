//! Sequences of numbers in which neighbours are often equal: whatever is done to one, it is that of a vector.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use protocol::LinkError;
use protocol::message::Runs;

#[derive(Debug, Clone)]
enum Step {
    Push(u32),
    Pop,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3_u32).prop_map(Step::Push),
        1 => any::<u32>().prop_map(Step::Push),
        4 => Just(Step::Pop),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #[test]
    fn runs_are_a_vector(steps in prop::collection::vec(step(), 0..60)) {
        let (mut runs, mut numbers) = (Runs::default(), Vec::new());
        for step in steps {
            match step {
                Step::Push(number) => {
                    runs.push(number);
                    numbers.push(number);
                }
                Step::Pop => {
                    runs.pop();
                    numbers.pop();
                }
                Step::Clear => {
                    runs.clear();
                    numbers.clear();
                }
            }
            prop_assert_eq!(runs.to_vec(), numbers.clone());
            prop_assert_eq!(runs.iter().collect::<Vec<_>>(), numbers.clone());
            prop_assert_eq!(runs.count(), numbers.len() as u64);
            prop_assert_eq!(runs.sum(), numbers.iter().map(|number| u64::from(*number)).sum::<u64>());
        }
    }
}

#[test]
fn equal_neighbours_cost_nothing() {
    let mut runs = Runs::default();
    (0..10_000).for_each(|_| runs.push(7));
    let mut bytes = Vec::new();
    protocol::encode(&runs, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 7, 0x90, 0x4e]);
}

#[test]
fn a_broken_link_says_how() {
    let said = |kind: std::io::ErrorKind| LinkError::Broken(kind.into()).to_string();
    let late = said(std::io::ErrorKind::WouldBlock);
    assert!(!late.contains("temporarily"), "{late}");
    assert_eq!(late, said(std::io::ErrorKind::TimedOut));
    assert_ne!(late, said(std::io::ErrorKind::ConnectionReset));
}
