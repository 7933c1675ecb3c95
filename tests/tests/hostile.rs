//! Workers that are taken over by what they parse, in some thousands of ways: each costs itself, and nobody else.
//!
//! The scripts come from a seed, so that they are the same each time. `HOSTILE_SEED` and `HOSTILE_SCRIPTS` in the
//! environment choose others.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::{Duration, Instant};

use coordinator::{Builder, CallError, Output, Pool, Why};
use tests::hostile::{SCRIPT, acts};
use tests::tasks;

const TIMEOUT: Duration = Duration::from_millis(50);
/// As long as an honest call never takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(1);
/// How many honest calls there are to one script.
const BETWEEN: usize = 3;
/// What their inputs begin with.
const HONEST: &str = "honest";
/// Scripts in one map.
const MANY: usize = 40;

/// Numbers that look random: Vigna's splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn script(&mut self) -> Vec<u8> {
        let len = 1 + self.next() % 24;
        let bytes = (0..len).map(|_| self.next() as u8);
        SCRIPT.iter().copied().chain(bytes).collect()
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |set| set.parse().unwrap())
}

/// How much memory this process has at most had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// Whether an honest call has its own value. If not, its worker had been taken over, by a script in the same batch or
/// before: then it may have what that worker says, but nothing of another.
fn has_its_own(input: &[u8], outcome: &Result<Vec<u8>, CallError>) -> bool {
    match outcome {
        Ok(value) if value == input => true,
        Ok(value) => {
            let text = String::from_utf8_lossy(value);
            assert!(
                !text.starts_with(HONEST),
                "{text} instead of {}",
                String::from_utf8_lossy(input)
            );
            false
        }
        Err(error) => {
            let is_cancelled = matches!(error.why(), Why::Cancelled | Why::OutOfMemory { .. });
            assert!(!is_cancelled, "{error}");
            false
        }
    }
}

/// Inputs of scripts, and honest ones between them.
fn inputs(numbers: &mut Numbers, scripts: usize) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for _ in 0..scripts {
        inputs.push(numbers.script());
        inputs.extend((0..BETWEEN).map(|_| format!("{HONEST} {}", numbers.next()).into_bytes()));
    }
    inputs
}

fn builder() -> Builder {
    Pool::builder()
        .workers(8)
        .worker(env!("CARGO_BIN_EXE_hostile"))
        .output(Output::Capture)
        .grace(Duration::from_millis(10))
}

#[test]
fn a_worker_that_was_taken_over_costs_its_batch() {
    let mut numbers = Numbers(setting("HOSTILE_SEED", 15));
    let scripts = setting("HOSTILE_SCRIPTS", 2000) as usize;
    let before = peak();
    let pool = builder().build().unwrap();
    let (mut kept, mut honest) = (0, 0);
    for round in 0..scripts.div_ceil(MANY) {
        let inputs = inputs(&mut numbers, MANY);
        let began = Instant::now();
        let outcomes = pool
            .with()
            .timeout(TIMEOUT)
            .map_each(tasks::echo, inputs.clone());
        // Each script may cost its limit, and a second for a worker that owes an answer.
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(40),
            "round {round} took {took:?}"
        );
        for (input, outcome) in inputs.iter().zip(&outcomes) {
            if !input.starts_with(SCRIPT) {
                honest += 1;
                kept += usize::from(has_its_own(input, outcome));
            }
        }
    }
    // Workers that scripts have left behind come to light, and others take their place.
    let inputs: Vec<Vec<u8>> = (0..200_u32).map(|x| x.to_le_bytes().to_vec()).collect();
    for _ in 0..3 {
        pool.map_each(tasks::echo, inputs.clone());
    }
    assert_eq!(pool.map(tasks::echo, inputs.clone()).unwrap(), inputs);
    pool.close();
    pool.join().unwrap();
    let more = peak() - before;
    println!(
        "{kept} of {honest} honest calls had their values; {} MiB",
        more >> 20
    );
    assert!(
        kept > honest / 3,
        "{kept} of {honest} honest calls had their values"
    );
    assert!(more < 200 << 20, "{more} bytes");
}

/// Where each call has a process of its own, honest ones don't notice.
#[test]
fn a_worker_that_was_taken_over_costs_nobody_else() {
    let mut numbers = Numbers(setting("HOSTILE_SEED", 16));
    let scripts = setting("HOSTILE_SCRIPTS", 200) as usize;
    let pool = builder().recycle_after(1).build().unwrap();
    let inputs = inputs(&mut numbers, scripts);
    let outcomes = pool
        .with()
        .timeout(LONG)
        .map_each(tasks::echo, inputs.clone());
    for (input, outcome) in inputs.iter().zip(&outcomes) {
        if !input.starts_with(SCRIPT) {
            assert_eq!(outcome.as_ref().unwrap(), input);
        }
    }
}

#[test]
fn any_bytes_are_a_script() {
    let mut numbers = Numbers(1);
    let all: Vec<_> = (0..1000)
        .flat_map(|_| acts(&numbers.script()[SCRIPT.len()..]))
        .collect();
    let kinds: std::collections::HashSet<_> = all.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 15, "a misdeed that no script has");
}
