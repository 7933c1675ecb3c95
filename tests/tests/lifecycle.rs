//! From a pool's first worker to its end: how many there are, what they hold, and what is left of
//! them (P6), however the coordinator ends.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coordinator::{Output, Pool, Process, StraySource, Why};
use rustix::process::Signal;
use support::{builder, pool};
use tempfile::TempDir;
use tests::ends::{self, COUNTED, Counted};
use tests::processes::{heed_signals, pids_in, processes_with, signal};
use tests::{eventually, is_alive, tasks};

/// Much longer than anything that should be prompt, much shorter than what it must not wait for.
const PROMPT: Duration = Duration::from_secs(5);
/// How long anything may be left of a coordinator that has ended.
const PROMISED: Duration = Duration::from_secs(1);

/// A coordinator with a directory of its own for temporary files.
struct Coordinator {
    child: Child,
    temporary: TempDir,
}

impl Coordinator {
    fn start(arguments: &[&str]) -> Self {
        heed_signals();
        let temporary = TempDir::new().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_misbehave"))
            .args(arguments)
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Coordinator { child, temporary }
    }

    fn processes(&self) -> Vec<u32> {
        processes_with(self.temporary.path())
    }

    /// Waits for its end; returns what it printed, and its exit code.
    fn end(&mut self) -> (String, Option<i32>) {
        let printed = std::io::read_to_string(self.child.stdout.take().unwrap()).unwrap();
        // Shown if the test fails.
        eprint!(
            "{}",
            std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap()
        );
        let status = self.child.wait().unwrap();
        let began = Instant::now();
        eventually("its processes are gone", || self.processes().is_empty());
        assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        let left: Vec<_> = self.temporary.path().read_dir().unwrap().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        (printed, status.code())
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // For tests that fail before its end, or because of what it leaves behind.
        let _ = self.child.kill();
        for pid in self.processes() {
            signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn file_in(directory: &TempDir) -> (PathBuf, String) {
    let file = directory.path().join("pids");
    let text = file.to_str().unwrap().to_owned();
    (file, text)
}

fn wait_for(file: &Path) -> Vec<u32> {
    eventually("it holds out", || file.exists());
    let pids = pids_in(file);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    pids
}

#[test]
fn a_coordinator_that_ends_by_itself_leaves_nothing() {
    for (how, code) in [
        ("return", Some(0)),
        ("error", Some(1)),
        ("panic", Some(101)),
        ("exit", Some(3)),
        ("abort", None),
        ("forget", Some(0)),
    ] {
        let directory = TempDir::new().unwrap();
        let (file, path) = file_in(&directory);
        let mut coordinator = Coordinator::start(&["end", how, &path]);
        assert_eq!(coordinator.end(), (String::new(), code), "{how}");
        assert!(file.exists(), "{how}: it ended too early");
    }
}

#[test]
fn a_coordinator_that_is_ended_by_a_signal_leaves_nothing() {
    for number in [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::KILL,
    ] {
        let directory = TempDir::new().unwrap();
        let (file, path) = file_in(&directory);
        let mut coordinator = Coordinator::start(&["end", "from outside", &path]);
        wait_for(&file);
        // Itself, two workers and the child of one.
        eventually("all are there", || coordinator.processes().len() == 4);
        signal(coordinator.child.id(), number);
        assert_eq!(coordinator.end(), (String::new(), None), "{number:?}");
    }
}

#[test]
fn a_program_that_does_not_ignore_broken_pipes_is_not_killed_by_them() {
    let mut coordinator = Coordinator::start(&["sigpipe"]);
    assert_eq!(coordinator.end(), (String::new(), Some(0)));
}

#[test]
fn pools_within_a_pool_are_gone_when_the_coordinator_is_killed() {
    let directory = TempDir::new().unwrap();
    let (file, path) = file_in(&directory);
    let mut coordinator = Coordinator::start(&["nested", &path]);
    wait_for(&file);
    // Itself, its worker, that one's worker, and the child of that.
    eventually("all are there", || coordinator.processes().len() == 4);
    signal(coordinator.child.id(), Signal::KILL);
    coordinator.end();
}

#[test]
fn a_pool_within_a_worker_is_gone_when_the_worker_is_killed() {
    let directory = TempDir::new().unwrap();
    let (file, _) = file_in(&directory);
    let pool = pool(1);
    let pending = pool.submit(tasks::hold_out_nested, file.clone());
    let pids = wait_for(&file);
    signal(pool.workers()[0].pid, Signal::KILL);
    let began = Instant::now();
    assert!(matches!(pending.wait().unwrap_err().why(), Why::Died(_)));
    eventually("all are gone", || pids.iter().all(|pid| !is_alive(*pid)));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn there_are_never_more_workers_than_slots() {
    let mut coordinator = Coordinator::start(&["churn", "20"]);
    let mut most = 0;
    while coordinator.child.try_wait().unwrap().is_none() {
        let workers = coordinator.processes().into_iter().filter(|pid| {
            // Between fork and exec it still looks like the coordinator.
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|word| word == b"--connect")
        });
        most = most.max(workers.count());
    }
    assert!((1..=3).contains(&most), "{most}");
    assert_eq!(coordinator.end(), ("round\n".repeat(20), Some(0)));
}

#[test]
fn workers_that_wait_are_used_again() {
    let pool = pool(3);
    eventually("all are there", || pool.workers().len() == 3);
    let mut before: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    for _ in 0..20 {
        for pid in pool.map(tasks::pid, [(); 10]).unwrap() {
            assert!(before.contains(&pid));
        }
    }
    let mut after: Vec<u32> = pool.workers().iter().map(|worker| worker.pid).collect();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
    assert_eq!(pool.stats().workers_started, 3);
}

#[test]
fn a_worker_has_no_files_of_its_siblings() {
    let pool = pool(8);
    eventually("all are there", || pool.workers().len() == 8);
    let alone = Process::new(tasks::open_files, ())
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .start()
        .unwrap()
        .join()
        .unwrap();
    let files = pool.map(tasks::open_files, [(); 100]).unwrap();
    assert!(
        files.iter().all(|count| *count == alone),
        "{alone}: {files:?}"
    );
}

#[test]
fn the_coordinator_keeps_no_files_no_threads_and_no_zombies() {
    let mut coordinator = Coordinator::start(&["leaks"]);
    assert_eq!(coordinator.end(), ("nothing\n".to_owned(), Some(0)));
}

#[test]
fn the_coordinator_keeps_no_inputs_and_no_outputs() {
    let mut coordinator = Coordinator::start(&["freed"]);
    let (printed, code) = coordinator.end();
    assert_eq!(code, Some(0));
    let kib: u64 = printed.trim().parse().unwrap();
    assert!(kib < 64 << 10, "{kib} KiB");
}

#[test]
fn inputs_and_outputs_are_dropped_when_they_have_served() {
    let pool = pool(2);
    let here = || COUNTED.load(Ordering::Relaxed);
    for result in pool.stream(ends::count, (0..200).map(Counted::new)) {
        let (counted, in_worker) = result.unwrap();
        // Inputs end when they are encoded, outputs belong to whoever takes them.
        assert_eq!((here(), in_worker), (1, 1));
        drop(counted);
        assert_eq!(here(), 0);
    }
    let outputs = pool.map(ends::count, (0..50).map(Counted::new)).unwrap();
    assert_eq!(here(), 50);
    drop(outputs);
    pool.submit(ends::count, Counted::new(1)).cancel();
    drop(pool.submit(ends::count, Counted::new(2)));
    pool.close();
    pool.join().unwrap();
    assert!(pool.call(ends::count, Counted::new(3)).is_err());
    assert_eq!(here(), 0);
}

#[test]
fn terminate_waits_for_the_grace_and_no_longer() {
    let directory = TempDir::new().unwrap();
    let files = [0, 1].map(|n| directory.path().join(n.to_string()));
    let grace = Duration::from_millis(200);
    let pool = builder(2).grace(grace).build().unwrap();
    let resisting = files.clone().map(|file| pool.submit(tasks::hold_out, file));
    let pids: Vec<u32> = files.iter().flat_map(|file| wait_for(file)).collect();
    let queued: Vec<_> = (0..10_000)
        .map(|_| pool.submit(tasks::sleep_ms, 100_000))
        .collect();
    let began = Instant::now();
    pool.terminate();
    let took = began.elapsed();
    assert!((grace..PROMPT).contains(&took), "{took:?}");
    eventually("all are gone", || pids.iter().all(|pid| !is_alive(*pid)));
    for pending in queued {
        let error = pending.wait().unwrap_err();
        assert_eq!((error.why(), error.attempts()), (&Why::Cancelled, 0));
        assert_eq!(error.note(), Some("the pool was terminated"));
    }
    for pending in resisting {
        let error = pending.wait().unwrap_err();
        assert_eq!((error.why(), error.attempts()), (&Why::Cancelled, 1));
    }
}

#[test]
fn every_order_of_close_join_terminate_and_drop_ends() {
    let began = Instant::now();
    let pool = builder(2).build().unwrap();
    pool.close();
    pool.close();
    pool.terminate();
    pool.join().unwrap();
    pool.terminate();
    drop(pool);

    let pool = builder(2).build().unwrap();
    let pending = pool.submit(tasks::sleep_ms, 100_000);
    let mut stream = pool.stream(tasks::sleep_ms, std::iter::repeat(0));
    assert_eq!(stream.next().unwrap().unwrap(), 0);
    let taken: u64 = 1;
    drop(pool);
    // What outlives the pool says that it is over: first what was read, then one more.
    assert_eq!(*pending.wait().unwrap_err().why(), Why::Cancelled);
    let rest: Vec<_> = stream.collect();
    assert!((1..4100).contains(&(rest.len() as u64 + taken)));
    assert_eq!(
        *rest.last().unwrap().as_ref().unwrap_err().why(),
        Why::Cancelled
    );
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[test]
fn one_initializer_that_fails_ends_the_pool_however_slow_another_is() {
    let directory = TempDir::new().unwrap();
    let mark = directory.path().join("mark");
    let began = Instant::now();
    let error = builder(2)
        .initializer(tasks::first_is_slow, (mark, 100_000))
        .build()
        .unwrap_err();
    assert!(
        error.to_string().contains("only one may be here"),
        "{error}"
    );
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
}

#[test]
fn the_end_of_a_pool_does_not_wait_for_an_initializer() {
    for end in [Pool::terminate, |pool: &Pool| {
        pool.close();
        pool.join().unwrap();
    }] {
        let directory = TempDir::new().unwrap();
        let mark = directory.path().join("mark");
        let builder = builder(2).initializer(tasks::second_is_slow, (mark.clone(), 100_000));
        let pool = builder.build().unwrap();
        eventually("the second has begun", || {
            mark.with_extension("second").exists()
        });
        let began = Instant::now();
        end(&pool);
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        assert!(pool.workers().is_empty());
    }
}

#[test]
fn what_an_initializer_prints_is_its_own_and_no_calls() {
    let builder = builder(1).output(Output::Capture);
    let builder = builder.initializer(tasks::print_part, "ready ".to_owned());
    let pool = builder.build().unwrap();
    let (inputs, mut reports) = pool.with().open(tasks::print_part);
    let inputs = inputs.unwrap();
    for _ in 0..2 {
        inputs.send("call".to_owned()).unwrap();
        let report = reports.next().unwrap();
        assert_eq!(report.stdout.read().unwrap(), b"call");
    }
    let strays = pool.take_strays();
    assert_eq!(strays.len(), 1);
    assert_eq!(strays[0].source, StraySource::Initializer);
    assert_eq!(strays[0].stdout.read().unwrap(), b"ready ");
    assert_eq!(strays[0].worker, pool.workers()[0].pid);
    assert!(pool.take_strays().is_empty());
}

/// Also if no call prints anything.
#[test]
fn what_an_initializer_prints_is_forwarded() {
    let output = Command::new(env!("CARGO_BIN_EXE_misbehave"))
        .arg("initialize")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready \n9\n");
}

#[test]
fn an_initializer_that_dies_says_how() {
    let builder = Pool::builder().worker(env!("CARGO_BIN_EXE_misbehave"));
    let builder = builder.initializer(tasks::print_and_abort, "licence".to_owned());
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("SIGABRT"), "{error}");
    assert!(error.contains("licence is my last word"), "{error}");
}

/// While workers are replaced all the time, there is always one about to be let in.
#[test]
fn a_coordinator_that_is_killed_while_workers_start_leaves_nothing() {
    for _ in 0..20 {
        let mut coordinator = Coordinator::start(&["churn", "10000"]);
        let mut lines = BufReader::new(coordinator.child.stdout.as_mut().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "round");
        signal(coordinator.child.id(), Signal::KILL);
        coordinator.end();
    }
}
