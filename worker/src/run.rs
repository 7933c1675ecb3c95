//! Runs one call, and turns its result, error or panic into a verdict.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use protocol::lane::Sheet;
use protocol::message::{Panic, Verdict};
use protocol::parcel::Received;

use crate::current;
use crate::os::{self, home::NotedHome};
use crate::output;
use crate::shared;
use crate::task::Task;
use crate::text;

/// Runs a task on an encoded input and encodes the output.
pub(crate) type Runner = fn(Received<'_>, &mut Sheet<'_>) -> Verdict;

/// Runs `T` on an input in postcard.
pub(crate) fn postcard<T: Task>(input: Received<'_>, output: &mut Sheet<'_>) -> Verdict {
    match input.decode::<T::Input>() {
        Ok(input) => run::<T>(input, output, |value, output| {
            output.encode(value).map_err(|error| error.to_string())
        }),
        Err(why) => undecodable_input::<T>(&why),
    }
}

/// Runs `T` on an input as a person types it: JSON of the input type, or else a plain string.
pub(crate) fn text<T: Task>(input: Received<'_>, output: &mut Sheet<'_>) -> Verdict {
    match text::parse::<T::Input>(&input.join()) {
        Ok(input) => run::<T>(input, output, |value, output| {
            text::encode(value, output.buffer())
        }),
        Err(why) => undecodable_input::<T>(&why),
    }
}

/// Checks whether an input, as a person types it, is one of `T`'s, without running the task.
pub(crate) fn check<T: Task>(input: Received<'_>, _: &mut Sheet<'_>) -> Verdict {
    match text::parse::<T::Input>(&input.join()) {
        Ok(_) => Verdict::Value,
        Err(why) => undecodable_input::<T>(&why),
    }
}

/// Runs the function on a decoded input and encodes what it returns.
#[inline]
fn run<T: Task>(
    input: T::Input,
    output: &mut Sheet<'_>,
    encode: impl FnOnce(&T::Output, &mut Sheet<'_>) -> Result<(), String>,
) -> Verdict {
    let result = T::run(input);
    end_a_copy();
    let verdict = match result {
        Ok(value) => match encode(&value, output) {
            Ok(()) => Verdict::Value,
            Err(why) => Verdict::Undecodable(format!(
                "the output of `{}` could not be encoded: {why}",
                T::NAME
            )),
        },
        Err(why) => Verdict::Failed(why),
    };
    // The process that made a shared value keeps it alive, so this one need not keep it for the output.
    shared::take_kept(drop);
    if verdict != Verdict::Value {
        output.clear();
    }
    verdict
}

/// The process that works for a coordinator.
static WORKER: NotedHome = NotedHome::nowhere();

/// Notes which process is the worker, to distinguish it from its forked copies.
pub(crate) fn begin() {
    WORKER.settle();
}

/// Ends this process if it is a copy of the worker that a call has forked. The copy would answer the coordinator a
/// second time, and it shares the memory that large outputs are written to.
#[inline]
pub(crate) fn end_a_copy() {
    if WORKER.is_elsewhere() {
        output::flush();
        os::end_copy();
    }
}

fn undecodable_input<T: Task>(why: &str) -> Verdict {
    Verdict::Undecodable(format!("this is no input for `{}`: {why}", T::SIGNATURE))
}

thread_local! {
    /// Whether this thread is running a call.
    static IN_CALL: Cell<bool> = const { Cell::new(false) };
    /// Whether this call has panicked.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
    /// The message of the last panic in a call.
    static CAUGHT: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs a call so that a panic in it, also while decoding and encoding, becomes a verdict.
#[inline]
pub(crate) fn guarded(runner: Runner, input: Received<'_>, output: &mut Sheet<'_>) -> Verdict {
    IN_CALL.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| runner(input, output)));
    IN_CALL.set(false);
    if PANICKED.replace(false) {
        // The call returned, so an earlier panic was caught by the task itself.
        current::note_panic(b"");
    }
    result.unwrap_or_else(|payload| {
        output.clear();
        let message = message_of(payload.as_ref());
        // `resume_unwind` unwinds without calling the hook, which may have seen an earlier panic.
        let caught = CAUGHT.take().filter(|panic| panic.message == message);
        Verdict::Panicked(caught.unwrap_or_else(|| Panic {
            message,
            location: String::new(),
            backtrace: String::new(),
        }))
    })
}

/// Makes panics within calls travel to the coordinator instead of being printed. Panics of other threads are printed as
/// usual, because no verdict reports them.
pub(crate) fn install_panic_hook() {
    let next = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if IN_CALL.get() {
            // Before all else, because a panic that can't unwind ends this process.
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            // "panic in a function that cannot unwind" follows the real panic, and must not replace its message.
            let is_second = PANICKED.replace(true) && place.contains("core/src/panicking.rs");
            if !is_second {
                let text = format!("{place}\0{}", message_of(info.payload()));
                current::note_panic(text.as_bytes());
            }
            CAUGHT.set(Some(panic_of(info)));
        } else {
            next(info);
        }
    }));
}

fn panic_of(info: &PanicHookInfo<'_>) -> Panic {
    let wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    let mut panic = Panic {
        message: message_of(info.payload()),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace: String::new(),
    };
    if wanted {
        panic.backtrace = resolved(&Backtrace::force_capture());
    }
    panic
}

/// A backtrace as text. Resolving its functions and lines takes up to a second the first time. That time must not count
/// towards the call's limit, so a thread keeps setting the call's clock back meanwhile.
fn resolved(backtrace: &Backtrace) -> String {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // If that thread can't be started, the time does count.
        let keeper = thread::Builder::new().spawn_scoped(scope, || {
            while !done.load(Ordering::Acquire) {
                current::begin_again();
                thread::park_timeout(CLOCK);
            }
        });
        let text = backtrace.to_string();
        done.store(true, Ordering::Release);
        if let Ok(keeper) = keeper {
            keeper.thread().unpark();
        }
        text
    })
}

/// How often the clock of a finished call is set back.
const CLOCK: Duration = Duration::from_millis(5);

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic with something other than a string".to_owned()
    }
}
