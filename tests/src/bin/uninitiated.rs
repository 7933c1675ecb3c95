//! A program that builds a pool and has never called `worker::init()`: if it is a worker, too, its workers build pools.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    unsafe_code,
    reason = "for the tests"
)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::Pool;
use tests::tasks;

/// How deep it is, if its workers are what it is.
const LEVEL: &str = "TEST_LEVEL";
/// Where each of them leaves a line.
const LEDGER: &str = "TEST_LEDGER";
/// What its workers run, if that is named.
const WORKER: &str = "TEST_WORKER";
/// Set if it is to call `worker::init()` all the same, and run a task that calls itself.
const NEST: &str = "TEST_NEST";
/// At this level it stops, whatever it finds.
const ENOUGH: u32 = 3;

fn main() {
    if std::env::var_os(NEST).is_some() {
        return nest();
    }
    let level: u32 = std::env::var(LEVEL).map_or(0, |level| level.parse().unwrap());
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var(LEVEL, (level + 1).to_string()) };
    let ledger = std::env::var_os(LEDGER).unwrap();
    let mut ledger = OpenOptions::new()
        .append(true)
        .create(true)
        .open(ledger)
        .unwrap();
    if level >= ENOUGH {
        ledger.write_all(b"enough\n").unwrap();
        return;
    }
    let mut builder = Pool::builder()
        .workers(1)
        .restart_limit(1, Duration::from_secs(1));
    if let Some(worker) = std::env::var_os(WORKER) {
        builder = builder.worker(worker);
    }
    let said = match builder.build() {
        Ok(_) => "it has a pool".to_owned(),
        Err(error) => error.to_string().replace('\n', " "),
    };
    ledger
        .write_all(format!("{level} {said}\n").as_bytes())
        .unwrap();
}

/// A task that calls itself by a pool of its own.
#[worker::task]
fn nested(_: u32) -> Result<u32, String> {
    nest_again()
}

fn nest_again() -> Result<u32, String> {
    let pool = Pool::new(1).map_err(|error| error.to_string())?;
    let depth = pool.call(nested, 0).map_err(|error| error.to_string())?;
    Ok(depth + 1)
}

fn nest() {
    worker::init();
    let this: PathBuf = std::env::current_exe().unwrap();
    let pool = Pool::builder().workers(1).worker(this).build().unwrap();
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
    println!("{}", pool.call(nested, 0).unwrap_err());
}
