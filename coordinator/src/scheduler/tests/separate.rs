//! Calls that have a caller each, of several kinds.

use proptest::prelude::*;

use super::*;

/// Has one worker run all calls, each for so long, and says by which numbers they start.
fn play(jobs: &mut Jobs, workers: &Workers, inputs: &[u64], each: Duration) -> Vec<u64> {
    let mut idle = jobs.ready(SlotId(0));
    let (mut started, mut now) = (Vec::new(), Time::ZERO);
    while started.len() < inputs.len() {
        let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, now, workers) else {
            panic!("calls are left")
        };
        workers.open(0, batch.count);
        for part in &batch.parts {
            let first = part.inputs.first + u64::from(part.at);
            started.extend(first..first + u64::from(part.count));
        }
        (0..batch.count).for_each(|_| assert!(workers.start(0, now)));
        workers.finish(0);
        now += each * batch.count;
        jobs.worked(&running, each * batch.count);
        jobs.values(&running, 0, batch.count, now, |_| (0, 0))
            .unwrap();
        idle = jobs.idle_again(running, now).unwrap();
    }
    started
}

proptest! {
    /// However short they are: what is sent together is never what came after another's call.
    #[test]
    fn calls_of_several_kinds_start_in_the_order_in_which_they_came(
        kinds in prop::collection::vec((0..3_usize, 1..40_usize), 1..60),
        micros in prop_oneof![Just(1), Just(100), Just(10_000_u64)],
    ) {
        let (mut jobs, workers) = (jobs(1), Workers::default());
        let separate = || MapSpec { separate: true, ..spec() };
        let maps = [(); 3].map(|()| jobs.open(separate()).unwrap());
        let calls = kinds.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
        let inputs: Vec<u64> = calls.zip(0..).map(|(kind, number)| {
            jobs.push(maps[kind], one(number));
            number
        }).collect();
        let started = play(&mut jobs, &workers, &inputs, Duration::from_micros(micros));
        prop_assert_eq!(started, inputs);
    }
}

/// Those of one kind are not held apart by calls of another that have started already.
#[test]
fn calls_of_one_kind_go_together_when_no_other_waits() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let separate = || MapSpec {
        separate: true,
        ..spec()
    };
    let [a, b] = [(); 2].map(|()| jobs.open(separate()).unwrap());
    let mut number = 0..;
    let mut push = |jobs: &mut Jobs, map| {
        let input = one(number.next().unwrap_or_default());
        jobs.push(map, input);
    };
    (0..100).for_each(|_| push(&mut jobs, a));
    play(&mut jobs, &workers, &[0; 100], Duration::from_micros(1));
    for _ in 0..50 {
        push(&mut jobs, a);
        push(&mut jobs, b);
        let last = jobs.pushed(b) - 1;
        jobs.cancel_one(b, last, Time::ZERO, "", &workers);
    }
    let idle = jobs.ready(SlotId(0));
    let Next::Run(_, batch) = jobs.next(idle, MOST_CALLS, Time::ZERO, &workers) else {
        panic!("calls are left")
    };
    assert!(batch.count > 1);
}

/// One worker, a map of `calls` calls, and separate calls of 1 ms of which more come than it runs. Returns how long the map
/// took, and how much of that the separate calls had.
fn beside_a_backlog(calls: u64, each: Duration) -> (Duration, Duration) {
    const OF_THE_MAP: u64 = 1 << 32;
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let map = jobs.open(spec()).unwrap();
    let separate = jobs
        .open(MapSpec {
            separate: true,
            ..spec()
        })
        .unwrap();
    for number in 0..calls {
        jobs.push(map, one(OF_THE_MAP + number));
    }
    let mut idle = jobs.ready(SlotId(0));
    let (mut now, mut left, mut theirs, mut number) = (Time::ZERO, calls, Duration::ZERO, 0..);
    while left > 0 {
        assert!(now < Duration::from_secs(60), "the map waits for ever");
        for number in number.by_ref().take(20) {
            jobs.push(separate, one(number));
        }
        let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, now, &workers) else {
            panic!("calls are left")
        };
        let is_map = batch.parts[0].inputs.first >= OF_THE_MAP;
        let took = batch.count * if is_map { each } else { millis(1) };
        match is_map {
            true => left -= u64::from(batch.count),
            false => theirs += took,
        }
        workers.open(0, batch.count);
        (0..batch.count).for_each(|_| assert!(workers.start(0, now)));
        workers.finish(0);
        now += took;
        jobs.worked(&running, took);
        jobs.values(&running, 0, batch.count, now, |_| (0, 0))
            .unwrap();
        idle = jobs.idle_again(running, now).unwrap();
    }
    (now, theirs)
}

#[test]
fn a_map_has_its_turn_beside_separate_calls_that_never_end() {
    let (took, _) = beside_a_backlog(100, millis(1));
    assert!(took < millis(100 * 25), "{took:?}");
}

#[test]
fn separate_calls_have_as_much_time_as_a_map_of_long_calls() {
    let (took, theirs) = beside_a_backlog(10, millis(300));
    assert!(took < millis(10 * 700), "{took:?}");
    assert!(theirs > took / 3, "{theirs:?} of {took:?}");
}
