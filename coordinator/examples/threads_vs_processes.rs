//! What processes give that threads don't, shown on real work: both run in parallel, but a process
//! has its own memory, and takes nobody with it when it dies.

#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::{Pool, Why, task};

/// How many times `count_up` has run in this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Counts the primes below n, by trial division.
#[task]
fn count_primes(n: u64) -> usize {
    let is_prime = |c: &u64| {
        (2..)
            .take_while(|d| d * d <= *c)
            .all(|d| !c.is_multiple_of(d))
    };
    (2..n).filter(is_prime).count()
}

/// Adds one to a static counter, and returns what it is then.
#[task]
fn count_up() -> u64 {
    COUNTER.fetch_add(1, Ordering::SeqCst) + 1
}

/// Squares a number, but crashes on 3 the way C code does.
#[task]
fn square_but_crash_on_3(x: i64) -> i64 {
    if x == 3 {
        std::process::abort();
    }
    x * x
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    coordinator::init();
    let workers = coordinator::available_workers();
    let pool = Pool::new(workers)?;

    println!("True parallelism: the primes below 200000, eight times, on {workers} processors");
    compare(&pool, workers)?;

    println!("\nOwn memory: a static counter, raised 8 times");
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(*count_up))));
    println!(
        "  by threads:   the counter here is {}",
        COUNTER.load(Ordering::SeqCst)
    );
    COUNTER.store(0, Ordering::SeqCst);
    pool.map(count_up, [(); 8])?;
    println!(
        "  by processes: the counter here is {}",
        COUNTER.load(Ordering::SeqCst)
    );

    println!("\nIsolation: squares of 1 to 5, where 3 aborts");
    println!("  in a thread:  the whole program would be gone, and this line with it");
    for (result, x) in pool
        .map_each(square_but_crash_on_3, 1..=5)
        .into_iter()
        .zip(1..)
    {
        match result {
            Ok(square) => println!("  in a process: {x} -> {square}"),
            Err(error) if matches!(error.why(), Why::Died(_)) => {
                println!("  in a process: {x} -> {}", error.why());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Times the same work done serially, by threads and by processes.
fn compare(pool: &Pool, workers: usize) -> Result<(), Box<dyn std::error::Error>> {
    let inputs = [200_000; 8];
    let (serial, expected) = timed(|| inputs.map(*count_primes).to_vec());
    let (threads, by_threads) = timed(|| in_threads(&inputs, workers));
    let (processes, by_processes) = timed(|| pool.map(count_primes, inputs));
    assert_eq!(by_threads, expected);
    assert_eq!(by_processes?, expected);
    println!("  {:10} {:>8} {:>9}", "", "time", "speed-up");
    for (name, time) in [
        ("serial", serial),
        ("threads", threads),
        ("processes", processes),
    ] {
        let speed_up = serial.as_secs_f64() / time.as_secs_f64();
        println!("  {name:10} {:>6} ms {speed_up:>8.1}x", time.as_millis());
    }
    Ok(())
}

fn in_threads(inputs: &[u64], workers: usize) -> Vec<usize> {
    let share = inputs.len().div_ceil(workers);
    thread::scope(|scope| {
        let parts: Vec<_> = inputs
            .chunks(share)
            .map(|part| {
                scope.spawn(move || part.iter().map(|n| count_primes(*n)).collect::<Vec<_>>())
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_default())
            .collect()
    })
}

fn timed<R>(work: impl FnOnce() -> R) -> (Duration, R) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}
