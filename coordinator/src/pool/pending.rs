//! One call that somebody may wait for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use worker::Task;

use super::calls::{Reports, Waited};
use super::codec::Typed;
use crate::error::CallError;

/// A call that was submitted; made by [`Pool::submit`](super::Pool::submit).
///
/// It is also a [`Future`], for any async runtime. Polling it after its result was taken panics. Dropping it does not cancel the call: it runs, and
/// its result is forgotten.
#[must_use = "the result of the call would be lost; drop it if you don't want it"]
pub struct Pending<O> {
    reports: Option<Box<dyn Waits<O>>>,
}

/// [`Reports`] of one call, whatever its task.
trait Waits<O>: Send {
    fn wait(&mut self, limit: Option<Duration>) -> Option<Result<O, CallError>>;
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<O, CallError>>;
    fn is_ready(&self) -> bool;
    fn cancel(&self);
    fn detach(self: Box<Self>);
}

impl<T: Task> Waits<T::Output> for Reports<Typed<T>> {
    fn wait(&mut self, limit: Option<Duration>) -> Option<Result<T::Output, CallError>> {
        match Reports::wait(self, limit) {
            Waited::Report(report) => Some(report.result),
            Waited::NotYet | Waited::Exhausted => None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T::Output, CallError>> {
        match Reports::poll(self, Some(context)) {
            Poll::Ready(Some(report)) => Poll::Ready(report.result),
            // A map of one call has one report.
            Poll::Ready(None) => {
                panic!(
                    "a `Pending` was polled after its result was taken: poll it no more after that"
                )
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_ready(&self) -> bool {
        Reports::is_ready(self)
    }

    fn cancel(&self) {
        Reports::cancel(self, "the caller cancelled it");
    }

    fn detach(self: Box<Self>) {
        super::calls::detach(*self);
    }
}

impl<O> Pending<O> {
    pub(super) fn new<T: Task<Output = O>>(reports: Reports<Typed<T>>) -> Self {
        Pending {
            reports: Some(Box::new(reports)),
        }
    }

    /// Waits for the call to end.
    ///
    /// # Errors
    ///
    /// The call did not succeed.
    ///
    /// # Panics
    ///
    /// If the result was taken already, by [`wait_timeout`](Self::wait_timeout) or as a future.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 7);
    /// assert_eq!(pending.wait()?, 49);
    /// # Ok(()) }
    /// ```
    pub fn wait(mut self) -> Result<O, CallError> {
        let result = self
            .reports()
            .wait(None)
            .expect("the result was taken already");
        self.reports = None;
        result
    }

    /// Waits for the call to end, for at most `limit`; `None` if it has not. After `Some` there is
    /// nothing left to wait for.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use std::time::Duration;
    /// let mut pending = pool.submit(square, 7);
    /// match pending.wait_timeout(Duration::from_secs(1)) {
    ///     Some(result) => assert_eq!(result?, 49),
    ///     None => pending.cancel(),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn wait_timeout(&mut self, limit: Duration) -> Option<Result<O, CallError>> {
        self.reports().wait(Some(limit))
    }

    /// Whether the call has ended.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 7);
    /// while !pending.is_done() {
    ///     std::thread::yield_now(); // or something of use
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reports
            .as_ref()
            .is_none_or(|reports| reports.is_ready())
    }

    /// Cancels the call: it ends as cancelled if it has not ended already. If it is running, its
    /// worker is killed and replaced.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let pending = pool.submit(square, 7);
    /// pending.cancel();
    /// println!("{:?}", pending.wait()); // as cancelled, unless it had ended
    /// # Ok(()) }
    /// ```
    pub fn cancel(&self) {
        if let Some(reports) = &self.reports {
            reports.cancel();
        }
    }

    fn reports(&mut self) -> &mut Box<dyn Waits<O>> {
        // Only `wait` and `drop` take it, and both use up the value.
        self.reports
            .as_mut()
            .expect("a call that is waited for twice")
    }
}

impl<O> Future for Pending<O> {
    type Output = Result<O, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.reports().poll(context)
    }
}

impl<O> Drop for Pending<O> {
    fn drop(&mut self) {
        if let Some(reports) = self.reports.take() {
            reports.detach();
        }
    }
}

impl<O> fmt::Debug for Pending<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("is_done", &self.is_done())
            .finish()
    }
}
