//! The scheduler, with a fake clock: here by hand, in `world` at random.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use std::cell::RefCell;
use std::time::Duration;

use super::*;

type Jobs = Scheduler<u32, Numbers, u32>;

/// As many calls whose inputs are the numbers from the first on, 10 bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    first: u64,
    count: u32,
}

impl Inputs for Numbers {
    fn count(&self) -> u32 {
        self.count
    }
    fn bytes(&self, _: u32, count: u32) -> usize {
        count as usize * 10
    }
}

fn one(number: u64) -> Numbers {
    Numbers {
        first: number,
        count: 1,
    }
}

/// Workers that do what a test says: how far each has come, and how far it may go.
#[derive(Debug, Default)]
struct Workers(RefCell<BTreeMap<usize, (Seen, u32)>>);

impl Workers {
    /// A batch of so many calls is sent to a slot.
    fn open(&self, slot: usize, calls: u32) {
        let seen = Seen {
            started: 0,
            finished: 0,
            began: Time::ZERO,
        };
        self.0.borrow_mut().insert(slot, (seen, calls));
    }

    /// A slot's worker starts its next call, if it may.
    fn start(&self, slot: usize, now: Time) -> bool {
        let mut workers = self.0.borrow_mut();
        let (seen, allowed) = workers.get_mut(&slot).unwrap();
        let may = seen.started < *allowed;
        if may {
            seen.started += 1;
            seen.began = now;
        }
        may
    }

    /// It finishes it.
    fn finish(&self, slot: usize) {
        let mut workers = self.0.borrow_mut();
        let (seen, _) = workers.get_mut(&slot).unwrap();
        seen.finished = seen.started;
    }
}

impl Sight for Workers {
    fn look(&self, slot: SlotId) -> Seen {
        self.0.borrow()[&slot.0].0
    }

    fn lower(&self, slot: SlotId, to: u32) -> u32 {
        let mut workers = self.0.borrow_mut();
        let (seen, allowed) = workers.get_mut(&slot.0).unwrap();
        *allowed = to.max(seen.started).min(*allowed);
        *allowed
    }
}

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
            least: 1,
        },
        failures: Failures::Any,
        lazy: false,
        every_attempt: false,
    }
}

/// Starts a worker in a slot and has it begin the next call.
fn run(jobs: &mut Jobs, workers: &Workers, slot: usize, now: Time) -> (Running, u64) {
    let idle = jobs.ready(SlotId(slot));
    begin(jobs, workers, idle, now)
}

/// Has a worker begin the next call.
fn begin(jobs: &mut Jobs, workers: &Workers, idle: Idle, now: Time) -> (Running, u64) {
    let slot = idle.slot.0;
    match jobs.next(idle, MOST_CALLS, now, workers) {
        Next::Run(running, batch) => {
            workers.open(slot, batch.count);
            assert!(workers.start(slot, now));
            (running, batch.first)
        }
        other => panic!("{other:?}"),
    }
}

/// A worker answers for the one call of its batch.
fn answer(
    jobs: &mut Jobs,
    workers: &Workers,
    running: Running,
    result: Result<(), Why>,
    now: Time,
) -> Idle {
    workers.finish(running.slot.0);
    jobs.reply(&running, 0, result, (0, 0), now, workers)
        .unwrap();
    jobs.idle_again(running, now).unwrap()
}

fn wait(jobs: &mut Jobs, workers: &Workers, idle: Idle, now: Time) -> (Idle, Option<Time>) {
    match jobs.next(idle, MOST_CALLS, now, workers) {
        Next::Wait(idle, until) => (idle, until),
        other => panic!("{other:?}"),
    }
}

fn failed() -> Result<(), Why> {
    Err(Why::Failed("no".into()))
}

fn died() -> Why {
    Why::Died(crate::Death::Signal(9))
}

#[test]
fn maps_are_served_in_turn() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let maps = [jobs.open(spec()).unwrap(), jobs.open(spec()).unwrap()];
    for map in maps {
        (0..3).for_each(|input| _ = jobs.push(map, one(input)));
    }
    let mut idle = jobs.ready(SlotId(0));
    let mut served = Vec::new();
    for step in 0..6 {
        // Calls of a second each go alone.
        let (running, _) = begin(&mut jobs, &workers, idle, millis(step * 1000));
        served.push(running.map());
        idle = answer(
            &mut jobs,
            &workers,
            running,
            Ok(()),
            millis(step * 1000 + 1000),
        );
    }
    let [a, b] = maps;
    assert_eq!(served, [a, b, a, b, a, b]);
}

#[test]
fn failing_fast_cancels_what_is_behind_and_lets_finish_what_is_before() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let map = jobs
        .open(MapSpec {
            failures: Failures::First,
            ..spec()
        })
        .unwrap();
    (0..4).for_each(|input| _ = jobs.push(map, one(input)));
    let (first, _) = run(&mut jobs, &workers, 0, Time::ZERO);
    let (second, _) = run(&mut jobs, &workers, 1, Time::ZERO);
    let _idle = answer(&mut jobs, &workers, second, failed(), Time::ZERO);
    assert_eq!(jobs.take(map), Take::Pending);
    let _idle = answer(&mut jobs, &workers, first, Ok(()), Time::ZERO);
    let mut outcomes = Vec::new();
    while let Take::Ready(index, count, ended) = jobs.take(map) {
        (index..index + u64::from(count))
            .for_each(|index| outcomes.push((index, ended.result.clone())));
    }
    let cancelled = Err(Why::Cancelled);
    let expected = [
        (0, Ok(())),
        (1, failed()),
        (2, cancelled.clone()),
        (3, cancelled),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn whoever_waits_is_told_when_calls_begin_to_travel_together() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let window = Window {
        calls: 100_000,
        bytes: 10_000_000,
        least: 1,
    };
    let map = jobs.open(MapSpec { window, ..spec() }).unwrap();
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

#[test]
fn sigterm_at_the_limit_and_sigkill_after_the_grace() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        timeout: Some(millis(50)),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, one(0));
    // It was queued for long: the limit counts from its start.
    let (running, _) = run(&mut jobs, &workers, 0, millis(1000));
    let signals = |jobs: &mut Jobs, now| {
        jobs.overdue(millis(now), &workers);
        jobs.take_effects().signals
    };
    assert_eq!(jobs.next_deadline(), Some(millis(1050)));
    assert_eq!(signals(&mut jobs, 1049), []);
    assert_eq!(signals(&mut jobs, 1050), [(SlotId(0), Stage::Term)]);
    assert_eq!(signals(&mut jobs, 1149), []);
    assert_eq!(signals(&mut jobs, 1150), [(SlotId(0), Stage::Kill)]);
    assert_eq!(jobs.next_deadline(), None);
    assert!(
        jobs.died(running, 1, died(), 0, millis(1151), &workers)
            .charged
    );
    let Take::Ready(0, 1, ended) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(ended.result, Err(Why::TimedOut(millis(50))));
}

/// A map whose calls are known to be short, so that it goes in batches; and a batch of it.
fn batch(
    jobs: &mut Jobs,
    workers: &Workers,
    limits: Limits,
    calls: u32,
) -> (MapId, Running, Idle, u32) {
    let window = Window {
        calls: 100_000,
        bytes: 10_000_000,
        least: 1,
    };
    let spec = MapSpec {
        limits,
        window,
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
    let (mut jobs, workers) = (self::jobs(2), Workers::default());
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
fn a_pause_does_not_count() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let limits = Limits {
        timeout: Some(millis(50)),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, one(0));
    jobs.push(map, one(1));
    let (_running, _) = run(&mut jobs, &workers, 0, millis(0));
    jobs.pause(millis(20));
    let stopped = jobs.take_effects().signals;
    assert_eq!(
        stopped,
        [(SlotId(0), Stage::Stop)],
        "only what runs is stopped"
    );
    jobs.overdue(millis(500), &workers);
    assert!(jobs.take_effects().signals.is_empty());
    let idle = jobs.ready(SlotId(1));
    let (idle, until) = wait(&mut jobs, &workers, idle, millis(500));
    assert_eq!(until, None, "it would start something");
    jobs.resume(millis(1020));
    let effects = jobs.take_effects();
    assert_eq!(effects.signals, [(SlotId(0), Stage::Continue)]);
    assert!(effects.everyone);
    assert_eq!(jobs.next_deadline(), Some(millis(1050)));
    let (_running, _) = begin(&mut jobs, &workers, idle, millis(1020));
}

#[test]
fn memory_that_is_used_up_is_no_bare_signal() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        memory: Some(1000),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, one(0));
    let (running, _) = run(&mut jobs, &workers, 0, millis(0));
    let watched: Vec<_> = jobs.memory_limits().collect();
    assert_eq!(watched, [(SlotId(0), 1000)]);
    jobs.out_of_memory(SlotId(0), 1000, millis(1), &workers);
    assert_eq!(jobs.take_effects().signals, [(SlotId(0), Stage::Kill)]);
    assert_eq!(jobs.memory_limits().count(), 0);
    assert!(
        jobs.died(running, 1, died(), 0, millis(2), &workers)
            .charged
    );
    let Take::Ready(0, 1, ended) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(ended.result, Err(Why::OutOfMemory { limit: 1000 }));
}

#[test]
fn stopping_finishes_what_runs_and_tries_nothing_again() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        retries: 5,
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    (0..3).for_each(|input| _ = jobs.push(map, one(input)));
    let (running, _) = run(&mut jobs, &workers, 0, millis(0));
    jobs.stop(millis(1), "stopped");
    assert!(jobs.take_effects().signals.is_empty());
    let idle = answer(&mut jobs, &workers, running, failed(), millis(2));
    assert!(matches!(
        jobs.next(idle, MOST_CALLS, millis(2), &workers),
        Next::Leave
    ));
    let Take::Ready(0, 1, first) = jobs.take(map) else {
        panic!()
    };
    assert_eq!((first.result, first.attempts), (failed(), 1));
    for index in 1..3 {
        let Take::Ready(at, 1, ended) = jobs.take(map) else {
            panic!()
        };
        assert_eq!((at, ended.result), (index, Err(Why::Cancelled)));
    }
}

#[test]
fn backoff_doubles_and_is_waited_for() {
    let (mut jobs, workers) = (jobs(1), Workers::default());
    let limits = Limits {
        retries: 3,
        backoff: millis(100),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, one(0));
    let mut now = Time::ZERO;
    let mut idle = jobs.ready(SlotId(0));
    let mut waits = Vec::new();
    for attempt in 1..=4 {
        let Next::Run(running, batch) = jobs.next(idle, MOST_CALLS, now, &workers) else {
            panic!()
        };
        assert_eq!(batch.attempt, attempt);
        workers.open(0, 1);
        workers.start(0, now);
        idle = answer(&mut jobs, &workers, running, failed(), now);
        if attempt < 4 {
            let (again, until) = wait(&mut jobs, &workers, idle, now);
            let until = until.unwrap();
            waits.push((until - now).as_millis());
            (idle, now) = (again, until);
        }
    }
    // By call 0 the stretch is none.
    assert_eq!(waits, [100, 200, 400]);
    assert!(matches!(
        jobs.take(map),
        Take::Ready(0, 1, Ended { attempts: 4, .. })
    ));
}

#[test]
fn a_slot_that_was_to_wake_up_for_a_call_and_takes_another_says_so() {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let limits = Limits {
        retries: 1,
        backoff: millis(100),
        ..limits()
    };
    let map = jobs.open(MapSpec { limits, ..spec() }).unwrap();
    jobs.push(map, one(0));
    let (running, _) = run(&mut jobs, &workers, 0, millis(0));
    let idle = answer(&mut jobs, &workers, running, failed(), millis(0));
    let (idle, until) = wait(&mut jobs, &workers, idle, millis(0));
    assert!(until.is_some());
    jobs.push(map, one(1));
    jobs.take_effects();
    let (_running, _) = begin(&mut jobs, &workers, idle, millis(1));
    assert_eq!(jobs.take_effects().work, 1);
}

#[test]
fn too_many_failing_starts_end_the_pool_with_the_cause() {
    let mut jobs = jobs(1);
    let map = jobs.open(spec()).unwrap();
    jobs.push(map, one(0));
    let idle = jobs.ready(SlotId(0));
    jobs.idle_died(idle);
    for at in [0, 2000, 2100] {
        jobs.start_failed("no licence", millis(at));
        assert!(jobs.wants_worker());
    }
    jobs.start_failed("no licence", millis(2200));
    assert!(!jobs.wants_worker());
    let Take::Ready(0, 1, ended) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(
        (ended.result, ended.note),
        (Err(Why::Cancelled), Some("no licence".to_owned()))
    );
}

/// A map whose first call runs on while the second one ends, with a large output: whether it has room then,
/// and whether its caller, who can't take either result, is told so.
fn room_behind_a_long_call(lazy: bool, calls: u64) -> (bool, bool) {
    let (mut jobs, workers) = (jobs(2), Workers::default());
    let window = Window {
        calls: 8,
        bytes: 10 * calls as usize,
        least: 1,
    };
    let map = jobs
        .open(MapSpec {
            lazy,
            window,
            ..spec()
        })
        .unwrap();
    for index in 0..calls {
        assert!(jobs.has_room(map));
        jobs.push(map, one(index));
    }
    assert!(!jobs.has_room(map));
    let (_head, _) = run(&mut jobs, &workers, 0, Time::ZERO);
    let (running, _) = run(&mut jobs, &workers, 1, Time::ZERO);
    jobs.take_effects();
    jobs.reply(&running, 0, Ok(()), (0, 1_000_000), Time::ZERO, &workers)
        .unwrap();
    (jobs.has_room(map), jobs.take_effects().wake.contains(&map))
}

#[test]
fn there_is_room_behind_a_long_call_unless_outputs_count() {
    assert_eq!(room_behind_a_long_call(false, 3), (true, true));
    assert_eq!(room_behind_a_long_call(true, 3), (false, false));
}

#[test]
fn for_as_many_calls_as_there_are_workers_there_is_room_however_large_they_are() {
    let mut jobs = jobs(2);
    let window = Window {
        calls: 8,
        bytes: 1,
        least: 3,
    };
    let map = jobs.open(MapSpec { window, ..spec() }).unwrap();
    for index in 0..3 {
        assert!(jobs.has_room(map));
        jobs.push(map, one(index));
    }
    assert!(!jobs.has_room(map));
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
