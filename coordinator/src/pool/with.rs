//! Settings for some calls, and the calls themselves.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use worker::Task;

use super::calls::{self, Feed, Inputs, Plan, Reports, Stream, StreamUnordered, ThreadedStream};
use super::codec::{Codec, Text, Typed};
use super::pending::Pending;
use crate::engine::shared::PoolShared;
use crate::engine::singles::Kind;
use crate::error::CallError;
use crate::payload::Job;
use crate::scheduler::{Failures, Limits, MapSpec, Order, Window};

/// How many calls of a stream are under way at once. Enough to keep workers busy, little enough to forget.
const STREAM: usize = 4096;
/// A map keeps all its results anyway: this only bounds its inputs.
const MAP: usize = 1 << 16;
/// How many bytes, unless there would be too few calls for the workers. Of 1 MiB each, that is enough to keep
/// two workers busy while their caller does not look; twice as much brought nothing.
const BYTES: usize = 8 << 20;

/// A pool with settings for the calls made through it; made by [`Pool::with`](crate::Pool::with).
#[derive(Debug, Clone, Copy)]
#[must_use = "settings do nothing until a call is made with them"]
pub struct With<'p> {
    shared: &'p Arc<PoolShared>,
    limits: Limits,
    order: Order,
    every_attempt: bool,
    failures: Failures,
    at_most_once: bool,
}

impl<'p> With<'p> {
    pub(super) fn new(shared: &'p Arc<PoolShared>) -> Self {
        With {
            shared,
            limits: shared.config.limits,
            order: Order::Input,
            every_attempt: false,
            failures: Failures::Any,
            at_most_once: false,
        }
    }

    /// As [`Builder::timeout`](crate::Builder::timeout), for these calls.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use std::time::Duration;
    /// let with = pool.with().timeout(Duration::from_secs(5));
    /// with.map(square, 1..=9)?;
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = Some(limit);
        self
    }

    /// As [`Builder::grace`](crate::Builder::grace), for these calls.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use std::time::Duration;
    /// let with = pool.with().timeout(Duration::from_secs(5)).grace(Duration::ZERO);
    /// with.map(square, 1..=9)?;
    /// # Ok(()) }
    /// ```
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace;
        self
    }

    /// As [`Builder::retries`](crate::Builder::retries), for these calls.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let with = pool.with().retries(3);
    /// with.map(square, 1..=9)?;
    /// # Ok(()) }
    /// ```
    pub fn retries(mut self, retries: u32) -> Self {
        self.limits.retries = retries;
        self
    }

    /// As [`Builder::backoff`](crate::Builder::backoff), for these calls.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use std::time::Duration;
    /// let with = pool.with().retries(3).backoff(Duration::from_millis(50));
    /// with.map(square, 1..=9)?;
    /// # Ok(()) }
    /// ```
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.limits.backoff = backoff;
        self
    }

    /// As [`Builder::memory_limit`](crate::Builder::memory_limit), for these calls. No call can run in 0
    /// bytes; each then ends as out of memory.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let with = pool.with().memory_limit(100 << 20);
    /// with.map(square, 1..=9)?;
    /// # Ok(()) }
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.limits.memory = Some(bytes);
        self
    }

    /// A call that may have begun on a machine that was lost is not run again, unless by [`retries`](Self::retries): it ends as
    /// [`Died`](crate::Why::Died). Without this, calls that are not known to have begun are run elsewhere; one that runs for less
    /// than 0.1 s may so run twice.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let with = pool.with().at_most_once();
    /// with.map(square, 1..=9)?;
    /// # Ok(()) }
    /// ```
    pub fn at_most_once(mut self) -> Self {
        self.at_most_once = true;
        self
    }

    /// In which order [`open`](Self::open) and [`open_text`](Self::open_text) hand out reports.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// use coordinator::Order;
    /// let with = pool.with().order(Order::Completion);
    /// let (inputs, reports) = with.open(square);
    /// # Ok(()) }
    /// ```
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// [`open`](Self::open) and [`open_text`](Self::open_text) also report attempts that did not
    /// succeed and are followed by another one, as they end: see [`Report::again`](crate::Report).
    /// Such a report does not free the call's place in the window. Each call has one report besides,
    /// its outcome, which comes behind those of its earlier attempts. What attempts print that are
    /// reported is kept or forwarded as for any report.
    ///
    /// Reports come in the order of completion then, whatever [`order`](Self::order) says.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let with = pool.with().retries(1).every_attempt();
    /// let (inputs, reports) = with.open(square);
    /// # Ok(()) }
    /// ```
    pub fn every_attempt(mut self) -> Self {
        self.every_attempt = true;
        self
    }

    /// Ends a map that was made by [`open`](Self::open) or [`open_text`](Self::open_text) once so many
    /// of its calls have not succeeded, after all of their attempts: no further one starts, another
    /// attempt of one that was tried included. Those that have not started end as
    /// [`Cancelled`](crate::Why::Cancelled), and further inputs are [`Refused`](crate::Refused). Those
    /// that run are finished, or, with `now`, cancelled, too: their workers are killed and replaced.
    ///
    /// 0 is taken for 1. An output that can't be decoded is found out only when its report is taken, and
    /// does not count. The calls of such a map travel one by one, so that none starts behind the last
    /// failure; where they are very short, that takes longer than it would without.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let with = pool.with().max_failures(10, false);
    /// let (inputs, reports) = with.open(square);
    /// # Ok(()) }
    /// ```
    pub fn max_failures(mut self, failures: u64, now: bool) -> Self {
        self.failures = Failures::Most {
            calls: failures,
            now,
        };
        self
    }

    /// As [`Pool::map`](crate::Pool::map).
    ///
    /// # Errors
    ///
    /// As [`Pool::map`](crate::Pool::map).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// assert_eq!(pool.with().retries(1).map(square, 1..=3)?, [1, 4, 9]);
    /// # Ok(()) }
    /// ```
    pub fn map<T: Task>(
        self,
        _task: T,
        inputs: impl IntoIterator<Item = T::Input>,
    ) -> Result<Vec<T::Output>, CallError> {
        let opened = self.start(Typed::<T>::new(), |spec| MapSpec {
            failures: Failures::First,
            ..spec
        });
        collect(inputs, opened)
    }

    /// As [`Pool::map_each`](crate::Pool::map_each).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for result in pool.with().retries(1).map_each(square, 1..=3) {
    ///     println!("{result:?}");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn map_each<T: Task>(
        self,
        _task: T,
        inputs: impl IntoIterator<Item = T::Input>,
    ) -> Vec<Result<T::Output, CallError>> {
        let inputs = inputs.into_iter();
        let opened = self.start(Typed::<T>::new(), |spec| spec);
        if opened.0.is_none() {
            // Every call has its outcome, also where the pool takes none.
            let mut reports = opened.1;
            let refusal = reports.next().map(|report| report.result);
            let Some(Err(error)) = refusal else {
                return Vec::new();
            };
            return inputs
                .enumerate()
                .map(|(index, _)| {
                    let mut error = error.clone();
                    error.details.index = index as u64;
                    Err(error)
                })
                .collect();
        }
        let mut feed = Feed::new(inputs, opened);
        std::iter::from_fn(|| feed.next())
            .map(|(_, result)| result)
            .collect()
    }

    /// As [`Pool::stream`](crate::Pool::stream).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let sum: i64 = pool.with().retries(1).stream(square, 1..).take(10).filter_map(Result::ok).sum();
    /// # Ok(()) }
    /// ```
    pub fn stream<T: Task, I: IntoIterator<Item = T::Input>>(
        self,
        _task: T,
        inputs: I,
    ) -> Stream<T, I::IntoIter> {
        let opened = self.start(Typed::<T>::new(), lazily);
        Stream(Feed::new(inputs.into_iter(), opened).results_first())
    }

    /// As [`Pool::stream_threaded`](crate::Pool::stream_threaded).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for result in pool.with().retries(1).stream_threaded(square, 1..=9) {
    ///     println!("{}", result?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream_threaded<T, I>(self, _task: T, inputs: I) -> ThreadedStream<T>
    where
        T: Task,
        I: IntoIterator<Item = T::Input> + Send + 'static,
    {
        ThreadedStream::new(inputs, self.start(Typed::<T>::new(), lazily))
    }

    /// As [`Pool::stream_unordered`](crate::Pool::stream_unordered).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// for (index, result) in pool.with().retries(1).stream_unordered(square, 1..=9) {
    ///     println!("{index}: {}", result?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream_unordered<T: Task, I: IntoIterator<Item = T::Input>>(
        self,
        _task: T,
        inputs: I,
    ) -> StreamUnordered<T, I::IntoIter> {
        let opened = self.start(Typed::<T>::new(), |spec| MapSpec {
            order: Order::Completion,
            ..lazily(spec)
        });
        StreamUnordered(Feed::new(inputs.into_iter(), opened).results_first())
    }

    /// As [`Pool::call`](crate::Pool::call).
    ///
    /// # Errors
    ///
    /// As [`Pool::call`](crate::Pool::call).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// assert_eq!(pool.with().retries(1).call(square, 7)?, 49);
    /// # Ok(()) }
    /// ```
    pub fn call<T: Task>(self, _task: T, input: T::Input) -> Result<T::Output, CallError> {
        let plan = self.plan::<T>();
        let call = plan.run(input, |job| self.single(job));
        Pending::new::<T>(call).wait()
    }

    /// As [`Pool::submit`](crate::Pool::submit).
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let pending = pool.with().retries(1).submit(square, 7);
    /// assert_eq!(pending.wait()?, 49);
    /// # Ok(()) }
    /// ```
    pub fn submit<T: Task>(self, _task: T, input: T::Input) -> Pending<T::Output> {
        let plan = self.plan::<T>();
        let call = plan.submit(input, |job| self.single(job));
        Pending::new::<T>(call)
    }

    /// Opens a map from both ends, for inputs that arrive over time: one thread sends inputs, and
    /// blocks while the window is full; another takes the reports.
    ///
    /// ```no_run
    /// # use coordinator::task;
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # let pool = coordinator::Pool::new(4)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// std::thread::spawn(move || {
    ///     let Some(inputs) = inputs else { return }; // the pool is closed; the reports say so
    ///     for line in std::io::stdin().lines().map_while(Result::ok) {
    ///         if inputs.send(line.trim().parse().unwrap_or(0)).is_err() {
    ///             break;
    ///         }
    ///     }
    /// });
    /// for report in reports {
    ///     println!("{}: {:?}", report.index, report.result);
    /// }
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn open<T: Task>(self, _task: T) -> (Option<Inputs<Typed<T>>>, Reports<Typed<T>>) {
        self.start(Typed::<T>::new(), |spec| self.in_both_directions(spec))
    }

    /// As [`open`](Self::open), for a task that this program knows only by name.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open_text("square");
    /// if let Some(inputs) = inputs {
    ///     inputs.send(b"7".to_vec())?;
    /// }
    /// for report in reports {
    ///     assert_eq!(report.result?, b"49");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn open_text(self, task: &str) -> (Option<Inputs<Text>>, Reports<Text>) {
        self.start(Text::of(task), |spec| self.in_both_directions(spec))
    }

    /// Looks whether a task that this program knows only by name could be run on some inputs, as
    /// [`open_text`](Self::open_text) takes them, and runs it on none of them: the workers decode them.
    ///
    /// # Errors
    ///
    /// The first by index that is [`Undecodable`](crate::Why::Undecodable), or about which nothing could be
    /// learnt.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// assert!(pool.with().check_text("square", [b"seven".to_vec()]).is_err());
    /// # Ok(()) }
    /// ```
    pub fn check_text(
        self,
        task: &str,
        inputs: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<(), CallError> {
        let opened = self.start(Text::check(task), |spec| MapSpec {
            failures: Failures::First,
            ..spec
        });
        collect(inputs, opened).map(drop)
    }

    /// The settings that are for maps whose reports are taken.
    fn in_both_directions(self, spec: MapSpec<Arc<Job>>) -> MapSpec<Arc<Job>> {
        MapSpec {
            order: match self.order {
                Order::Input if !self.every_attempt => Order::Input,
                Order::Input | Order::Completion => Order::Completion,
            },
            every_attempt: self.every_attempt,
            failures: self.failures,
            ..lazily(spec)
        }
    }

    fn start<C: Codec>(
        self,
        codec: C,
        kind: impl FnOnce(MapSpec<Arc<Job>>) -> MapSpec<Arc<Job>>,
    ) -> (Option<Inputs<C>>, Reports<C>) {
        let window = Window {
            calls: MAP,
            bytes: BYTES,
            // One for each worker, and one that waits.
            least: self.shared.config.slots + 1,
        };
        calls::open(self.shared, codec, |job| kind(self.spec(job, window)))
    }

    fn spec(&self, job: Arc<Job>, window: Window) -> MapSpec<Arc<Job>> {
        MapSpec {
            kind: Some(job.kind()),
            job,
            limits: self.limits,
            order: Order::Input,
            window,
            failures: Failures::Any,
            lazy: false,
            every_attempt: false,
            separate: false,
            at_most_once: self.at_most_once,
        }
    }

    /// Single calls of a task, with these settings.
    fn plan<T: Task>(&self) -> Plan<'p, Typed<T>> {
        Plan {
            shared: self.shared,
            codec: Typed::new(),
            kind: Kind {
                task: TypeId::of::<T>(),
                limits: self.limits,
                at_most_once: self.at_most_once,
            },
        }
    }

    /// The map that they share. Whoever makes them never waits for room.
    fn single(&self, job: Arc<Job>) -> MapSpec<Arc<Job>> {
        let window = Window {
            calls: usize::MAX,
            bytes: usize::MAX,
            least: 1,
        };
        MapSpec {
            separate: true,
            ..self.spec(job, window)
        }
    }
}

fn lazily(spec: MapSpec<Arc<Job>>) -> MapSpec<Arc<Job>> {
    let window = Window {
        calls: STREAM,
        ..spec.window
    };
    MapSpec {
        window,
        lazy: true,
        ..spec
    }
}

fn collect<C: Codec>(
    inputs: impl IntoIterator<Item = C::Input>,
    opened: (Option<Inputs<C>>, Reports<C>),
) -> Result<Vec<C::Output>, CallError> {
    let inputs = inputs.into_iter();
    let mut outputs = Vec::with_capacity(inputs.size_hint().0.min(1 << 16));
    let mut feed = Feed::new(inputs, opened);
    while let Some((_, result)) = feed.next() {
        outputs.push(result?);
        feed.take_values(&mut outputs);
    }
    Ok(outputs)
}
