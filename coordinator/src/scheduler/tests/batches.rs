//! Calls that travel together: whom a death is charged to, whose time is up, and what is taken back.

use std::time::Duration;

use super::*;

/// Room for all calls of these tests.
const WIDE: Window = Window {
    calls: 100_000,
    bytes: 10_000_000,
    least: 1,
};

#[test]
fn whoever_waits_is_told_when_calls_begin_to_travel_together() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let map = jobs
        .open(MapSpec {
            window: WIDE,
            ..spec()
        })
        .unwrap();
    let (first, count) = (0, 1000);
    jobs.push(map, Numbers { first, count });
    let (running, _) = run(&mut jobs, &workers, 0, Time::ZERO);
    let idle = answer(
        &mut jobs,
        &workers,
        running,
        Ok(()),
        Duration::from_micros(20),
    );
    let other = jobs.ready(SlotId(1));
    for (idle, is_told) in [(idle, true), (other, false)] {
        jobs.take_effects();
        let slot = idle.slot.0;
        let Next::Run(_, batch) = jobs.next(idle, MOST_CALLS, Time::ZERO, &workers) else {
            panic!()
        };
        workers.open(slot, batch.count);
        assert!(batch.count > 1);
        // Once he looks by himself, another batch is no news.
        assert_eq!(jobs.take_effects().wake.contains(&map), is_told);
    }
}

/// A map whose calls are known to be short, so that it goes in batches; and a batch of it.
fn batch(
    jobs: &mut Jobs,
    workers: &Workers,
    limits: Limits,
    calls: u32,
) -> (MapId, Running, Idle, u32) {
    let spec = MapSpec {
        limits,
        window: WIDE,
        ..spec()
    };
    let map = jobs.open(spec).unwrap();
    jobs.push(
        map,
        Numbers {
            first: 0,
            count: calls + 1,
        },
    );
    let (running, _) = run(jobs, workers, 0, Time::ZERO);
    let mut idle = answer(jobs, workers, running, Ok(()), Duration::from_micros(20));
    loop {
        let now = Duration::from_micros(40);
        let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, now, workers) else {
            panic!()
        };
        workers.open(0, batch.count);
        if batch.count > 4 {
            let other = jobs.ready(SlotId(1));
            return (map, running, other, batch.count);
        }
        (0..batch.count).for_each(|_| assert!(workers.start(0, now)));
        workers.finish(0);
        jobs.values(&running, 0, batch.count, now, |_| (0, 0))
            .unwrap();
        idle = jobs.idle_again(running, now).unwrap();
    }
}

#[test]
fn each_call_of_a_batch_has_its_own_limit() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let limits = Limits {
        timeout: Some(millis(50)),
        ..limits()
    };
    let (_, running, _idle, _) = batch(&mut jobs, &workers, limits, 100);
    // The first takes 40 ms; the second begins, and nobody says so.
    workers.start(0, millis(0));
    workers.finish(0);
    workers.start(0, millis(40));
    jobs.take_effects();
    jobs.overdue(millis(51), &workers);
    assert!(jobs.take_effects().signals.is_empty());
    assert_eq!(jobs.next_deadline(), Some(millis(90)));
    jobs.overdue(millis(90), &workers);
    assert_eq!(jobs.take_effects().signals, [(SlotId(0), Stage::Term)]);
    // The first has finished: it was found. What is behind the second waits again.
    jobs.found(SlotId(0), 1, Time::ZERO, |_| (0, 0));
    let (_, waiting) = jobs.load();
    assert!(
        jobs.died(running, 2, died(), 0, millis(91), &workers)
            .charged
    );
    assert_eq!(jobs.load(), (0, waiting));
}

/// What becomes of a worker that has nothing left to run, and does not say so.
fn is_killed_for_its_silence(jobs: &mut Jobs, workers: &Workers, running: Running, now: Time) {
    assert!(jobs.take_effects().rearm);
    let answer = Duration::from_secs(1);
    assert_eq!(jobs.next_deadline(), Some(now + answer));
    jobs.overdue(now + answer, workers);
    assert_eq!(jobs.take_effects().signals, [(SlotId(0), Stage::Kill)]);
    // What it says now does not make it one that can be used again.
    assert!(!jobs.is_answered(&running));
    let loss = jobs.died(running, 0, died(), 0, now + answer, workers);
    assert_eq!((loss.charged, loss.doomed), (false, true));
}

/// A worker that has begun the one call of a map, which may take 50 ms.
fn one_limited_call() -> (Jobs, Workers, MapId, Running) {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        timeout: Some(millis(50)),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, one(0));
    let (running, _) = run(&mut jobs, &workers, 0, millis(0));
    jobs.take_effects();
    (jobs, workers, map, running)
}

#[test]
fn a_worker_that_keeps_setting_its_clock_back_does_not_evade_the_limit() {
    // The same call for ever: so long it may, because it may be resolving a backtrace. As if it went back and forth, or
    // as if there were calls that there are not: that is a lie, and seen when one looks.
    type Claim = fn(u32) -> u32;
    let lies: [(Claim, Duration); 3] = [
        (|_| 1, slot::SET_BACK),
        (|step| 1 + step % 2, millis(0)),
        (|_| u32::MAX, millis(0)),
    ];
    for (started, expected) in lies {
        let (mut jobs, workers, _, _running) = one_limited_call();
        let killed = (1..2000).find(|step| {
            let now = millis(10) * *step;
            let mut all = workers.0.borrow_mut();
            let seen = &mut all.get_mut(&0).unwrap().0;
            (seen.started, seen.began) = (started(*step), now);
            drop(all);
            jobs.overdue(now, &workers);
            !jobs.take_effects().signals.is_empty()
        });
        // One looks at its clock once in 50 ms.
        let killed = millis(10) * killed.unwrap();
        let late = killed.abs_diff(expected);
        assert!(late <= millis(50) * 3, "after {killed:?}");
    }
}

#[test]
fn a_worker_that_claims_to_be_done_and_does_not_say_so_dies() {
    for doom in ["time", "memory", "cancelled"] {
        let (mut jobs, workers, map, running) = one_limited_call();
        workers.finish(0);
        let now = millis(if doom == "time" { 60 } else { 30 });
        match doom {
            "time" => {}
            "memory" => jobs.out_of_memory(SlotId(0), 1, now, &workers),
            _ => jobs.cancel(map, now, "", &workers),
        }
        for late in [0, 500, 999] {
            jobs.overdue(now + millis(late), &workers);
            assert!(jobs.take_effects().signals.is_empty(), "{doom}");
        }
        jobs.overdue(now + millis(1001), &workers);
        assert_eq!(
            jobs.take_effects().signals,
            [(SlotId(0), Stage::Kill)],
            "{doom}"
        );
        let loss = jobs.died(running, 1, died(), 0, now + millis(1001), &workers);
        assert!(loss.doomed, "{doom}");
    }
}

#[test]
fn what_a_worker_was_seen_to_have_started_it_has_started() {
    let (mut jobs, workers, _, running) = one_limited_call();
    let set = |started, began| {
        let mut all = workers.0.borrow_mut();
        let seen = &mut all.get_mut(&0).unwrap().0;
        (seen.started, seen.began) = (started, began);
    };
    // Somebody looks; then it says that it has never started anything, and dies.
    set(1, millis(40));
    jobs.overdue(millis(50), &workers);
    set(0, millis(0));
    let loss = jobs.died(running, 0, died(), 0, millis(60), &workers);
    assert!(loss.charged);
    assert_eq!(jobs.load(), (0, 0));
}

#[test]
fn a_worker_that_does_not_say_that_it_is_done_does_not_hold_up_the_others() {
    // All of its calls were taken back.
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let map = jobs.open(spec()).unwrap();
    jobs.push(map, one(0));
    let idle = jobs.ready(SlotId(0));
    let Next::Run(running, batch_of_one) = jobs.next(idle, MOST_CALLS, Time::ZERO, &workers) else {
        panic!()
    };
    workers.open(0, batch_of_one.count);
    jobs.take_effects();
    jobs.cancel(map, millis(7), "nobody wants it", &workers);
    is_killed_for_its_silence(&mut jobs, &workers, running, millis(7));
    // All of them were found.
    let (mut jobs, workers) = (super::jobs(2), Workers::default());
    let (_, running, _idle, count) = batch(&mut jobs, &workers, limits(), 100);
    jobs.take_effects();
    assert_eq!(jobs.found(SlotId(0), count, millis(9), |_| (0, 0)), count);
    is_killed_for_its_silence(&mut jobs, &workers, running, millis(9));
}

#[test]
fn only_the_call_that_was_running_is_charged() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let (map, running, _idle, count) = batch(&mut jobs, &workers, limits(), 100);
    let Take::Ready(0, taken, _) = jobs.take(map) else {
        panic!()
    };
    let mut first = u64::from(taken);
    while let Take::Ready(index, count, _) = jobs.take(map) {
        first = index + u64::from(count);
    }
    jobs.values(&running, 0, 2, millis(1), |range| {
        assert_eq!(range, 0..2);
        (0, 0)
    })
    .unwrap();
    // The third was found, the fourth was running.
    jobs.found(SlotId(0), 1, Time::ZERO, |_| (0, 0));
    assert!(
        jobs.died(running, 4, died(), 0, millis(2), &workers)
            .charged
    );
    let mut outcomes = Vec::new();
    while let Take::Ready(index, count, ended) = jobs.take(map) {
        outcomes.push((index - first, count, ended.result));
    }
    let expected = [(0, 2, Ok(())), (2, 1, Ok(())), (3, 1, Err(died()))];
    assert_eq!(outcomes, expected);
    assert!(count > 4);
}

#[test]
fn what_was_finished_before_a_doomed_call_is_found_even_if_that_finishes_after_all() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let (map, running, _idle, _) = batch(&mut jobs, &workers, limits(), 100);
    let mut first = 0;
    while let Take::Ready(index, count, _) = jobs.take(map) {
        first = index + u64::from(count);
    }
    (0..3).for_each(|_| assert!(workers.start(0, millis(0))));
    jobs.terminate(millis(1), "over", &workers);
    // The third ends before the signal arrives.
    workers.finish(0);
    assert_eq!(
        jobs.found(SlotId(0), 3, Time::ZERO, |news| (0, news as usize)),
        2
    );
    assert_eq!(jobs.found(SlotId(0), 1, Time::ZERO, |_| panic!()), 0);
    assert!(
        jobs.died(running, 3, died(), 0, millis(2), &workers)
            .charged
    );
    let mut take = || match jobs.take(map) {
        Take::Ready(index, count, ended) => (index - first, count, ended.result),
        other => panic!("{other:?}"),
    };
    assert_eq!(take(), (0, 2, Ok(())));
    assert_eq!(take(), (2, 1, Err(Why::Cancelled)));
}

#[test]
fn what_stands_behind_a_slow_call_is_given_to_whoever_is_idle() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let (_, running, idle, count) = batch(&mut jobs, &workers, limits(), 100);
    let (mut idle, mut now) = (idle, millis(0));
    // The other slot runs what was left for it.
    loop {
        match jobs.next(idle, MOST_CALLS, now, &workers) {
            Next::Run(other, batch) => {
                workers.open(1, batch.count);
                (0..batch.count).for_each(|_| assert!(workers.start(1, now)));
                workers.finish(1);
                jobs.values(&other, 0, batch.count, now, |_| (0, 0))
                    .unwrap();
                idle = jobs.idle_again(other, now).unwrap();
            }
            Next::Wait(again, until) => {
                (idle, now) = (again, until.unwrap());
                break;
            }
            Next::Leave => panic!(),
        }
    }
    // The first call of the batch takes its time. All that is behind it is taken back.
    workers.start(0, millis(0));
    let now = now + STUCK;
    let Next::Run(_other, stolen) = jobs.next(idle, MOST_CALLS, now, &workers) else {
        panic!()
    };
    assert_eq!(workers.lower(SlotId(0), 0), 1);
    assert!(stolen.count >= 1 && stolen.count < count);
    // It says that it will run no more, and is idle again.
    workers.finish(0);
    jobs.values(&running, 0, 1, now, |_| (0, 0)).unwrap();
    assert!(jobs.stopped(&running, 2).is_err());
    jobs.stopped(&running, 1).unwrap();
    let _idle = jobs.idle_again(running, now).unwrap();
}

#[test]
fn calls_that_have_not_begun_can_be_withdrawn() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let map = jobs.open(spec()).unwrap();
    jobs.push(map, Numbers { first: 0, count: 6 });
    jobs.seal(map);
    // As if short calls had been seen: then they go together.
    jobs.with_map(map, |map| {
        (0..8).for_each(|_| map.pace.learn(10_000, millis(1)))
    });
    let (running, first) = run(&mut jobs, &workers, 0, millis(1));
    assert_eq!(first, 0);
    jobs.withdraw(map, 2, false, millis(2), &workers);
    // The one that runs is finished, and so are those before the index.
    jobs.reply(&running, 0, Ok(()), (1, 1), millis(3), &workers)
        .unwrap();
    jobs.stopped(&running, 1).unwrap();
    let idle = jobs.idle_again(running, millis(3)).unwrap();
    let (running, first) = begin(&mut jobs, &workers, idle, millis(4));
    assert_eq!(first, 1);
    jobs.reply(&running, 0, Ok(()), (1, 1), millis(5), &workers)
        .unwrap();
    let mut results = Vec::new();
    while let Take::Ready(first, count, ended) = jobs.take(map) {
        let of = |index| (index, ended.result.is_ok(), ended.attempts);
        results.extend((first..first + u64::from(count)).map(of));
    }
    let withdrawn = (2..6).map(|index| (index, false, 0));
    let finished = [(0, true, 1), (1, true, 1)].into_iter();
    assert_eq!(results, finished.chain(withdrawn).collect::<Vec<_>>());
    drop(running);
}

/// The size of the first batch of a map of a kind, whose calls take so long each.
fn first_batch(
    jobs: &mut Jobs,
    workers: &Workers,
    idle: Idle,
    kind: Option<u64>,
    each: Duration,
) -> (u32, Idle) {
    let spec = MapSpec {
        window: WIDE,
        kind,
        ..spec()
    };
    let map = jobs.open(spec).unwrap();
    let (first, count) = (0, 10_000);
    jobs.push(map, Numbers { first, count });
    let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, Time::ZERO, workers) else {
        panic!()
    };
    workers.open(0, batch.count);
    (0..batch.count).for_each(|_| assert!(workers.start(0, Time::ZERO)));
    workers.finish(0);
    let took = each * batch.count;
    jobs.worked(&running, took);
    jobs.values(&running, 0, batch.count, took, |_| (0, 0))
        .unwrap();
    let idle = jobs.idle_again(running, took).unwrap();
    jobs.cancel(map, took, "over", workers);
    jobs.forget(map);
    (batch.count, idle)
}

#[test]
fn a_map_begins_at_the_pace_of_the_last_of_its_kind() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let mut idle = jobs.ready(SlotId(0));
    let (short, long) = (Duration::from_micros(1), millis(20));
    for (kind, each, expected) in [
        (Some(1), short, 1),
        (Some(1), short, 8),
        (Some(2), short, 1),
        (None, short, 1),
        (None, short, 1),
        (Some(1), long, 64),
        // What was known before counts no more.
        (Some(1), short, 1),
        (Some(1), short, 512),
    ] {
        let (size, next) = first_batch(&mut jobs, &workers, idle, kind, each);
        idle = next;
        assert_eq!(size, expected, "{kind:?} {each:?}");
    }
}
