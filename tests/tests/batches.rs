//! Thousands of calls that take next to no time, and one among them that waits, prints, spins, fails or
//! loses its worker: whatever it shares with the others, nobody is to see it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coordinator::{Death, Output, Pool, Report, Why};
use rustix::process::Signal;
use support::{builder, pool};
use tempfile::TempDir;
use tests::brief::{self, Print};
use tests::processes::signal;
use tests::{eventually, tasks};

/// Says in the end, however that comes, that it has come.
struct Tells<'t>(&'t AtomicBool);

impl Drop for Tells<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// ---- Order of events ---------------------------------------------------------------------------

#[test]
fn ten_thousand_calls_end_while_one_among_them_waits() {
    let directory = TempDir::new().unwrap();
    let pool = pool(2);
    for waiting in [0, 1, 777, 5_000, 9_998, 9_999] {
        let file = directory.path().join(waiting.to_string());
        let inputs = (0..10_000).map(|n| (n, (n == waiting).then(|| file.clone())));
        let mut stream = pool.stream_unordered(brief::wait_if, inputs);
        let others = stream.by_ref().take(9_999);
        let mut done: Vec<u64> = others.map(|(_, result)| result.unwrap()).collect();
        done.sort_unstable();
        let expected: Vec<u64> = (0..10_000).filter(|n| *n != waiting).collect();
        assert!(done == expected, "{waiting} waits");
        File::create(&file).unwrap();
        assert_eq!(stream.next(), Some((waiting, Ok(waiting))));
        assert_eq!(stream.next(), None);
    }
}

/// Its worker can't run what is behind it, but what was before it has ended.
#[test]
fn results_do_not_wait_for_the_call_behind_them() {
    let directory = TempDir::new().unwrap();
    let pool = pool(1);
    for waiting in [1, 2, 10, 100, 2_000, 7_777, 9_999] {
        let file = directory.path().join(waiting.to_string());
        let inputs = (0..10_000).map(|n| (n, (n == waiting).then(|| file.clone())));
        let mut stream = pool.stream(brief::wait_if, inputs);
        for n in 0..waiting {
            assert_eq!(stream.next(), Some(Ok(n)));
        }
        File::create(&file).unwrap();
        for n in waiting..10_000 {
            assert_eq!(stream.next(), Some(Ok(n)));
        }
        assert_eq!(stream.next(), None);
    }
}

/// A worker that would take what waits behind a slow call is lent to callers all the time.
#[test]
fn callers_do_not_keep_a_worker_from_taking_calls_from_behind_a_slow_one() {
    let directory = TempDir::new().unwrap();
    let pool = pool(2);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let _enough = Tells(&enough);
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                assert_eq!(pool.call(tasks::sleep_ms, 3), Ok(3));
                // The worker is idle for a moment, and looks what there is to take.
                thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 0..300 {
            // Near the end, where a worker with nothing to do has nothing but what waits there.
            let waiting = 298 - round % 60;
            let file = directory.path().join(round.to_string());
            let inputs = (0..300).map(|n| (n, (n == waiting).then(|| file.clone())));
            let mut stream = pool.stream_unordered(brief::wait_if, inputs);
            let others = stream.by_ref().take(299);
            assert!(others.map(|(n, _)| n).all(|n| n != waiting), "{waiting}");
            File::create(&file).unwrap();
            assert_eq!(stream.next(), Some((waiting, Ok(waiting))));
        }
    });
}

// ---- What it costs -----------------------------------------------------------------------------

/// The most memory after a tenth, and at the end, in KiB.
fn flow(count: u32, size: u32) -> [u64; 2] {
    let output = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .args(["flow", &count.to_string(), &size.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn a_long_stream_needs_no_more_memory_than_a_short_one() {
    for (count, size) in [(300_000, 0), (100_000, 1 << 10)] {
        let [early, late] = flow(count, size);
        assert!(late < 64 << 10, "{late} KiB for {count} of {size} bytes");
        // As much as the window of inputs and the buffers that are used again may come to hold, and not
        // a part of what flows: that is 100 MiB, in the second case.
        assert!(late - early < 20 << 10, "from {early} KiB to {late}");
    }
}

/// How often each thread of these processes has been switched away from.
fn switches(pids: &[u32]) -> HashMap<String, String> {
    let mut switches = HashMap::new();
    for pid in pids {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let thread = thread.unwrap().path();
            let status = std::fs::read_to_string(thread.join("status")).unwrap();
            let counts = status.lines().filter(|line| line.contains("_switches"));
            let name = std::fs::read_to_string(thread.join("comm")).unwrap();
            let key = format!("{} {}", thread.display(), name.trim());
            switches.insert(key, counts.collect::<Vec<_>>().join(" "));
        }
    }
    switches
}

#[test]
fn an_idle_pool_does_nothing_at_all() {
    let mut coordinator = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .arg("idle")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(coordinator.stdout.take().unwrap());
    let mut pids = vec![coordinator.id()];
    for _ in 0..3 {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        pids.push(line.trim().parse().unwrap());
    }
    // Longer than a thread that has forwarded something lingers before it ends.
    eventually("nothing happens at all", || {
        let before = switches(&pids);
        thread::sleep(Duration::from_millis(1500));
        switches(&pids) == before
    });
    drop(coordinator.stdin.take());
    assert!(coordinator.wait().unwrap().success());
}

// ---- Deaths at full speed ----------------------------------------------------------------------

const CALLS: u64 = 200_000;
const KILLS: u64 = 10;

/// Numbers as if at random: splitmix64.
struct Random(u64);

impl Random {
    /// Another sequence each time, which can be had again.
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = u64::from(now.subsec_nanos());
        // Shown if the test fails.
        eprintln!("the seed is {seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// A pool whose calls of [`brief::log`] leave their numbers in a ledger.
fn logging(directory: &TempDir) -> Pool {
    let ledger = directory.path().join("ledger");
    builder(2)
        .initializer(brief::open_ledger, ledger)
        .restart_limit(100, Duration::from_secs(1))
        .build()
        .unwrap()
}

/// Does something in which this pool makes so many calls, and kills workers meanwhile.
fn while_workers_are_killed<R>(pool: &Pool, run: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    let mut random = Random::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..KILLS {
                let part = CALLS / (KILLS + 1);
                let when = number * part + random.below(part);
                while pool.stats().succeeded < when && !done.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_micros(300));
                }
                thread::sleep(Duration::from_micros(random.below(4000)));
                let workers = pool.workers();
                if !workers.is_empty() {
                    let worker = random.below(workers.len() as u64) as usize;
                    signal(workers[worker].pid, Signal::KILL);
                }
            }
        });
        let _done = Tells(&done);
        run()
    })
}

#[test]
fn ten_kills_cost_ten_of_two_hundred_thousand_calls() {
    let directory = TempDir::new().unwrap();
    let pool = logging(&directory);
    let results = while_workers_are_killed(&pool, || pool.map_each(brief::log, 0..CALLS));
    let logged = brief::logged(&directory.path().join("ledger"));
    assert_eq!(results.len() as u64, CALLS);
    let mut charged = 0;
    for (n, result) in (0..).zip(results) {
        let times = logged.get(&n).copied().unwrap_or(0);
        match result {
            Ok(value) => assert_eq!((value, times), (n, 1)),
            Err(error) => {
                assert_eq!(*error.why(), Why::Died(Death::Signal(9)), "{error}");
                assert_eq!((error.index(), error.attempts()), (n, 1));
                assert!(times <= 1, "{n} ran {times} times");
                charged += 1;
            }
        }
    }
    assert!(charged <= KILLS, "{charged}");
    let stats = pool.stats();
    assert_eq!((stats.succeeded, stats.failed), (CALLS - charged, charged));
    assert!(stats.workers_died > 0);
}

#[test]
fn with_a_retry_ten_kills_cost_nothing_and_only_what_was_charged_ran_again() {
    let directory = TempDir::new().unwrap();
    let pool = logging(&directory);
    let reports: Vec<Report<u64>> = while_workers_are_killed(&pool, || {
        let (inputs, reports) = pool.with().retries(1).open(brief::log);
        let inputs = inputs.unwrap();
        thread::scope(|scope| {
            scope.spawn(move || (0..CALLS).for_each(|n| inputs.send(n).unwrap()));
            reports.collect()
        })
    });
    let logged = brief::logged(&directory.path().join("ledger"));
    assert_eq!(reports.len() as u64, CALLS);
    let mut charged = 0;
    for (n, report) in (0..).zip(reports) {
        let times = logged.get(&n).copied().unwrap_or(0);
        assert_eq!((report.index, report.result), (n, Ok(n)));
        match report.attempts {
            1 => assert_eq!(times, 1, "{n}"),
            2 => {
                assert!(times == 1 || times == 2, "{n} ran {times} times");
                charged += 1;
            }
            other => panic!("{other} attempts of {n}"),
        }
    }
    assert!(charged <= KILLS, "{charged}");
    let stats = pool.stats();
    assert_eq!((stats.succeeded, stats.failed), (CALLS, charged));
    assert!(stats.workers_died > 0);
}

// ---- What is printed ---------------------------------------------------------------------------

#[test]
fn what_one_of_five_thousand_prints_is_its_own() {
    let pool = builder(2).output(Output::Capture).build().unwrap();
    for how in [
        Print::Line,
        Print::Part,
        Print::C,
        Print::Child,
        Print::Error,
    ] {
        for prints in [0, 1, 2_500, 4_999] {
            let (inputs, reports) = pool.with().open(brief::print_if);
            let inputs = inputs.unwrap();
            thread::scope(|scope| {
                scope.spawn(move || {
                    for n in 0..5_000 {
                        inputs.send((n, (n == prints).then_some(how))).unwrap();
                    }
                });
                // Part of a line, the first that its worker prints, is found with one of the calls behind.
                let mut found_at = prints;
                for (n, report) in (0..).zip(reports) {
                    assert_eq!((report.index, report.result), (n, Ok(n)));
                    let number = prints.to_string();
                    let is_late = n == found_at && n < prints + 15 && report.stdout.is_empty();
                    if is_late && matches!(how, Print::Part) {
                        found_at += 1;
                        continue;
                    }
                    let (out, err) = match how {
                        _ if n != found_at => ("", ""),
                        Print::Line => (&*format!("{n}\n"), ""),
                        Print::Part | Print::C | Print::Child => (&*number, ""),
                        Print::Error => ("", &*number),
                    };
                    let printed = [report.stdout, report.stderr].map(|all| all.read().unwrap());
                    assert_eq!(printed, [out, err].map(|text| text.as_bytes().to_vec()));
                }
            });
        }
    }
}

#[test]
fn what_some_of_many_print_comes_in_input_order() {
    let output = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .arg("print-some")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let end = |n: u64| if n.is_multiple_of(2_000) { "\n" } else { "" };
    let expected: String = (0..20_000)
        .step_by(500)
        .map(|n| format!("{n}{}", end(n)))
        .collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

// ---- Deadlines, errors and ends at full speed ----------------------------------------------------

#[test]
fn the_one_that_spins_is_the_one_that_times_out() {
    let pool = pool(2);
    let limit = Duration::from_millis(200);
    for spins in [0, 4_321, 9_999] {
        let with = pool.with().timeout(limit);
        let results = with.map_each(brief::spin_if, (0..10_000).map(|n| (n, n == spins)));
        assert_eq!(results.len(), 10_000);
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(value) => assert_eq!(value, n),
                Err(error) => {
                    assert_eq!((n, error.why()), (spins, &Why::TimedOut(limit)));
                    assert_eq!((error.index(), error.attempts()), (n, 1));
                }
            }
        }
    }
}

#[test]
fn a_stream_can_be_dropped_at_any_moment() {
    let pool = builder(2)
        .grace(Duration::from_millis(100))
        .build()
        .unwrap();
    let mut random = Random::new();
    for round in 0..30 {
        let taken = random.below(5_000);
        let sleeps = taken + random.below(2_000);
        let began = Instant::now();
        // Every third has no slow call: then it is short ones that run when it is dropped.
        let inputs = (0..).map(|n| (n, n >= sleeps && round % 3 > 0));
        let mut stream = pool.stream(brief::sleep_if, inputs);
        for n in 0..taken {
            assert_eq!(stream.next(), Some(Ok(n)));
        }
        drop(stream);
        let squares: Vec<i64> = (0..500).map(|x| x * x).collect();
        assert_eq!(pool.map(tasks::square, 0..500), Ok(squares));
        // The slow ones would have taken two minutes.
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn the_first_error_by_index_wins_and_nothing_begins_after_it() {
    for fails in [[0, 1], [999, 1_000], [700, 15_000], [19_998, 19_999]] {
        let directory = TempDir::new().unwrap();
        let pool = logging(&directory);
        let ledger = directory.path().join("ledger");
        let inputs = (0..20_000).map(|n| (n, fails.contains(&n)));
        let error = pool.map(brief::log_or_fail, inputs).unwrap_err();
        let at_once = brief::logged(&ledger);
        assert_eq!(*error.why(), Why::Failed(fails[0].to_string()));
        assert_eq!(error.index(), fails[0]);
        assert!((0..=fails[0]).all(|n| at_once.get(&n) == Some(&1)));
        pool.close();
        pool.join().unwrap();
        let in_the_end = brief::logged(&ledger);
        // What ran at that moment may have come as far as the ledger: one in each worker.
        let later = in_the_end.len() - at_once.len();
        assert!(later <= 2, "{later} began after the error");
        assert!(in_the_end.values().all(|times| *times == 1));
    }
}

/// Stopping lets finish what runs, terminating does not.
#[test]
fn a_pool_that_ends_in_the_middle_says_of_each_call_what_became_of_it() {
    let mut random = Random::new();
    for round in 0..20 {
        let directory = TempDir::new().unwrap();
        let pool = logging(&directory);
        let when = random.below(CALLS / 2);
        let stops = round % 2 == 0;
        let results = thread::scope(|scope| {
            scope.spawn(|| {
                while pool.stats().succeeded < when {
                    thread::sleep(Duration::from_micros(300));
                }
                match stops {
                    true => pool.stop(),
                    false => pool.terminate(),
                }
            });
            pool.map_each(brief::log, 0..CALLS)
        });
        pool.join().unwrap();
        let logged = brief::logged(&directory.path().join("ledger"));
        let mut half_done = 0;
        for (n, result) in (0..).zip(&results) {
            let times = logged.get(&n).copied().unwrap_or(0);
            match result {
                Ok(value) => assert_eq!((*value, times), (n, 1)),
                Err(error) => {
                    assert_eq!((error.index(), error.why()), (n, &Why::Cancelled));
                    assert!(times <= 1, "{n} ran {times} times");
                    half_done += times;
                }
            }
        }
        // What a worker was running when it was ended.
        assert!(half_done <= if stops { 0 } else { 2 }, "{half_done}");
        let beyond = logged.keys().filter(|n| **n >= results.len() as u64);
        assert_eq!(beyond.count(), 0);
    }
}

// ---- All at once -------------------------------------------------------------------------------

#[test]
fn eight_threads_make_calls_beside_a_large_map() {
    let pool = pool(2);
    thread::scope(|scope| {
        for start in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for x in start * 1000..start * 1000 + 300 {
                    assert_eq!(pool.call(tasks::square, x), Ok(x * x));
                }
            });
        }
        let squares: Vec<i64> = (0..50_000).map(|x| x * x).collect();
        assert!(pool.map(tasks::square, 0..50_000) == Ok(squares));
    });
    let stats = pool.stats();
    assert_eq!((stats.succeeded, stats.failed), (50_000 + 8 * 300, 0));
    assert_eq!((stats.running, stats.waiting), (0, 0));
}

#[test]
fn no_worker_runs_more_calls_than_it_may() {
    let pool = builder(2).recycle_after(7).build().unwrap();
    let mut calls: HashMap<u32, u32> = HashMap::new();
    for pid in pool.map(tasks::pid, [(); 1_000]).unwrap() {
        *calls.entry(pid).or_default() += 1;
    }
    assert!(calls.values().all(|calls| *calls <= 7), "{calls:?}");
    assert_eq!(pool.stats().succeeded, 1_000);
}

/// A pool remembers what the calls of a task cost. These cost something else.
#[test]
fn calls_that_were_short_and_are_long_now_run_side_by_side() {
    let pool = pool(8);
    eventually("all are there", || pool.stats().workers_started == 8);
    for _ in 0..3 {
        pool.map(tasks::sleep_ms, [0; 5000]).unwrap();
        let began = Instant::now();
        pool.map(tasks::sleep_ms, [500; 8]).unwrap();
        // One after another they would take four seconds.
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
}

#[test]
fn inputs_of_all_sizes_come_back_as_they_were() {
    const SIZES: [usize; 12] = [
        0,
        1,
        7,
        8,
        100,
        4_095,
        (64 << 10) - 1,
        64 << 10,
        (128 << 10) + 1,
        256 << 10,
        300_000,
        1 << 20,
    ];
    let pool = pool(2);
    let mut random = Random::new();
    // Most are small, so that there are batches of them.
    let sizes = (0..3_000_u64).map(|n| match n % 50 {
        0 => SIZES[random.below(12) as usize],
        _ => SIZES[random.below(5) as usize],
    });
    let text = |(n, size)| char::from(b'a' + (n % 26) as u8).to_string().repeat(size);
    let texts: Vec<String> = (0..3_000_u64).zip(sizes).map(text).collect();
    assert!(pool.map(tests::ends::echo_text, texts.clone()) == Ok(texts.clone()));
    let streamed = pool.stream(tests::ends::echo_text, texts.clone());
    assert!(streamed.map(Result::unwrap).eq(texts));
}

#[test]
fn outputs_that_the_black_box_has_no_room_for_come_all_the_same() {
    let pool = pool(2);
    // Just what it holds, what it does not, and what comes by itself.
    for size in [200 << 10, 128 << 10, (64 << 10) - 1, 40_000] {
        let outputs = pool
            .map(brief::repeat, (0..200).map(|n| (n, size)))
            .unwrap();
        assert_eq!(outputs.len(), 200);
        for (n, output) in (0..).zip(outputs) {
            assert_eq!(output.len(), size);
            assert!(output.bytes().all(|byte| byte == b'a' + n % 26));
        }
    }
}

#[test]
fn large_inputs_behind_a_long_call_go_on() {
    let pool = pool(2);
    let directory = tempfile::tempdir().unwrap();
    let (file, there) = (directory.path().join("go"), directory.path());
    // As long as a path may be, so that what was read fills the window several times.
    let long = PathBuf::from(format!("{}{}", "/".repeat(3000), there.display()));
    // The first call waits until the others' inputs have been read, which takes their room to be given back.
    let inputs = (0..5000).map(|number| match number {
        0 => (0, Some(file.clone())),
        4999 => {
            File::create(&file).unwrap();
            (number, None)
        }
        _ => (number, Some(long.clone())),
    });
    let numbers = pool.map(brief::wait_if, inputs).unwrap();
    assert!(numbers.into_iter().eq(0..5000));
}
