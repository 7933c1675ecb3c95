//! Panics that can't unwind end the worker, and still say what they say.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use coordinator::{Death, Output, Pool, Why};
use tests::ends::{self, End};
use tests::tasks;

fn pool() -> Pool {
    Pool::builder()
        .workers(1)
        .output(Output::Capture)
        .worker(env!("CARGO_BIN_EXE_misbehave"))
        .build()
        .unwrap()
}

#[test]
fn a_panic_that_can_not_unwind_says_what_and_where() {
    let pool = pool();
    for (while_unwinding, said) in [(false, "not into C"), (true, "once more")] {
        let error = pool
            .call(ends::panic_for_good, while_unwinding)
            .unwrap_err();
        let Why::Panicked {
            message, location, ..
        } = error.why()
        else {
            panic!("{error}")
        };
        let all = format!("{message} {}", error.stderr());
        assert!(all.contains(said), "{error:?}");
        assert!(!location.is_empty(), "{error:?}");
    }
    assert_eq!(pool.call(tasks::square, 3).unwrap(), 9);
}

#[test]
fn a_panic_that_was_caught_is_not_blamed() {
    let pool = pool();
    let error = pool.call(ends::catch_and_end, End::Segfault).unwrap_err();
    assert_eq!(
        *error.why(),
        Why::Died(Death::Signal(libc::SIGSEGV)),
        "{error}"
    );
    // Nor one of an earlier call.
    pool.call(tasks::panic_with, "before".to_owned())
        .unwrap_err();
    let error = pool.call(ends::survive_at, (2, End::Abort)).unwrap_err();
    assert_eq!(
        *error.why(),
        Why::Died(Death::Signal(libc::SIGABRT)),
        "{error}"
    );
}
