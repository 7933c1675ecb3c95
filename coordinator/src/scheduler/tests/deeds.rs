//! What can happen to a scheduler: the steps of the random world.

use proptest::prelude::*;

use super::super::Failures;
use super::world::SLOTS;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Open {
        order: bool,
        failures: Failures,
        lazy: bool,
        every_attempt: bool,
        retries: u32,
        backoff: u64,
        timeout: Option<u64>,
        separate: bool,
    },
    Push(usize, u32),
    PushEnded(usize),
    Seal(usize),
    Take(usize),
    Cancel(usize),
    Forget(usize),
    /// Of a map of separate calls, one of them.
    TakeOne(usize, usize),
    LetGo(usize, usize),
    CancelOne(usize, usize),
    Slot(usize, Deed),
    Collect(usize),
    Pass(u64),
    Pause,
    Resume,
    OutOfMemory(usize),
    Close,
    Stop,
    Terminate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Advance,
    /// Answers for all that is finished.
    Tell,
    Fail,
    OutOfTurn,
    Die,
    FailToStart,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let deed = prop_oneof![
        20 => Just(Deed::Advance),
        3 => Just(Deed::Tell),
        4 => Just(Deed::Fail),
        1 => Just(Deed::OutOfTurn),
        2 => Just(Deed::Die),
        1 => Just(Deed::FailToStart),
    ];
    let open = (
        any::<bool>(),
        prop_oneof![
            Just(Failures::Any),
            Just(Failures::First),
            (1..4_u64, any::<bool>()).prop_map(|(calls, now)| Failures::Most { calls, now }),
        ],
        (any::<bool>(), any::<bool>(), 0..4_u8),
        0..4_u32,
        0..3_u64,
        any::<bool>(),
    );
    prop_oneof![
        2 => open.prop_map(|(order, failures, (lazy, every_attempt, separate), retries, backoff, limited)| Step::Open {
            order,
            failures,
            lazy,
            every_attempt,
            retries,
            backoff: backoff * 20,
            timeout: limited.then_some(50),
            separate: separate == 0,
        }),
        8 => (0..4_usize, 1..30_u32).prop_map(|(map, count)| Step::Push(map, count)),
        1 => (0..4_usize).prop_map(Step::PushEnded),
        1 => (0..4_usize).prop_map(Step::Seal),
        6 => (0..4_usize).prop_map(Step::Take),
        1 => (0..4_usize).prop_map(Step::Cancel),
        1 => (0..4_usize).prop_map(Step::Forget),
        3 => (0..4_usize, 0..30_usize).prop_map(|(map, call)| Step::TakeOne(map, call)),
        1 => (0..4_usize, 0..30_usize).prop_map(|(map, call)| Step::LetGo(map, call)),
        3 => (0..4_usize, 0..30_usize).prop_map(|(map, call)| Step::CancelOne(map, call)),
        60 => (0..SLOTS, deed).prop_map(|(slot, deed)| Step::Slot(slot, deed)),
        2 => (0..SLOTS).prop_map(Step::Collect),
        6 => (1..80_u64).prop_map(Step::Pass),
        1 => (1000..1500_u64).prop_map(Step::Pass),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => (0..SLOTS).prop_map(Step::OutOfMemory),
        1 => Just(Step::Close),
        1 => prop_oneof![
            8 => Just(Step::Close),
            1 => Just(Step::Stop),
            1 => Just(Step::Terminate)
        ],
    ]
}
