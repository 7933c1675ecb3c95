//! The scheduler, with a fake clock: here by hand, in `world` at random.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::time::Duration;

use super::*;

type Jobs = Scheduler<u32, u64, u32>;

const GRACE: Duration = Duration::from_millis(100);

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn jobs(slots: usize) -> Jobs {
    Scheduler::new(
        slots,
        RestartLimit {
            count: 3,
            per: millis(1000),
        },
    )
}

fn limits() -> Limits {
    Limits {
        grace: GRACE,
        ..Limits::default()
    }
}

fn spec() -> MapSpec<u32> {
    MapSpec {
        job: 0,
        limits: limits(),
        order: Order::Input,
        window: Window {
            calls: 8,
            bytes: 1000,
        },
        fail_fast: false,
        lazy: false,
    }
}

/// Starts a worker in a slot and gives it the next call.
fn run(jobs: &mut Jobs, slot: usize, now: Time) -> (Running, u64) {
    let idle = jobs.ready(SlotId(slot));
    match jobs.next(idle, now) {
        Next::Run(running, batch) => (running, batch.calls[0].index),
        other => panic!("{other:?}"),
    }
}

#[test]
fn maps_are_served_in_turn() {
    let mut jobs = jobs(1);
    let maps = [jobs.open(spec()).unwrap(), jobs.open(spec()).unwrap()];
    for map in maps {
        (0..3).for_each(|input| _ = jobs.push(map, input, 1));
    }
    let mut idle = jobs.ready(SlotId(0));
    let mut served = Vec::new();
    for _ in 0..6 {
        let Next::Run(mut running, batch) = jobs.next(idle, Time::ZERO) else {
            panic!()
        };
        served.push(running.map());
        jobs.reply(&mut running, batch.calls[0].index, Ok(()), 0, 0, Time::ZERO)
            .unwrap();
        idle = jobs.idle_again(running).unwrap();
    }
    let [a, b] = maps;
    assert_eq!(served, [a, b, a, b, a, b]);
}

#[test]
fn failing_fast_cancels_what_is_behind_and_lets_finish_what_is_before() {
    let mut jobs = jobs(2);
    let map = jobs
        .open(MapSpec {
            fail_fast: true,
            ..spec()
        })
        .unwrap();
    (0..4).for_each(|input| _ = jobs.push(map, input, 1));
    let (mut first, _) = run(&mut jobs, 0, Time::ZERO);
    let (mut second, _) = run(&mut jobs, 1, Time::ZERO);
    jobs.reply(
        &mut second,
        1,
        Err(Why::Failed("no".into())),
        0,
        0,
        Time::ZERO,
    )
    .unwrap();
    assert_eq!(jobs.take(map), Take::Pending);
    jobs.reply(&mut first, 0, Ok(()), 0, 0, Time::ZERO).unwrap();
    assert!(matches!(
        jobs.take(map),
        Take::Ready(0, Ended { result: Ok(()), .. })
    ));
    assert!(matches!(
        jobs.take(map),
        Take::Ready(
            1,
            Ended {
                result: Err(Why::Failed(_)),
                ..
            }
        )
    ));
    assert!(matches!(
        jobs.take(map),
        Take::Ready(
            2,
            Ended {
                result: Err(Why::Cancelled),
                ..
            }
        )
    ));
}

#[test]
fn sigterm_at_the_limit_and_sigkill_after_the_grace() {
    let mut jobs = jobs(1);
    let limits = Limits {
        timeout: Some(millis(50)),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, 0, 1);
    // It was queued for long: the limit counts from its start.
    let (running, _) = run(&mut jobs, 0, millis(1000));
    let signals = |jobs: &mut Jobs, now| {
        jobs.overdue(millis(now));
        jobs.take_effects().signals
    };
    assert_eq!(jobs.next_deadline(), Some(millis(1050)));
    assert_eq!(signals(&mut jobs, 1049), []);
    assert_eq!(signals(&mut jobs, 1050), [(SlotId(0), Stage::Term)]);
    assert_eq!(signals(&mut jobs, 1149), []);
    assert_eq!(signals(&mut jobs, 1150), [(SlotId(0), Stage::Kill)]);
    assert_eq!(jobs.next_deadline(), None);
    jobs.died(running, Why::Died(crate::Death::Signal(9)), 0, millis(1151));
    let Take::Ready(0, ended) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(ended.result, Err(Why::TimedOut(millis(50))));
}

#[test]
fn a_pause_does_not_count() {
    let mut jobs = jobs(2);
    let limits = Limits {
        timeout: Some(millis(50)),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, 0, 1);
    jobs.push(map, 1, 1);
    let (_running, _) = run(&mut jobs, 0, millis(0));
    jobs.pause(millis(20));
    assert_eq!(
        jobs.take_effects().signals,
        [(SlotId(0), Stage::Stop)],
        "only what runs is stopped"
    );
    jobs.overdue(millis(500));
    assert!(jobs.take_effects().signals.is_empty());
    let idle = jobs.ready(SlotId(1));
    let Next::Wait(idle, None) = jobs.next(idle, millis(500)) else {
        panic!("it started something")
    };
    jobs.resume(millis(1020));
    let effects = jobs.take_effects();
    assert_eq!(effects.signals, [(SlotId(0), Stage::Continue)]);
    assert!(effects.everyone);
    assert!(matches!(jobs.next(idle, millis(1020)), Next::Run(..)));
    assert_eq!(jobs.next_deadline(), Some(millis(1050)));
}

#[test]
fn memory_that_is_used_up_is_no_bare_signal() {
    let mut jobs = jobs(1);
    let limits = Limits {
        memory: Some(1000),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, 0, 1);
    let (running, _) = run(&mut jobs, 0, millis(0));
    let watched: Vec<_> = jobs.memory_limits().collect();
    assert_eq!(watched, [(SlotId(0), 1000)]);
    jobs.out_of_memory(SlotId(0), 1000, millis(1));
    assert_eq!(jobs.take_effects().signals, [(SlotId(0), Stage::Kill)]);
    assert_eq!(jobs.memory_limits().count(), 0);
    jobs.died(running, Why::Died(crate::Death::Signal(9)), 0, millis(2));
    let Take::Ready(0, ended) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(ended.result, Err(Why::OutOfMemory { limit: 1000 }));
}

#[test]
fn stopping_finishes_what_runs_and_tries_nothing_again() {
    let mut jobs = jobs(1);
    let limits = Limits {
        retries: 5,
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    (0..3).for_each(|input| _ = jobs.push(map, input, 1));
    let (mut running, _) = run(&mut jobs, 0, millis(0));
    jobs.stop(millis(1), "stopped");
    assert!(jobs.take_effects().signals.is_empty());
    let failed = Err(Why::Failed("no".into()));
    jobs.reply(&mut running, 0, failed.clone(), 0, 0, millis(2))
        .unwrap();
    let idle = jobs.idle_again(running).unwrap();
    assert!(matches!(jobs.next(idle, millis(2)), Next::Leave));
    let Take::Ready(0, first) = jobs.take(map) else {
        panic!()
    };
    assert_eq!((first.result, first.attempts), (failed, 1));
    for index in 1..3 {
        let Take::Ready(at, ended) = jobs.take(map) else {
            panic!()
        };
        assert_eq!((at, ended.result), (index, Err(Why::Cancelled)));
    }
}

#[test]
fn backoff_doubles_and_is_waited_for() {
    let mut jobs = jobs(1);
    let limits = Limits {
        retries: 3,
        backoff: millis(100),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, 0, 1);
    let mut now = Time::ZERO;
    let mut idle = jobs.ready(SlotId(0));
    let mut waits = Vec::new();
    for attempt in 1..=4 {
        let Next::Run(mut running, batch) = jobs.next(idle, now) else {
            panic!()
        };
        assert_eq!(batch.calls[0].attempt, attempt);
        jobs.reply(&mut running, 0, Err(Why::Failed("no".into())), 0, 0, now)
            .unwrap();
        idle = jobs.idle_again(running).unwrap();
        if attempt < 4 {
            let Next::Wait(again, Some(until)) = jobs.next(idle, now) else {
                panic!()
            };
            waits.push((until - now).as_millis());
            (idle, now) = (again, until);
        }
    }
    // By call 0 the stretch is none.
    assert_eq!(waits, [100, 200, 400]);
    assert!(matches!(
        jobs.take(map),
        Take::Ready(0, Ended { attempts: 4, .. })
    ));
}

#[test]
fn a_slot_that_was_to_wake_up_for_a_call_and_takes_another_says_so() {
    let mut jobs = jobs(2);
    let limits = Limits {
        retries: 1,
        backoff: millis(100),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, 0, 1);
    let (mut running, _) = run(&mut jobs, 0, millis(0));
    let failed = Err(Why::Failed("no".into()));
    jobs.reply(&mut running, 0, failed, 0, 0, millis(0))
        .unwrap();
    let idle = jobs.idle_again(running).unwrap();
    let Next::Wait(idle, Some(_)) = jobs.next(idle, millis(0)) else {
        panic!()
    };
    jobs.push(map, 1, 1);
    jobs.take_effects();
    assert!(matches!(jobs.next(idle, millis(1)), Next::Run(..)));
    assert_eq!(jobs.take_effects().work, 1);
}

#[test]
fn too_many_failing_starts_end_the_pool_with_the_cause() {
    let mut jobs = jobs(1);
    let map = jobs.open(spec()).unwrap();
    jobs.push(map, 0, 1);
    let idle = jobs.ready(SlotId(0));
    jobs.idle_died(idle);
    for at in [0, 2000, 2100] {
        jobs.start_failed("no licence", millis(at));
        assert!(jobs.wants_worker());
    }
    jobs.start_failed("no licence", millis(2200));
    assert!(!jobs.wants_worker());
    let Take::Ready(0, ended) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(
        (ended.result, ended.note),
        (Err(Why::Cancelled), Some("no licence".to_owned()))
    );
}

#[test]
fn closing_seals_what_is_read_lazily_and_nothing_else() {
    let mut jobs = jobs(1);
    let eager = jobs.open(spec()).unwrap();
    let lazy = jobs
        .open(MapSpec {
            lazy: true,
            ..spec()
        })
        .unwrap();
    jobs.close();
    assert!(jobs.open(spec()).is_err());
    assert_eq!((jobs.has_room(eager), jobs.has_room(lazy)), (true, false));
    assert!(jobs.wants_worker());
    jobs.seal(eager);
    assert!(!jobs.wants_worker());
}
