//! What the scheduler says of itself, and the limits it keeps, number by number.

use super::*;

/// A slot that runs a batch of so many calls of a map, of which the first has begun.
fn batch(jobs: &mut Jobs, workers: &Workers, map: MapId, calls: u32) -> Running {
    let first = jobs.maps[&map].end();
    jobs.push(
        map,
        Numbers {
            first,
            count: calls,
        },
    );
    // As if short calls had been seen: then they go together.
    jobs.with_map(map, |map| {
        (0..8).for_each(|_| map.pace.learn(10_000, millis(1)));
    });
    let (running, _) = run(jobs, workers, 0, millis(10));
    running
}

/// A map whose window is no limit.
fn wide() -> MapSpec<u32> {
    MapSpec {
        window: Window {
            calls: 80,
            bytes: 1 << 20,
            least: 1,
        },
        ..spec()
    }
}

#[test]
fn load_counts_what_runs_and_what_waits() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    assert_eq!(jobs.load(), (0, 0));
    let map = jobs.open(wide()).unwrap();
    let running = batch(&mut jobs, &workers, map, 10);
    let sent = jobs.slots[0].busy().unwrap().sent;
    assert!(sent > 2, "{sent}");
    // One runs; those behind it in the batch wait, as do those that were not sent.
    assert_eq!(jobs.load(), (1, 9));
    jobs.found(SlotId(0), 2, millis(11), |_| (0, 0));
    assert_eq!(jobs.load(), (1, 7));
    jobs.found(SlotId(0), sent - 2, millis(12), |_| (0, 0));
    // Its worker has only to say so.
    assert_eq!(jobs.load(), (0, 10 - sent as usize));
    assert!(jobs.is_batching(map));
    let other = jobs.open(wide()).unwrap();
    assert!(!jobs.is_batching(other));
    drop(running);
}

#[test]
fn what_runs_on_a_slot_is_the_call_that_began_last() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let map = jobs.open(wide()).unwrap();
    let running = batch(&mut jobs, &workers, map, 10);
    jobs.sent(&running, millis(10));
    let current = |jobs: &Jobs| {
        jobs.running_on(SlotId(0), &workers)
            .map(|it| (it.index, it.since, it.is_next))
    };
    // It began when the batch was sent, or later if its worker says so.
    assert_eq!(current(&jobs), Some((0, millis(10), true)));
    workers.finish(0);
    workers.start(0, millis(15));
    assert_eq!(current(&jobs), Some((1, millis(15), false)));
    jobs.found(SlotId(0), 1, millis(16), |_| (0, 0));
    assert_eq!(current(&jobs), Some((1, millis(15), true)));
    workers.finish(0);
    jobs.found(SlotId(0), 1, millis(17), |_| (0, 0));
    // Between two calls.
    assert_eq!(current(&jobs), None);
    drop(running);
}

#[test]
fn a_full_window_has_room_again_when_an_eighth_of_it_is_free() {
    let mut jobs = jobs(1);
    let map = jobs.open(wide()).unwrap();
    jobs.cancel(map, Time::ZERO, "", &Workers::default());
    let map = jobs
        .open(MapSpec {
            lazy: true,
            ..wide()
        })
        .unwrap();
    for number in 0..80 {
        assert!(jobs.has_room(map), "{number}");
        jobs.push_ended(
            map,
            Why::Failed(String::new()),
            Time::ZERO,
            &Workers::default(),
        );
    }
    assert!(!jobs.has_room(map));
    for _ in 0..9 {
        assert!(matches!(jobs.take(map), Take::Ready(_, 1, _)));
        assert!(!jobs.has_room(map));
    }
    assert!(matches!(jobs.take(map), Take::Ready(_, 1, _)));
    assert!(jobs.has_room(map));
}

#[test]
fn there_is_something_to_do_while_calls_wait_for_their_time_or_behind_another() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    assert!(!jobs.has_ready());
    let limits = Limits {
        retries: 1,
        backoff: millis(50),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..wide() }).unwrap();
    jobs.push(map, one(0));
    assert!(jobs.has_ready() && jobs.is_next(map));
    let other = jobs.open(wide()).unwrap();
    assert!(!jobs.is_next(other));
    let (running, _) = run(&mut jobs, &workers, 0, Time::ZERO);
    assert!(!jobs.has_ready() && !jobs.is_next(map));
    let _idle = answer(&mut jobs, &workers, running, failed(), Time::ZERO);
    assert!(jobs.has_ready(), "it waits for its backoff");
}

#[test]
fn calls_behind_another_are_spare_and_a_slots_last_call_is_not() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let map = jobs.open(wide()).unwrap();
    let running = batch(&mut jobs, &workers, map, 2);
    let sent = jobs.slots[0].busy().unwrap().sent;
    assert_eq!(jobs.has_spare(), sent > 1);
    jobs.found(SlotId(0), sent - 1, millis(11), |_| (0, 0));
    assert!(!jobs.has_spare());
    drop(running);
}

#[test]
fn a_worker_that_has_gone_is_said_to_have_begun_what_it_began() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let map = jobs.open(wide()).unwrap();
    let running = batch(&mut jobs, &workers, map, 10);
    workers.finish(0);
    workers.start(0, millis(15));
    assert_eq!(jobs.gone(&running, &workers), 2);
    // It starts nothing more, and has no deadline.
    assert!(!workers.start(0, millis(16)));
    assert_eq!(jobs.next_deadline(), None);
    assert_eq!(jobs.why_killed(&running), None);
}

#[test]
fn a_liar_is_told_of_in_words() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let map = jobs.open(wide()).unwrap();
    let running = batch(&mut jobs, &workers, map, 10);
    let began = 10;
    let lie = Lie {
        started: 99,
        finished: 0,
        began,
        allowed: 99,
    };
    workers.lie(0, lie);
    jobs.out_of_memory(SlotId(0), 1, millis(12), &workers);
    assert_eq!(jobs.take_effects().signals, [(SlotId(0), Stage::Kill)]);
    assert!(
        jobs.why_killed(&running)
            .unwrap()
            .contains("makes no sense")
    );
}

#[test]
fn a_slot_that_is_abandoned_costs_the_call_it_ran() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let map = jobs.open(wide()).unwrap();
    let running = batch(&mut jobs, &workers, map, 10);
    drop(running);
    jobs.abandon(SlotId(0), 7, millis(12), &workers);
    let Take::Ready(0, 1, ended) = jobs.take(map) else {
        panic!("nothing has ended")
    };
    assert_eq!((ended.result, ended.trace), (Err(died()), Some(7)));
    // The others wait for another worker.
    assert_eq!(jobs.take(map), Take::Pending);
    assert_eq!(jobs.load(), (0, 9));
}

#[test]
fn more_slots_are_let_in_only_if_one_is_late() {
    let (mut jobs, workers) = (jobs(4), Workers::default());
    let map = jobs.open(wide()).unwrap();
    let count = 10;
    jobs.push(map, Numbers { first: 0, count });
    let (first, _) = run(&mut jobs, &workers, 0, millis(10));
    let of_map = |jobs: &Jobs| jobs.maps[&map].wants_more();
    assert!(of_map(&jobs));
    let (second, _) = run(&mut jobs, &workers, 1, millis(10));
    // As many as there are processors.
    assert!(!of_map(&jobs));
    let back = jobs.maps[&map].back;
    jobs.with_map(map, |map| map.look_for_late(back - millis(1)));
    assert!(!of_map(&jobs));
    jobs.with_map(map, |map| map.look_for_late(back));
    assert!(of_map(&jobs));
    drop((first, second));
}

/// Inputs of 100 KiB each.
#[derive(Debug, Clone, Copy)]
struct Large(u32);

impl Bundle for Large {
    fn count(&self) -> u32 {
        self.0
    }
    fn bytes(&self, _: u32, count: u32) -> usize {
        count as usize * (100 << 10)
    }
    fn join(&mut self, _: &Self) -> bool {
        false
    }
}

#[test]
fn a_batch_has_no_more_bytes_than_it_may_unless_one_call_has() {
    let restart_limit = RestartLimit {
        count: 3,
        per: millis(1000),
    };
    let mut jobs: Scheduler<u32, Large, u32> = Scheduler::new(1, 2, restart_limit);
    let workers = Workers::default();
    let window = Window {
        calls: 100,
        bytes: 1 << 30,
        least: 1,
    };
    let map = jobs.open(MapSpec { window, ..spec() }).unwrap();
    // In pieces of one, and together.
    for count in [1, 1, 1, 30] {
        jobs.push(map, Large(count));
    }
    jobs.with_map(map, |map| {
        (0..8).for_each(|_| map.pace.learn(10_000, millis(1)));
    });
    let mut idle = jobs.ready(SlotId(0));
    let mut sizes = Vec::new();
    while let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, millis(1), &workers) {
        sizes.push(batch.count);
        let count = batch.count;
        jobs.values(&running, 0, count, millis(1), |_| (0, 0))
            .unwrap();
        idle = jobs.idle_again(running, millis(1)).unwrap();
        if sizes.iter().sum::<u32>() == 33 {
            break;
        }
    }
    // Two fit into 256 KiB, three do not.
    assert!(sizes.iter().all(|size| (1..=2).contains(size)), "{sizes:?}");
    assert!(
        sizes.iter().filter(|size| **size == 2).count() >= 10,
        "{sizes:?}"
    );
    assert_eq!(sizes.iter().sum::<u32>(), 33);
}

/// A call that is tried again counts as waiting, and not as running.
#[test]
fn a_call_between_two_attempts_waits() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        retries: 2,
        backoff: millis(50),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..wide() }).unwrap();
    jobs.push(map, one(0));
    let (running, _) = run(&mut jobs, &workers, 0, Time::ZERO);
    assert_eq!(jobs.load(), (1, 0));
    let idle = answer(&mut jobs, &workers, running, failed(), Time::ZERO);
    assert_eq!(jobs.load(), (0, 1));
    let (_running, _) = begin(&mut jobs, &workers, idle, millis(200));
    assert_eq!(jobs.load(), (1, 0));
}

/// Many workers may be killed at once, from outside, each of which had just been given the same call.
#[test]
fn each_attempt_of_a_call_survives_two_workers_that_died_before_it_began() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        retries: 1,
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..wide() }).unwrap();
    jobs.push(map, one(0));
    let mut deaths = 0;
    while jobs.take(map) == Take::Pending {
        let idle = jobs.ready(SlotId(0));
        let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, Time::ZERO, &workers) else {
            panic!("nothing to run")
        };
        workers.open(0, batch.count);
        let started = jobs.gone(&running, &workers);
        jobs.died(running, started, died(), 0, Time::ZERO, &workers);
        deaths += 1;
    }
    assert_eq!(deaths, 6);
}

#[test]
fn a_map_says_what_it_has_been_given_and_whether_it_takes_more() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let (map, other) = (jobs.open(wide()).unwrap(), jobs.open(wide()).unwrap());
    let said = |jobs: &Jobs, map| {
        let open = (jobs.is_sealed(map), jobs.is_cut(map), jobs.is_detached(map));
        (jobs.pushed(map), jobs.room(map), open)
    };
    assert_eq!(said(&jobs, map), (0, 80, (false, false, false)));
    jobs.push(map, Numbers { first: 0, count: 3 });
    assert_eq!(said(&jobs, map), (3, 77, (false, false, false)));
    jobs.seal(map);
    assert_eq!(said(&jobs, map).2, (true, false, false));
    jobs.cancel(map, millis(1), "enough", &workers);
    assert_eq!(said(&jobs, map).2, (true, true, false));
    jobs.detach(map);
    assert_eq!(said(&jobs, map).2, (true, true, true));
    // One whose results nobody has taken stays until somebody forgets it; the other goes on.
    jobs.forget(map);
    assert!(!jobs.maps.contains_key(&map));
    assert_eq!(said(&jobs, map), (0, 0, (true, true, true)));
    assert_eq!(said(&jobs, other), (0, 80, (false, false, false)));
}
