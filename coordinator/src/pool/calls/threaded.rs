//! A stream whose inputs are read on a thread of their own.

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use worker::Task;

use super::conclude::cancelled;
use super::inputs::Inputs;
use super::reports::Reports;
use crate::error::CallError;
use crate::pool::codec::Typed;

/// How reading the inputs ended.
enum End {
    /// There are no more.
    Done,
    /// The map took no more, though there was one.
    Refused,
    Panicked(Box<dyn Any + Send>),
}

/// Where the thread says how it ended, before it says that no more inputs come.
type Ended = Arc<Mutex<Option<End>>>;

/// The results of [`Pool::stream_threaded`](crate::Pool::stream_threaded), in input order.
#[must_use = "dropping a stream cancels its calls"]
pub struct ThreadedStream<T: Task> {
    reports: Reports<Typed<T>>,
    /// `None` once there is nothing more to say.
    reading: Option<Ended>,
    taken: u64,
}

impl<T: Task> ThreadedStream<T> {
    pub(in crate::pool) fn new<I>(
        inputs: I,
        (sender, mut reports): (Option<Inputs<Typed<T>>>, Reports<Typed<T>>),
    ) -> Self
    where
        I: IntoIterator<Item = T::Input> + Send + 'static,
    {
        let mut reading = None;
        if let Some(sender) = sender {
            let ended = Ended::default();
            let theirs = Arc::clone(&ended);
            let thread = thread::Builder::new().name("inputs".to_owned());
            let spawned = thread.spawn(move || {
                let end = read(inputs, &sender);
                *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                // Set before the map is sealed, so that whoever sees the seal also sees how the inputs ended.
                drop(sender);
            });
            match spawned {
                Ok(_detached) => reading = Some(ended),
                Err(error) => {
                    let why = format!("there is no thread to read the inputs on: {error}");
                    reports.state = Err(Some(why));
                }
            }
        }
        ThreadedStream {
            reports,
            reading,
            taken: 0,
        }
    }
}

/// Sends the inputs until there are no more, or the map takes no more.
fn read<T: Task>(inputs: impl IntoIterator<Item = T::Input>, sender: &Inputs<Typed<T>>) -> End {
    let read = panic::catch_unwind(AssertUnwindSafe(|| {
        for input in inputs {
            if sender.send(input).is_err() {
                return End::Refused;
            }
        }
        End::Done
    }));
    read.unwrap_or_else(End::Panicked)
}

impl<T: Task> Iterator for ThreadedStream<T> {
    type Item = Result<T::Output, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(report) = self.reports.next() {
            self.taken += 1;
            return Some(report.result);
        }
        let ended = self.reading.take()?;
        let end = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        match end {
            Some(End::Done) => None,
            Some(End::Panicked(panic)) => panic::resume_unwind(panic),
            // The thread may still wait for an input. Those that were never read must not look like the end.
            Some(End::Refused) | None => {
                let note = "the pool was closed before all inputs were read".to_owned();
                Some(self.reports.report(self.taken, cancelled(note)).result)
            }
        }
    }
}

impl<T: Task> fmt::Debug for ThreadedStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ThreadedStream").field(&T::NAME).finish()
    }
}
