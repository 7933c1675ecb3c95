//! A live pool, and a worker that is taken over by its input: the script is what it does. It takes `HOSTILE_WORKER` in
//! the environment, the path of the `hostile` program of the package `tests`.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use coordinator::{Output, Pool};
use libfuzzer_sys::fuzz_target;
use tests::hostile::SCRIPT;
use tests::tasks;

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let worker = std::env::var_os("HOSTILE_WORKER").expect("HOSTILE_WORKER is not set");
        Pool::builder()
            .workers(2)
            .worker(worker)
            .output(Output::Capture)
            .timeout(Duration::from_millis(50))
            .grace(Duration::ZERO)
            .build()
            .expect("a pool of the worker that HOSTILE_WORKER names")
    })
}

fuzz_target!(|data: &[u8]| {
    let honest = |number: u8| vec![b'h', number];
    let inputs = (0..8).map(|number| match number {
        1 => [SCRIPT, data].concat(),
        number => honest(number),
    });
    let outcomes = pool().map_each(tasks::echo, inputs);
    for (number, outcome) in (0..8).zip(outcomes) {
        if let (true, Ok(value)) = (number != 1, outcome) {
            let of_another = value.len() == 2 && value[0] == b'h' && value[1] != number;
            assert!(!of_another, "call {number} has another's value: {value:?}");
        }
    }
});
