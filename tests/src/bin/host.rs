//! Programs that do to their process what a library that is a guest in it would not expect.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    unsafe_code,
    reason = "for the tests"
)]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coordinator::{Death, Output, Pool, Process, Why};
use tests::{eventually, sharing, tasks};
use worker::task;

/// Somebody that nothing belongs to.
const NOBODY: u32 = 65534;

fn main() {
    worker::init();
    match std::env::args().nth(1).as_deref().unwrap() {
        "plain" => plain(),
        // SAFETY: plain calls, here and below.
        "ignores-deaths" => unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            deaths();
        },
        "waits-for-all" => {
            std::thread::spawn(|| {
                loop {
                    // SAFETY: whoever it is, it is one of this process.
                    if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } < 0 {
                        std::thread::yield_now();
                    }
                }
            });
            deaths();
        }
        "blocks-signals" => {
            block_signals();
            let pool = pool();
            print!("{}", pool.call(signals, ()).unwrap());
        }
        "blocks-and-runs" => {
            block_signals();
            let mut arguments = std::env::args_os().skip(2);
            let status = Command::new(arguments.next().unwrap())
                .args(arguments)
                .status();
            std::process::exit(status.unwrap().code().unwrap());
        }
        "another-user" => {
            become_nobody();
            plain();
        }
        "another-user-later" => another_user_later(),
        "undumpable" => {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
            plain();
        }
        "first-process" => first_process(),
        "worker" => {
            let program = std::env::args_os().nth(2).unwrap();
            let builder = Pool::builder().workers(1).worker(program);
            let pool = builder.build().unwrap();
            assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
        }
        "listens" => {
            let place = std::env::args_os().nth(2).unwrap();
            let listener = std::os::unix::net::UnixListener::bind(place).unwrap();
            println!("ready");
            let mut heard = Vec::new();
            let (mut peer, _) = listener.accept().unwrap();
            std::io::Read::read_to_end(&mut peer, &mut heard).unwrap();
            print!("{} bytes; ", heard.len());
        }
        "moves" => moves(),
        "leaks" => leaks(),
        "closed-streams" => closed_streams(),
        "no-files" => no_files(),
        "alarms" => alarms(),
        "panics" => panics(),
        other => panic!("{other}"),
    }
    println!("all is well");
}

fn pool() -> Pool {
    Pool::builder()
        .workers(1)
        .output(Output::Capture)
        .build()
        .unwrap()
}

/// What pools are for, large things and shared ones included.
fn plain() {
    let pool = pool();
    assert_eq!(pool.map(tasks::square, 0..100).unwrap()[99], 99 * 99);
    let large = vec![7; 1 << 20];
    assert_eq!(pool.call(tasks::echo, large.clone()).unwrap(), large);
    let table = pool.share((0..1000).collect());
    assert_eq!(pool.call(sharing::nth, (table, 7)).unwrap(), Some(7));
    pool.call(tasks::exit_with, 3).unwrap_err();
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

/// A death is what it was, or unknown; and never something else.
fn deaths() {
    let is = |found: Death, death: Death| found == death || found == Death::Unknown;
    let pool = pool();
    for _ in 0..5 {
        let error = pool.call(tasks::exit_with, 3).unwrap_err();
        assert!(
            matches!(error.why(), Why::Died(death) if is(*death, Death::Exit(3))),
            "{error}"
        );
        let error = pool
            .with()
            .timeout(Duration::from_millis(20))
            .grace(Duration::ZERO);
        let error = error.call(tasks::sleep_ms, 60_000).unwrap_err();
        assert!(matches!(error.why(), Why::TimedOut(_)), "{error}");
    }
    let mut child = Process::new(tasks::square, 3).start().unwrap();
    assert_eq!(child.join().unwrap(), 9);
    assert!(
        matches!(child.exit_code(), Some(0) | None),
        "{:?}",
        child.exit_code()
    );
    drop(pool);
}

fn block_signals() {
    // SAFETY: as above.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
}

/// Which signals this worker has blocked and ignores.
#[task]
fn signals() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let signals = |line: &&str| line.starts_with("SigBlk") || line.starts_with("SigIgn");
    status
        .lines()
        .filter(signals)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn become_nobody() {
    // SAFETY: as above.
    unsafe {
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
    }
}

/// Its worker is not its to signal any more.
fn another_user_later() {
    let pool = pool();
    pool.call(tasks::square, 3).unwrap();
    become_nobody();
    let began = Instant::now();
    let limited = pool.with().timeout(Duration::from_millis(200));
    let error = limited.call(tasks::sleep_ms, 60_000).unwrap_err();
    assert!(matches!(error.why(), Why::TimedOut(_)), "{error}");
    assert!(
        error.to_string().contains("this program may not signal it"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

/// Starts a process that starts another, and both outlive the call.
#[task]
fn start_two() -> Result<(), std::io::Error> {
    let mut child = Command::new("sh")
        .args(["-c", "sleep 1000 & echo; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()?;
    child
        .stdout
        .take()
        .map_or(Ok(1), |mut stdout| stdout.read(&mut [0]))?;
    Ok(())
}

/// Whoever loses its parent is this process's child.
fn first_process() {
    assert_eq!(std::process::id(), 1);
    let pool = pool();
    for _ in 0..5 {
        pool.call(start_two, ()).unwrap();
        let limited = pool.with().timeout(Duration::from_millis(20));
        limited.call(tasks::sleep_ms, 60_000).unwrap_err();
    }
    drop(pool);
    let is_zombie = |entry: std::io::Result<std::fs::DirEntry>| {
        let stat = entry.unwrap().path().join("stat");
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    // Those that were killed last may take a moment to die.
    eventually("no zombies are left", || {
        !std::fs::read_dir("/proc").unwrap().any(is_zombie)
    });
}

/// Where this worker is, and what it finds in its environment.
#[task]
fn surroundings() -> (PathBuf, Option<String>) {
    (
        std::env::current_dir().unwrap_or_default(),
        std::env::var("TEST_MOVES").ok(),
    )
}

fn moves() {
    let pool = pool();
    let before = pool.call(surroundings, ()).unwrap();
    std::env::set_current_dir("/").unwrap();
    // SAFETY: nobody else reads the environment meanwhile.
    unsafe { std::env::set_var("TEST_MOVES", "moved") };
    pool.call(tasks::exit_with, 3).unwrap_err();
    assert_eq!(pool.call(surroundings, ()).unwrap(), before);
    assert_eq!(before.1, None);
}

/// Has a pipe that is not closed on exec.
fn leaks() {
    let mut ends = [0; 2];
    // SAFETY: there is room for what the system writes; and each end is owned once.
    let (mut reader, writer) = unsafe {
        use std::os::fd::FromRawFd;
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        (
            std::fs::File::from_raw_fd(ends[0]),
            std::fs::File::from_raw_fd(ends[1]),
        )
    };
    let pool = pool();
    pool.call(tasks::square, 3).unwrap();
    (&writer).write_all(b"x").unwrap();
    drop(writer);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"x");
}

/// Has closed its standard streams: what the pool opens must not take their places.
fn closed_streams() {
    let saved = {
        // SAFETY: as above.
        let saved = unsafe { libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 10) };
        (0..3).for_each(|fd| unsafe { _ = libc::close(fd) });
        saved
    };
    let are_closed = || {
        // SAFETY: as above.
        (0..3).all(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1)
    };
    let pool = pool();
    pool.map(tasks::square, 0..100).unwrap();
    let still = are_closed();
    pool.call(tasks::exit_with, 3).unwrap_err();
    pool.call(tasks::square, 3).unwrap();
    let after = are_closed();
    // SAFETY: as above.
    unsafe { libc::dup2(saved, 1) };
    assert!(still && after);
}

/// Has calls panic that have little time, where to find out their stack takes longer.
fn panics() {
    let pool = pool();
    // How long it takes in a new worker: what it finds out, it keeps.
    let began = Instant::now();
    pool.call(tasks::panic_with, String::new()).unwrap_err();
    let limited = pool.with().timeout(began.elapsed() / 2);
    pool.call(tasks::exit_with, 3).unwrap_err();
    pool.call(tasks::square, 3).unwrap();
    for text in ["one", "two"] {
        let error = limited
            .call(tasks::panic_with, text.to_owned())
            .unwrap_err();
        let Why::Panicked {
            message, backtrace, ..
        } = error.why()
        else {
            panic!("{error}")
        };
        assert_eq!(message, text);
        assert!(backtrace.contains("panic_with"), "{backtrace}");
        // For people: one line, and the stack below it.
        let shown = format!("{error:?}");
        assert!(
            shown.starts_with(&format!("{error}\n\nstack of the worker:\n")),
            "{shown}"
        );
        assert!(
            error
                .to_string()
                .starts_with("call 1 of `panic_with`: panicked at "),
            "{error}"
        );
    }
}

static LEDGER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// Has its worker take its time to leave, and note that it has left.
#[task]
fn leave_slowly(ledger: PathBuf) {
    extern "C" fn leave() {
        std::thread::sleep(Duration::from_millis(100));
        let ledger = LEDGER.get().unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(ledger)
            .unwrap()
            .write_all(b"left\n")
            .unwrap();
    }
    LEDGER.get_or_init(|| ledger);
    // SAFETY: the handler may do what any code at a program's end may.
    unsafe { libc::atexit(leave) };
}

/// A timer's signals interrupt the pool's threads all the time.
fn alarms() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; what is set is this process's own.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
    }
    let ledger = std::env::temp_dir().join("ledger");
    std::fs::write(&ledger, "").unwrap();
    let builder = Pool::builder()
        .workers(2)
        .recycle_after(1)
        .grace(Duration::from_secs(10));
    let pool = builder.build().unwrap();
    // SAFETY: this thread hears no alarms, so that the pool's do.
    unsafe {
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const alarm, std::ptr::null_mut());
        let often = libc::timeval {
            tv_sec: 0,
            tv_usec: 2000,
        };
        let timer = libc::itimerval {
            it_interval: often,
            it_value: often,
        };
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
    pool.map(leave_slowly, vec![ledger.clone(); 6]).unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!(std::fs::read_to_string(&ledger).unwrap().lines().count(), 6);
}

fn no_files() {
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    let error = Pool::new(1).unwrap_err().to_string();
    assert!(error.contains("ulimit -f"), "{error}");
}
