//! Each system call of a small run fails once, the first, the second, the third: with whatever error, the run ends, with
//! an exit code that says how and a line that says why, and leaves nothing behind.
//!
//! It takes strace, which makes the n-th call of each thread fail. `NTH_CALL=all` tries each error with each call.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Mutex;

use tests::run::{self, Run};

const ERRORS: [&str; 4] = ["ENOMEM", "EMFILE", "EINTR", "ENOSPC"];
/// How many calls of a kind fail, one in each run.
const MOST: usize = 12;
/// How many runs there are at a time.
const AT_ONCE: usize = 4;

/// What is not ours: the loader's calls and those of Rust's start-up, which end the program at once; and calls that never
/// fail, or may fail without anybody's noticing.
const NOT_OURS: [&str; 29] = [
    "access",
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "exit",
    "exit_group",
    "fstat",
    "futex",
    "getegid",
    "geteuid",
    "getgid",
    "getpgid",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "madvise",
    "mprotect",
    "munmap",
    "newfstatat",
    "poll",
    "pread64",
    "prlimit64",
    "rmdir",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_tid_address",
];

/// The coordinator under strace. It can't have a directory of its own: strace takes one, too.
fn under_strace(arguments: &[&str], options: &[&str]) -> Run {
    run::coordinator(arguments).under_strace(options)
}

/// How often any thread makes each call in a run in which none fails.
fn calls(arguments: &[&str]) -> Option<BTreeMap<String, usize>> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut run = under_strace(arguments, &["-o", trace.path().to_str().unwrap()]);
    let output = run
        .command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    drop(output);
    let text = std::fs::read_to_string(trace.path()).unwrap();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        let begins = line
            .split_once('(')
            .and_then(|(begins, _)| begins.split_once(' '));
        if let Some((thread, call)) = begins {
            let call = call.trim();
            if call
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                *counts.entry((call, thread)).or_default() += 1;
            }
        }
    }
    let mut most = BTreeMap::new();
    for ((call, _), count) in counts {
        let known = most.entry(call.to_owned()).or_default();
        *known = count.max(*known);
    }
    Some(most)
}

/// Whether the loader or Rust's start-up gave up, before `main`.
fn is_before_main(output: &Output) -> bool {
    let stderr = String::from_utf8_lossy(&output.stderr);
    output.status.code() == Some(127)
        || stderr.contains("error while loading shared libraries")
        || stderr.contains("failed to allocate an alternative stack")
        || stderr.contains("failed to allocate a guard page")
}

fn check(arguments: &[&str], expected: &str, (call, error, number): (&str, &str, usize)) {
    let inject = format!("inject={call}:error={error}:when={number}");
    let trace = format!("trace={call}");
    let mut run = under_strace(arguments, &["-o", "/dev/null", "-e", &trace, "-e", &inject]);
    let output = run.command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let what = format!("{call} {number} {error}: {:?} {stderr}", output.status);
    // The first mappings of a process are the loader's and the main thread's: without them it dies of a signal.
    let dies = call == "mmap" && output.status.code().is_none_or(|code| code > 128);
    if is_before_main(&output) || dies {
        return;
    }
    match output.status.code() {
        Some(0) => assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{what}"),
        Some(1..=3) => assert!(!stderr.trim().is_empty(), "{what}"),
        _ => panic!("{what}"),
    }
    // Libraries panic where a call fails that can't; nothing of ours does.
    let mut panics = stderr.lines().filter(|line| line.contains("panicked at"));
    let is_theirs = |line: &str| line.contains("/signal-hook-") || line.contains("/rustix-");
    assert!(panics.all(is_theirs), "{what}");
    run.nothing_left();
}

fn each_call_fails_once(arguments: &[&str], expected: &str) {
    let Some(calls) = calls(arguments) else {
        return tests::skipped("strace does not work here");
    };
    let all = std::env::var_os("NTH_CALL").is_some();
    let mut failures = Vec::new();
    for (call, count) in &calls {
        if NOT_OURS.contains(&call.as_str()) {
            continue;
        }
        for number in 1..=if all { *count } else { MOST.min(*count) } {
            let errors = ERRORS.iter().enumerate();
            let chosen = errors.filter(|(nth, _)| {
                all || nth % ERRORS.len() == (number + call.len()) % ERRORS.len()
            });
            failures.extend(chosen.map(|(_, error)| (call.as_str(), *error, number)));
        }
    }
    assert!(failures.len() > 50, "{calls:?}");
    let left = Mutex::new(failures.iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(failure) = { left.lock().unwrap().next() } {
                    check(arguments, expected, *failure);
                }
            });
        }
    });
}

#[test]
fn a_map_survives_or_says_why() {
    each_call_fails_once(&["map", "square", "-j2", ":::", "1", "2", "3"], "1\n4\n9\n");
}

#[test]
fn commands_survive_or_it_is_said_why() {
    let script = "echo $1; echo said >&2";
    each_call_fails_once(
        &["exec", "-j2", "-c", script, ":::", "1", "2", "3"],
        "1\n2\n3\n",
    );
}

/// The call that can't fail makes rustix panic if it does, in the thread of each slot.
#[cfg(debug_assertions)]
#[test]
fn a_thread_that_panics_ends_its_pool_and_nobody_waits_for_ever() {
    if calls(&["tasks"]).is_none() {
        return tests::skipped("strace does not work here");
    }
    let options = [
        "-o",
        "/dev/null",
        "-e",
        "inject=geteuid:error=EMFILE:when=2",
    ];
    let mut run = under_strace(&["map", "square", "-j2", ":::", "1", "2"], &options);
    let output = run.command.output().unwrap();
    run::prints(&output, 3, "");
    let last = run::stderr(&output).lines().last().unwrap();
    assert!(last.contains("a thread of the pool panicked"), "{last}");
    run.nothing_left();
}
