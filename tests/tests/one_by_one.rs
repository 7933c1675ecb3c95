//! Inputs that are sent one by one, and travel together.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use coordinator::Pool;
use tests::tasks;

#[test]
fn thousands_of_inputs_that_were_sent_alone_travel_together() {
    let pool = Pool::builder()
        .workers(1)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .build()
        .unwrap();
    let (inputs, reports) = pool.with().open(tasks::sleep_ms);
    let inputs = inputs.unwrap();
    // While the first is run, the others gather. They are short, so they soon go in large batches.
    let sender = std::thread::spawn(move || {
        inputs.send(300).unwrap();
        (0..20_000).for_each(|_| inputs.send(0).unwrap());
    });
    assert_eq!(
        reports.filter(|report| report.result.is_ok()).count(),
        20_001
    );
    sender.join().unwrap();
    assert_eq!(pool.stats().workers_died, 0);
}
