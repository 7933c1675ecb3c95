//! Workers that are copied from one that has run the initializer: they are there at once, and workers in every way.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use coordinator::{Builder, Death, Output, Pool, PoolError, StraySource, Why};
use rustix::process::Signal;
use support::builder;
use tempfile::TempDir;
use tests::ends;
use tests::processes::{heed_signals, pids_in, processes_with, signal};
use tests::warm::{self, Found};
use tests::{eventually, hogs, is_alive, sharing, tasks};

/// How long anything may be left of a coordinator that has ended.
const PROMISED: Duration = Duration::from_secs(1);
const MIB: usize = 1 << 20;

/// A pool of copies of a worker that has loaded next to nothing.
fn warm_builder(workers: usize) -> Builder {
    let builder = builder(workers).initializer(warm::load, (0, 1000));
    builder.warm_copies(true)
}

/// So many in a row that both sides stay awake, and speak by memory.
fn many_calls(pool: &Pool) {
    (0..2000).for_each(|n| assert_eq!(pool.call(tasks::square, n).unwrap(), n * n));
}

fn found(pool: &Pool) -> Found {
    pool.call(warm::found, ()).unwrap()
}

/// The process that the workers are copies of.
fn template(pool: &Pool) -> u32 {
    let found = found(pool);
    let template = found.loaded_by.unwrap();
    assert_ne!(template, found.pid, "it is no copy");
    template
}

/// Lines of the log, of level `warn`.
fn warnings() -> &'static Mutex<Vec<String>> {
    struct Keep;
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    impl log::Log for Keep {
        fn enabled(&self, of: &log::Metadata<'_>) -> bool {
            of.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| {
        log::set_logger(&Keep).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    &LINES
}

/// How many lines of the log have both texts in them.
fn warned(one: &str, other: &str) -> usize {
    let lines = warnings().lock().unwrap();
    let both = |line: &&String| line.contains(one) && line.contains(other);
    lines.iter().filter(both).count()
}

/// How long a call takes whose worker takes the place of one that was killed.
fn after_a_death(builder: Builder) -> Duration {
    let pool = builder.build().unwrap();
    pool.call(tasks::square, 3).unwrap();
    pool.call(tasks::raise, libc::SIGKILL).unwrap_err();
    let began = Instant::now();
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    began.elapsed()
}

#[test]
fn an_initializer_may_close_the_standard_streams() {
    let builder = builder(2).initializer(warm::load_and_close_streams, ());
    let pool = builder.warm_copies(true).build().unwrap();
    many_calls(&pool);
    template(&pool);
}

#[test]
fn a_replacement_is_there_at_once() {
    let slow = || builder(1).initializer(warm::load, (500, MIB));
    let cold = after_a_death(slow());
    let warm = after_a_death(slow().warm_copies(true));
    assert!(cold >= Duration::from_millis(500), "{cold:?}");
    // It takes some milliseconds, where nothing else wants the processors.
    assert!(warm < Duration::from_millis(200), "{warm:?}");
}

#[test]
fn what_the_initializer_has_filled_is_there_once() {
    const WORKERS: usize = 4;
    let builder = builder(WORKERS).initializer(warm::load, (0, 100 * MIB));
    let pool = builder.warm_copies(true).build().unwrap();
    let directory = TempDir::new().unwrap();
    let go_on = directory.path().join("go on");
    // They all live at the same time.
    let (inputs, reports) = pool.with().open(hogs::wait_for);
    let inputs = inputs.unwrap();
    let runs: Vec<_> = (0..WORKERS)
        .map(|worker| directory.path().join(worker.to_string()))
        .collect();
    for file in &runs {
        inputs.send((file.clone(), go_on.clone())).unwrap();
    }
    drop(inputs);
    eventually("all run", || runs.iter().all(|file| file.exists()));
    std::fs::write(&go_on, "").unwrap();
    let pids: HashSet<u32> = reports.map(|report| report.result.unwrap()).collect();
    assert_eq!(pids.len(), WORKERS);
    let share = pool.call(warm::memory_share, ()).unwrap();
    assert!(share < 50 * MIB as u64, "{} MiB", share >> 20);
    assert_eq!(found(&pool).bytes, 100 * MIB);
}

#[test]
fn each_call_can_have_a_process_of_its_own_with_the_same_state() {
    let directory = TempDir::new().unwrap();
    let ledger = directory.path().join("ledger");
    let builder = builder(2).initializer(warm::load_and_note, ledger.clone());
    let builder = builder.warm_copies(true).recycle_after(1);
    let pool = builder.build().unwrap();
    let calls = pool.map(warm::found, vec![(); 20]).unwrap();
    let pids: HashSet<u32> = calls.iter().map(|found| found.pid).collect();
    assert_eq!(pids.len(), 20);
    let ran = pids_in(&ledger);
    assert_eq!(ran.len(), 1, "the initializer ran in {ran:?}");
    assert!(calls.iter().all(|found| found.loaded_by == Some(ran[0])));
    // What one copy holds open, the next one does not.
    assert!(calls.iter().all(|found| found.files == calls[0].files));
    drop(pool);
    assert!(!is_alive(ran[0]), "the template is left");
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_copy_is_a_worker_like_any_other() {
    let cold = builder(1).initializer(warm::load, (0, 1000));
    let cold = found(&cold.build().unwrap());
    let pool = warm_builder(1).build().unwrap();
    let copy = found(&pool);
    assert_eq!(copy.parent, std::process::id());
    assert_eq!(copy.group, copy.pid);
    assert!(copy.thread_is_known);
    assert_eq!((copy.bytes, copy.files), (cold.bytes, cold.files));
    assert_eq!(pool.workers().len(), 1);
    assert_eq!(pool.workers()[0].pid, copy.pid);
    assert_eq!(pool.call(tasks::current, ()).unwrap(), Some((1, 0, 1)));
    // By every way that inputs and outputs take.
    for size in [10, 100_000, 3 * MIB, 20 * MIB] {
        let bytes = vec![5; size];
        assert_eq!(pool.call(tasks::echo, bytes.clone()).unwrap(), bytes);
    }
    let squares: Vec<i64> = (0..10_000).map(|n| n * n).collect();
    assert_eq!(pool.map(tasks::square, 0..10_000).unwrap(), squares);
    many_calls(&pool);
    let table = pool.share((0..1000).collect());
    assert_eq!(pool.call(sharing::nth, (table, 7)).unwrap(), Some(7));
    // A copy of the copy, which a task has made, is none.
    let answer = pool.call(ends::fork_and_return, 3).unwrap();
    assert_eq!(answer, "www");
}

#[test]
fn what_copies_print_is_their_calls() {
    let builder = warm_builder(2).output(Output::Capture).recycle_after(1);
    let builder = builder.initializer(tasks::print_part, "ready".to_owned());
    let pool = builder.build().unwrap();
    let (inputs, reports) = pool.with().open(tasks::print_every_way);
    let inputs = inputs.unwrap();
    (0..6).for_each(|number| inputs.send((number, 0)).unwrap());
    drop(inputs);
    for report in reports {
        let n = report.index;
        let out = format!("{n} rust\n{n} C\n{n} child\n");
        assert_eq!(report.stdout.read().unwrap(), out.as_bytes());
        let err = format!("{n} err\n{n} rust err\n");
        assert_eq!(report.stderr.read().unwrap(), err.as_bytes());
    }
    // The initializer ran once.
    let strays = pool.take_strays();
    assert_eq!(strays.len(), 1);
    assert_eq!(strays[0].source, StraySource::Initializer);
    assert_eq!(strays[0].stdout.read().unwrap(), b"ready");
}

#[test]
fn calls_end_as_they_do_elsewhere() {
    let pool = warm_builder(2).build().unwrap();
    let why = |error: coordinator::CallError| error.why().clone();
    let panicked = pool.call(tasks::panic_with, "boo".to_owned()).unwrap_err();
    assert!(matches!(why(panicked), Why::Panicked { message, .. } if message == "boo"));
    let failed = pool.call(tasks::fail, "no".to_owned()).unwrap_err();
    assert_eq!(why(failed), Why::Failed("no".to_owned()));
    let exited = pool.call(tasks::exit_with, 3).unwrap_err();
    assert_eq!(why(exited), Why::Died(Death::Exit(3)));
    for number in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM] {
        let died = pool.call(tasks::raise, number).unwrap_err();
        assert_eq!(why(died), Why::Died(Death::Signal(number)));
    }
    assert_eq!(found(&pool).bytes, 1000);
}

#[test]
fn limits_hold_for_copies() {
    const LIMIT: u64 = 64 << 20;
    let builder = warm_builder(2).memory_limit(LIMIT);
    let pool = builder.output(Output::Capture).build().unwrap();
    let error = pool.call(hogs::take_memory, 4096 * MIB).unwrap_err();
    assert_eq!(*error.why(), Why::OutOfMemory { limit: LIMIT });
    let error = pool
        .call(hogs::take_memory_at_once, 8192 * MIB)
        .unwrap_err();
    assert_eq!(*error.why(), Why::OutOfMemory { limit: LIMIT });
    let limit = Duration::from_millis(50);
    let limited = pool.with().timeout(limit);
    let error = limited.call(tasks::sleep_ms, 60_000).unwrap_err();
    assert_eq!(*error.why(), Why::TimedOut(limit));
    // One that heeds no SIGTERM is told, and has the grace.
    let directory = TempDir::new().unwrap();
    let note = directory.path().join("note");
    let error = limited
        .call(hogs::leave_when_told, note.clone())
        .unwrap_err();
    assert_eq!(*error.why(), Why::TimedOut(limit));
    assert!(note.exists());
    assert_eq!(found(&pool).bytes, 1000);
}

#[test]
fn a_killed_worker_costs_the_running_call_alone() {
    let directory = TempDir::new().unwrap();
    let (runs, go_on) = (
        directory.path().join("runs"),
        directory.path().join("go on"),
    );
    let pool = warm_builder(1).build().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.call(hogs::wait_for, (runs.clone(), go_on.clone())));
        let after = scope.spawn(|| {
            eventually("it runs", || runs.exists() && !pids_in(&runs).is_empty());
            pool.map(tasks::square, 0..1000)
        });
        eventually("it runs", || runs.exists() && !pids_in(&runs).is_empty());
        signal(pids_in(&runs)[0], Signal::KILL);
        let error = waits.join().unwrap().unwrap_err();
        assert_eq!(*error.why(), Why::Died(Death::Signal(9)));
        assert_eq!(after.join().unwrap().unwrap().len(), 1000);
    });
}

#[test]
fn a_template_that_is_killed_is_replaced() {
    warnings();
    let pool = warm_builder(1).build().unwrap();
    let before = template(&pool);
    signal(before, Signal::KILL);
    eventually("its death is seen", || {
        warned(&format!("process {before}, "), "SIGKILL") == 1
    });
    assert!(!Path::new(&format!("/proc/{before}")).exists());
    // The worker that lives is none the worse for it.
    assert_eq!(found(&pool).loaded_by, Some(before));
    pool.call(tasks::raise, libc::SIGKILL).unwrap_err();
    let after = template(&pool);
    assert_ne!(after, before);
    pool.call(tasks::raise, libc::SIGKILL).unwrap_err();
    assert_eq!(template(&pool), after);
}

#[test]
fn a_template_that_does_not_answer_is_replaced() {
    warnings();
    let pool = warm_builder(1).build().unwrap();
    let before = template(&pool);
    signal(before, Signal::STOP);
    pool.call(tasks::raise, libc::SIGKILL).unwrap_err();
    assert_ne!(template(&pool), before);
    assert_eq!(
        warned(&format!("process {before}, "), "waiting for too long"),
        1
    );
    assert!(!is_alive(before));
}

#[test]
fn an_initializer_that_leaves_a_thread_is_refused_and_its_workers_start_anew() {
    warnings();
    let name = "left-behind";
    let builder = builder(2).initializer(warm::load_with_thread, name.to_owned());
    let pool = builder.warm_copies(true).build().unwrap();
    for _ in 0..3 {
        let found = found(&pool);
        assert_eq!(found.loaded_by, Some(found.pid));
        many_calls(&pool);
        pool.call(tasks::raise, libc::SIGKILL).unwrap_err();
    }
    assert_eq!(warned("no warm copies", name), 1);
}

#[test]
fn threads_that_the_initializer_has_waited_for_are_no_obstacle() {
    for _ in 0..5 {
        let builder = builder(1).initializer(warm::load_by_threads, 8);
        let pool = builder.warm_copies(true).build().unwrap();
        template(&pool);
    }
}

#[test]
fn an_initializer_that_fails_is_reported() {
    let builder = builder(2).initializer(tasks::fail, "no licence".to_owned());
    let error = builder.warm_copies(true).build().unwrap_err();
    assert!(matches!(&error, PoolError::Initializer(_)), "{error}");
    let builder = builder_of(tasks::exit_with, 3);
    let error = builder.build().unwrap_err().to_string();
    assert!(
        error.contains("initializer") && error.contains("code 3"),
        "{error}"
    );
}

fn builder_of<T: coordinator::Task>(task: T, input: T::Input) -> Builder {
    builder(2).initializer(task, input).warm_copies(true)
}

/// Without an initializer, all that a copy saves is the start of a program.
#[test]
fn there_need_be_no_initializer() {
    let pool = builder(2).warm_copies(true).build().unwrap();
    pool.call(tasks::exit_with, 3).unwrap_err();
    let found = found(&pool);
    assert_eq!((found.loaded_by, found.group), (None, found.pid));
}

#[test]
fn a_terminated_pool_leaves_no_template() {
    let pool = warm_builder(2).build().unwrap();
    let template = template(&pool);
    let pending = pool.submit(tasks::sleep_ms, 60_000);
    pool.terminate();
    pending.wait().unwrap_err();
    assert!(pool.join().is_ok());
    assert!(!is_alive(template));
}

#[test]
fn a_pool_that_is_terminated_while_a_template_is_made_ends_at_once() {
    let directory = TempDir::new().unwrap();
    let ledger = directory.path().join("ledger");
    let pool = builder_of(warm::load_slowly_again, ledger.clone()).build();
    let pool = pool.unwrap();
    signal(template(&pool), Signal::KILL);
    pool.call(tasks::raise, libc::SIGKILL).unwrap_err();
    let pending: Vec<_> = (0..4).map(|_| pool.submit(tasks::raise, 9)).collect();
    eventually("another one is made", || pids_in(&ledger).len() == 2);
    let began = Instant::now();
    pool.terminate();
    pending
        .into_iter()
        .for_each(|it| drop(it.wait().unwrap_err()));
    assert!(pool.join().is_ok());
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(pids_in(&ledger).iter().all(|pid| !is_alive(*pid)));
}

/// A copy's files arrive in the template.
#[test]
fn a_template_without_room_for_files_is_said_to_be_so() {
    let builder = builder_of(warm::load_without_room_for_files, ());
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("no room for further files"), "{error}");
}

/// The children of this process that are dead, and that nobody has reaped.
fn zombies() -> HashSet<u32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let lists = threads.map(|thread| {
        let list = thread.unwrap().path().join("children");
        std::fs::read_to_string(list).unwrap_or_default()
    });
    let children = lists.flat_map(|list| {
        let words: Vec<u32> = list
            .split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        words
    });
    children.filter(|pid| !is_alive(*pid)).collect()
}

/// There is always a copy about to be let in.
#[test]
fn every_copy_is_reaped_however_soon_the_pool_ends() {
    for calls in 0..40 {
        let pool = warm_builder(2).recycle_after(1).build().unwrap();
        pool.map(tasks::square, 0..calls % 8).unwrap();
    }
    // Those of other tests are reaped soon.
    let left = zombies();
    eventually("all are reaped", || zombies().is_disjoint(&left));
}

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
            .spawn()
            .unwrap();
        Coordinator { child, temporary }
    }

    fn processes(&self) -> Vec<u32> {
        processes_with(self.temporary.path())
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let began = Instant::now();
        eventually("its processes are gone", || self.processes().is_empty());
        assert!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        assert_eq!(self.temporary.path().read_dir().unwrap().count(), 0);
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // For tests that fail before its end, or because of what it leaves behind.
        let _ = self.child.kill();
        self.processes()
            .into_iter()
            .for_each(|pid| signal(pid, Signal::KILL));
        let _ = self.child.wait();
    }
}

#[test]
fn nothing_is_left_of_a_coordinator_that_is_killed() {
    let directory = TempDir::new().unwrap();
    let files = ["one", "two"].map(|name| directory.path().join(name));
    let paths = files.each_ref().map(|file| file.to_str().unwrap());
    let coordinator = Coordinator::start(&[&["warm"], &paths[..]].concat());
    eventually("they hold out", || files.iter().all(|file| file.exists()));
    // Itself, the template, two copies and a child of each.
    assert_eq!(coordinator.processes().len(), 6);
    coordinator.kill();
}

#[test]
fn nothing_is_left_of_a_coordinator_that_is_killed_while_copies_are_made() {
    for _ in 0..20 {
        let mut coordinator = Coordinator::start(&["warm-churn"]);
        let mut lines = BufReader::new(coordinator.child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "round");
        coordinator.kill();
    }
}

/// Without this, a worker by hand would be asked to copy itself.
#[test]
fn workers_that_share_no_memory_start_anew() {
    warnings();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/worker.py");
    if !Command::new("python3")
        .arg("--version")
        .output()
        .is_ok_and(|it| it.status.success())
    {
        return tests::skipped("there is no python3");
    }
    let builder = Pool::builder().workers(1).worker(plain).warm_copies(true);
    let pool = builder.build().unwrap();
    assert_eq!(pool.workers().len(), 1);
    let pid = pool.workers()[0].pid;
    assert_eq!(warned(&format!("process {pid}"), "plain worker"), 1);
}
