//! The scheduler, with a fake clock: here by hand, in `world` at random.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod batches;
mod counts;
mod deeds;
mod leases;
mod liars;
mod life;
mod separate;
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

impl Bundle for Numbers {
    fn count(&self) -> u32 {
        self.count
    }
    fn bytes(&self, _: u32, count: u32) -> usize {
        count as usize * 10
    }
    fn join(&mut self, behind: &Self) -> bool {
        let is_behind = self.first + u64::from(self.count) == behind.first;
        let joins = is_behind && self.count < 40;
        self.count += if joins { behind.count } else { 0 };
        joins
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

/// What a worker claims: how far it has come, and how far it may go.
#[derive(Debug, Clone, Copy)]
struct Lie {
    started: u32,
    finished: u32,
    /// In milliseconds.
    began: u64,
    allowed: u32,
}

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

    /// It writes what it likes.
    fn lie(&self, slot: usize, lie: Lie) {
        let seen = Seen {
            started: lie.started,
            finished: lie.finished.min(lie.started),
            began: millis(lie.began),
        };
        if let Some(box_of) = self.0.borrow_mut().get_mut(&slot) {
            *box_of = (seen, lie.allowed);
        }
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
        2,
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
        separate: false,
        at_most_once: false,
        kind: None,
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
    let began = jobs.slots[running.slot.0].busy().map(|busy| busy.since);
    jobs.worked(&running, now.saturating_sub(began.unwrap_or(now)));
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
    let all = [0, 1].map(|slot| (SlotId(slot), Stage::Continue));
    assert_eq!(effects.signals, all);
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
    let Take::Ready(1, 2, behind) = jobs.take(map) else {
        panic!()
    };
    assert_eq!(behind.result, Err(Why::Cancelled));
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
