//! A long run in which about one call in a hundred misbehaves, in every way there is.
//!
//! What a call does depends on its index alone, so that its outcome is known beforehand. Each attempt
//! writes a line before it does anything else: afterwards the lines tell what really ran.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use coordinator::{CallError, Death, Pool, Why};
use serde::{Deserialize, Serialize};
use worker::task;

use crate::ends::{End, note};

const WORKERS: usize = 4;
/// Each call that does not succeed is tried once again.
const RETRIES: u32 = 1;
const TIMEOUT: Duration = Duration::from_millis(700);
const GRACE: Duration = Duration::from_millis(100);
const MEMORY: u64 = 48 << 20;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Square,
    /// Dies in its first attempt only.
    Recover,
    Fail,
    Panic,
    Meet(End),
    /// Leaves a child behind and dies.
    Orphan,
    Sleep,
    /// Neither ends nor heeds SIGTERM.
    HoldOut,
    Hog,
    /// Returns what the coordinator can't decode.
    Puzzle,
}

const MISDEEDS: [Deed; 18] = [
    Deed::Recover,
    Deed::Fail,
    Deed::Panic,
    Deed::Meet(End::Signal(libc::SIGKILL)),
    Deed::Meet(End::Signal(libc::SIGTERM)),
    Deed::Meet(End::Signal(libc::SIGSTOP)),
    Deed::Meet(End::Segfault),
    Deed::Meet(End::Abort),
    Deed::Meet(End::StackOverflow),
    Deed::Meet(End::Exit(0)),
    Deed::Meet(End::CExit(3)),
    Deed::Meet(End::CloseLink),
    Deed::Meet(End::Rubbish),
    Deed::Orphan,
    Deed::Sleep,
    Deed::HoldOut,
    Deed::Hog,
    Deed::Puzzle,
];

/// By the index alone, and as if at random: the finaliser of splitmix64.
fn deed(index: u64) -> Deed {
    let mut mixed = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let one_in_a_hundred = mixed.is_multiple_of(100);
    let which = usize::try_from(mixed / 100 % MISDEEDS.len() as u64).unwrap_or(0);
    if one_in_a_hundred {
        MISDEEDS[which]
    } else {
        Deed::Square
    }
}

/// A number that can't be decoded if it is the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Answer(u64);

impl TryFrom<u64> for Answer {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        match number {
            u64::MAX => Err("too puzzling"),
            number => Ok(Answer(number)),
        }
    }
}

/// A call of the soak.
#[task]
pub fn soak(ledger: PathBuf, index: u64) -> Result<Answer, String> {
    let deed = deed(index);
    let mut pids = std::process::id().to_string();
    if deed == Deed::Orphan {
        let child = Command::new("sleep").arg("1000").spawn();
        let child = child.map_err(|error| error.to_string())?;
        pids = format!("{pids} {}", child.id());
    }
    note(&ledger, &format!("{index} {pids}")).map_err(|error| error.to_string())?;
    match deed {
        Deed::Square => {}
        Deed::Recover if worker::current().is_some_and(|call| call.attempt > 1) => {}
        Deed::Recover | Deed::Orphan => End::Signal(libc::SIGKILL).meet(),
        Deed::Fail => return Err("by request".to_owned()),
        Deed::Panic => panic!("by request"),
        Deed::Meet(end) => {
            end.meet();
            // Some ends come from outside, a moment later.
            loop {
                std::thread::park();
            }
        }
        Deed::Sleep => loop {
            std::thread::park();
        },
        Deed::HoldOut => hold_out(),
        Deed::Hog => loop {
            std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 20]));
        },
        Deed::Puzzle => return Ok(Answer(u64::MAX)),
    }
    Ok(Answer(index * index))
}

fn hold_out() {
    // SAFETY: ignoring a signal runs no code.
    #[allow(unsafe_code)]
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    loop {
        std::hint::spin_loop();
    }
}

/// Whether a call has ended as it must.
fn is_expected(index: u64, result: &Result<Answer, CallError>) -> bool {
    let deed = deed(index);
    let error = match result {
        Ok(answer) => {
            return matches!(deed, Deed::Square | Deed::Recover)
                && *answer == Answer(index * index);
        }
        Err(error) => error,
    };
    let attempts = match deed {
        Deed::Square | Deed::Recover => return false,
        // Decoding is not tried again: it would fail again.
        Deed::Puzzle => 1,
        _ => RETRIES + 1,
    };
    let why = match deed {
        Deed::Fail => matches!(error.why(), Why::Failed(text) if text == "by request"),
        Deed::Panic => {
            matches!(error.why(), Why::Panicked { message, .. } if message == "by request")
        }
        Deed::Sleep | Deed::HoldOut | Deed::Meet(End::Signal(libc::SIGSTOP)) => {
            *error.why() == Why::TimedOut(TIMEOUT)
        }
        Deed::Hog => *error.why() == Why::OutOfMemory { limit: MEMORY },
        Deed::Puzzle => matches!(error.why(), Why::Undecodable(_)),
        Deed::Meet(end) => *error.why() == Why::Died(death(end)),
        _ => *error.why() == Why::Died(Death::Signal(libc::SIGKILL)),
    };
    why && error.attempts() == attempts && error.index() == index
}

fn death(end: End) -> Death {
    match end {
        End::Signal(number) => Death::Signal(number),
        End::Segfault => Death::Signal(libc::SIGSEGV),
        End::Abort | End::StackOverflow => Death::Signal(libc::SIGABRT),
        End::Exit(code) | End::CExit(code) => Death::Exit(code),
        // The pool kills what it can't talk to.
        End::CloseLink | End::Rubbish => Death::Signal(libc::SIGKILL),
    }
}

/// How often a call must have run.
fn attempts(index: u64) -> usize {
    match deed(index) {
        Deed::Square | Deed::Puzzle => 1,
        _ => RETRIES as usize + 1,
    }
}

/// Makes so many calls, and says of each that did not end as it must, or ran as often as it must, what
/// is wrong with it. `directory` is for the ledger.
///
/// # Errors
///
/// Something is wrong.
pub fn run(calls: u64, directory: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let ledger = directory.join("ledger");
    let pool = Pool::builder()
        .workers(WORKERS)
        .timeout(TIMEOUT)
        .grace(GRACE)
        .retries(RETRIES)
        .memory_limit(MEMORY)
        .build()?;
    let mut seen = 0;
    let mut wrong = Vec::new();
    for result in pool.stream(soak, (0..calls).map(|index| (ledger.clone(), index))) {
        if !is_expected(seen, &result) {
            wrong.push(format!("call {seen}, {:?}: {result:?}", deed(seen)));
        }
        seen += 1;
    }
    pool.close();
    pool.join()?;
    if seen != calls {
        wrong.push(format!("{seen} results of {calls} calls"));
    }
    let mut ran = vec![0; usize::try_from(calls)?];
    let mut pids = BTreeSet::new();
    for line in fs::read_to_string(&ledger)?.lines() {
        let mut words = line.split(' ');
        let index: usize = words.next().unwrap_or_default().parse()?;
        ran[index] += 1;
        pids.extend(
            words
                .map(str::parse::<u32>)
                .collect::<Result<Vec<_>, _>>()?,
        );
    }
    for (index, ran) in (0..).zip(ran) {
        if ran != attempts(index) {
            wrong.push(format!("call {index}, {:?}, ran {ran} times", deed(index)));
        }
    }
    // What was killed last may take a moment to be gone.
    let deadline = Instant::now() + Duration::from_secs(1);
    let alive = || pids.iter().filter(|pid| crate::is_alive(**pid)).count();
    while alive() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    match alive() {
        0 => {}
        alive => wrong.push(format!("{alive} processes are left")),
    }
    match wrong.as_slice() {
        [] => Ok(format!("{calls} calls in {} processes", pids.len())),
        wrong => Err(wrong[..wrong.len().min(10)].join("\n").into()),
    }
}
