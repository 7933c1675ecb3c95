//! Programs with an async runtime, told apart by the variable `MODE`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "it is what the test reads")]

use std::time::Duration;

use coordinator::Pool;
use worker::task;

fn main() {
    match std::env::var("MODE").unwrap().as_str() {
        "before" => before(),
        "inside" => inside(),
        "inside-current" => inside_current(),
        "threads" => threads(),
        other => panic!("unknown: {other}"),
    }
}

/// As it should be.
fn before() {
    worker::init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work());
}

#[tokio::main]
async fn inside() {
    worker::init();
    work().await;
}

#[tokio::main(flavor = "current_thread")]
async fn inside_current() {
    worker::init();
    work().await;
}

fn threads() {
    let (ends, until) = std::sync::mpsc::channel::<()>();
    // Until it runs it has no name of its own.
    let (runs, running) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("a listener".to_owned())
        .spawn(move || {
            runs.send(()).unwrap();
            until.recv()
        });
    running.recv().unwrap();
    worker::init();
    println!("{:?}", Pool::new(1).unwrap().call(waits, 1));
    drop(ends);
    drop(thread);
}

/// Awaits calls that block in a runtime of their own, while time goes on here.
async fn work() {
    let pool = Pool::new(2).unwrap();
    let calls: Vec<_> = (0..4).map(|n| pool.submit(waits, n)).collect();
    let mut sum = 0;
    for call in calls {
        tokio::time::sleep(Duration::from_millis(1)).await;
        sum += call.await.unwrap();
    }
    println!("{sum}");
}

/// Starts a runtime in its worker.
#[task]
fn waits(n: u32) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        n
    })
}
