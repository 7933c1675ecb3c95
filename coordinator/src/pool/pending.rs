//! One call that somebody may wait for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use worker::Task;

use super::calls::{Single, cancelled, conclude};
use super::codec::{Codec, Typed};
use crate::error::{CallError, PoolError};
use crate::payload::{Encoded, Trace};
use crate::scheduler::Ended;

/// A call that was submitted; made by [`Pool::submit`](super::Pool::submit).
///
/// It is also a [`Future`], for any async runtime. Polling it after its result was taken panics. Dropping it does not cancel the call: it runs, and
/// its result is forgotten.
#[must_use = "the result of the call would be lost; drop it if you don't want it"]
pub struct Pending<O> {
    /// The call, or why the pool did not take it; `None` once its result was taken.
    call: Option<Result<Single, String>>,
    decode: fn(Encoded<'_>) -> Result<O, String>,
    task: fn() -> String,
}

impl<O> Pending<O> {
    /// A call, or why the pool did not take it.
    pub(super) fn new<T: Task<Output = O>>(call: Result<Single, String>) -> Self {
        Pending {
            call: Some(call),
            decode: Typed::<T>::decode,
            task: worker::private::name_of::<T>,
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
        self.result(None).expect("the result was taken already")
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
        self.result(Some(limit))
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
        match &self.call {
            Some(Ok(call)) => call.is_ready(),
            Some(Err(_)) | None => true,
        }
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
        if let Some(Ok(call)) = &self.call {
            call.cancel("the caller cancelled it");
        }
    }

    /// The result, if it comes within a limit and was not taken.
    fn result(&mut self, limit: Option<Duration>) -> Option<Result<O, CallError>> {
        self.refuse_if_copied();
        let ended = match self.call.as_mut()? {
            Ok(call) => call.wait(limit)?,
            Err(why) => cancelled(std::mem::take(why)),
        };
        Some(self.conclude(ended))
    }

    /// In a copy of the process that made the call, nobody answers.
    fn refuse_if_copied(&mut self) {
        if let Some(Ok(call)) = &self.call
            && call.is_copied()
        {
            self.call = Some(Err(PoolError::Copied.to_string()));
        }
    }

    /// Makes the result of the call's end, which was taken.
    fn conclude(&mut self, mut ended: Ended<Trace>) -> Result<O, CallError> {
        // From here on there is nothing to take, even if the host's code that decodes the output panics.
        let index = match self.call.take() {
            Some(Ok(call)) => {
                call.forward(&ended);
                call.index()
            }
            Some(Err(_)) | None => 0,
        };
        // Its caller knows of no other calls.
        let task = || (self.task)().into();
        conclude(&mut ended, (index, 0), self.decode, task)
    }
}

impl<O> Future for Pending<O> {
    type Output = Result<O, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.refuse_if_copied();
        let ended = match &mut self.call {
            Some(Ok(call)) => match call.poll(context) {
                Poll::Ready(ended) => ended,
                Poll::Pending => return Poll::Pending,
            },
            Some(Err(why)) => cancelled(std::mem::take(why)),
            None => {
                panic!(
                    "a `Pending` was polled after its result was taken: poll it no more after that"
                )
            }
        };
        Poll::Ready(self.conclude(ended))
    }
}

impl<O> Drop for Pending<O> {
    fn drop(&mut self) {
        if let Some(Ok(call)) = &self.call {
            call.let_go();
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
