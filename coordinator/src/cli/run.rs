//! A run: it reads inputs, makes calls of them, and prints, logs and sums up their outcomes.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coordinator::{CallError, Order, Output, Pool, Report, Reports, TaskInfo, Text, Why};
use serde_json::json;

use super::args::Options;
use super::feed::{self, Brake, Gathered, InputFeed};
use super::inputs::Source;
use super::log::{self, Log};
use super::machines;
use super::mistakes;
use super::outcome::{Outcome, shown};
use super::printer::Printer;
use super::progress::{self, Progress};
use super::resume::Succeeded;
use super::roll::Roll;
use super::signals::Interruption;
use super::status::Status;
use super::summary::Summary;
use super::suspects::{self, Suspects};
use super::work::{self, Work};
use super::{Exit, Trouble, complain, terminal};

/// The exit code of a run whose stdout was closed before the end: the same as if SIGPIPE had ended it. No message is
/// needed.
const NOBODY_READS: Exit = Exit::Interrupted(128 + 13);
/// The default grace of calls; see `Builder::grace`.
const GRACE: Duration = Duration::from_secs(1);
/// How often to look at the running calls.
const LOOK: Duration = Duration::from_millis(50);

/// How long a process may take for its first answer before a line says so.
const SILENCE: Duration = Duration::from_secs(5);

/// The most bytes of a worker's last words on stderr that are looked at.
const LAST_WORDS: u64 = 64 << 10;

/// The least space for temporary files, in bytes.
const LEAST_SPACE: u64 = 16 << 10;

/// The program that a run's workers execute.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Workers<'p> {
    pub(super) program: Option<&'p Path>,
    pub(super) manual: bool,
}

pub(super) fn run(
    work: &Work,
    options: &Options,
    workers: Workers<'_>,
    words: Option<Vec<OsString>>,
) -> Result<Exit, Trouble> {
    // The run's time includes the reading of a log.
    let began = Instant::now();
    let known = words
        .as_ref()
        .map(|words| words.len().div_ceil(work.many()) as u64);
    let inputs = Source::new(options, words)?;
    let (mut log, mut succeeded) = open_log(work, options)?;
    let left = succeeded.left.take();
    let gathered = Gathered {
        inputs,
        succeeded,
        work: work.clone(),
        held: None,
        read: 0,
        calls: 0,
    };
    if options.dry_run {
        check_in_worker(work, options, workers, &gathered.inputs)?;
        return dry_run(work, options, gathered);
    }
    let interruption = Interruption::handle()?;
    let jobs = jobs(options, known.filter(|_| !workers.manual))?;
    let grace = options.limits.grace.unwrap_or(GRACE);
    let Some(roll) = Roll::begin(options, grace, left, log.as_mut(), &interruption)? else {
        return Ok(Exit::Interrupted(interruption.code().unwrap_or(1)));
    };
    let pool = Arc::new(pool(work, options, workers, jobs, roll.run())?);
    interruption.attach(&pool, grace);
    let colour = terminal::has_colour(options.color);
    let mut run = Run {
        work,
        options,
        pool: &pool,
        interruption: &interruption,
        feed: Arc::new(InputFeed::default()),
        printer: Printer::new(work, options),
        log,
        progress: Progress::new(options, colour),
        summary: Summary::new(work.many(), colour, began),
        suspects: Suspects::default(),
        roll,
        known,
        jobs,
        may_be_silent: matches!(work, Work::Pipe { .. }) && !options.quiet,
    };
    let ran = run.drive(gathered);
    run.feed.stop();
    // A signal handler may still hold the pool, and then dropping it here would not end it.
    pool.terminate();
    if let Some(log) = &mut run.log {
        run.roll.end(log, &pool)?;
    }
    ran
}

/// Opens the log for writing, and reads which inputs have succeeded. A dry run only reads.
fn open_log(work: &Work, options: &Options) -> Result<(Option<Log>, Succeeded), Trouble> {
    let key = work.key();
    Ok(match &options.log {
        Some(path) if !options.dry_run => {
            let (log, succeeded) = Log::open(path, &key, options.resume)?;
            (Some(log), succeeded)
        }
        Some(path) if options.resume => (None, log::read(path, &key)?),
        _ => (None, Succeeded::default()),
    })
}

/// Checks the task of a dry run and its inputs. It starts a worker for that, because only a worker knows the tasks and
/// their input types.
fn check_in_worker(
    work: &Work,
    options: &Options,
    workers: Workers<'_>,
    inputs: &Source,
) -> Result<(), Trouble> {
    let Work::Map { task } = work else {
        return Ok(());
    };
    let pool = pool(work, options, workers, 1, None)?;
    check_task(task, &pool.tasks()?)?;
    check_inputs(&pool, task, inputs)
}

/// Whether the workers have such a task.
fn check_task(task: &str, tasks: &[TaskInfo]) -> Result<(), Trouble> {
    // A task may also be named with its crate. The worker knows whether it is that one.
    let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    let is_end_of = |end: &str, name: &str| {
        name.strip_suffix(end)
            .is_some_and(|krate| krate.ends_with("::"))
    };
    if names
        .iter()
        .any(|known| *known == task || is_end_of(known, task))
    {
        return Ok(());
    }
    let several: Vec<_> = names
        .iter()
        .copied()
        .filter(|known| is_end_of(task, known))
        .collect();
    if !several.is_empty() {
        return Err(Trouble::Usage(format!(
            "there are several tasks named `{task}`: name one, {}",
            several.join(" or ")
        )));
    }
    Err(Trouble::Usage(match mistakes::meant(task, &names) {
        Some(meant) => format!("there is no task `{task}`: did you mean `{meant}`?"),
        None => format!("there is no task `{task}`; there is {}", names.join(", ")),
    }))
}

/// Checks the known inputs before anything runs.
fn check_inputs(pool: &Pool, task: &str, inputs: &Source) -> Result<(), Trouble> {
    let known: Vec<_> = inputs.known().collect();
    let shown = |error: &CallError| {
        let index = usize::try_from(error.index()).unwrap_or(usize::MAX);
        shown(known.get(index).map_or(&[], Vec::as_slice))
    };
    match pool.with().check_text(task, known.iter().cloned()) {
        Err(error) if matches!(error.why(), Why::Undecodable(_)) => Err(Trouble::Usage(format!(
            "input {}: {}; nothing was run: correct it, or leave it out",
            shown(&error),
            error.why()
        ))),
        // Other errors will show when the inputs are run.
        _ => Ok(()),
    }
}

/// Prints the calls that a run would make.
fn dry_run(work: &Work, options: &Options, mut gathered: Gathered) -> Result<Exit, Trouble> {
    let mut printer = Printer::new(work, options);
    let mut printed = || -> io::Result<()> {
        while let Some(call) = gathered.next(&AtomicU64::new(0)) {
            printer.line(&work.shown(call.inputs(), call.item.seq))?;
        }
        printer.flush()
    };
    let seen = seen_enough(printed())?;
    Ok(match gathered.inputs.is_broken() {
        true => Exit::SomeFailed,
        false if seen => Exit::AllOk,
        false => NOBODY_READS,
    })
}

fn pool(
    work: &Work,
    options: &Options,
    workers: Workers<'_>,
    jobs: usize,
    run: Option<&str>,
) -> Result<Pool, Trouble> {
    let builder = work.builder(workers.program)?.output(Output::Capture);
    let builder = options.limits.apply(builder).workers(jobs);
    let builder = match options.dry_run {
        true => builder,
        false => {
            let grace = options.limits.grace.unwrap_or(GRACE);
            machines::apply(&options.machines, builder, work, grace, run)?
        }
    };
    let builder = match workers.manual {
        true => work::by_hand(builder),
        false => builder,
    };
    // An interruption must not wait for a worker.
    Ok(builder.build_now()?)
}

/// The number of workers to start: no more than there are calls, if that is known.
fn jobs(options: &Options, calls: Option<u64>) -> Result<usize, Trouble> {
    let processors = coordinator::available_workers();
    let jobs = options.jobs.map_or(processors, |jobs| jobs.of(processors));
    if jobs == 0 && !options.machines.are_wanted() {
        return Err(Trouble::Usage(
            "with --jobs 0 this machine runs nothing: name others with --on or --nats, or use 1 or more"
                .to_owned(),
        ));
    }
    let calls = calls.and_then(|calls| usize::try_from(calls).ok());
    Ok(calls.map_or(jobs, |calls| jobs.min(calls.max(1))))
}

/// Returns `false` if the reader of stdout has closed it, which is no error.
fn seen_enough(printed: io::Result<()>) -> Result<bool, Trouble> {
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Trouble::Pool(format!(
            "the results can't be written to stdout: {error}; those that were not are lost, and what --log says is done \
             is not done again by --resume"
        ))),
    }
}

/// Checks the space for temporary files, where the output of calls is kept first. A program that could not write all
/// its output may not report that. So a full disk is an error of the run, before incomplete output passes for complete.
fn check_disk() -> Result<(), Trouble> {
    let directory = std::env::temp_dir();
    let full = rustix::fs::statvfs(&directory)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_SPACE);
    match full {
        true => Err(Trouble::Pool(format!(
            "there is no space left in {}, where the output of calls is kept: some of it is lost, and nothing \
             more is run; set TMPDIR to a place with more space",
            directory.display()
        ))),
        false => Ok(()),
    }
}

struct Run<'r> {
    work: &'r Work,
    options: &'r Options,
    pool: &'r Arc<Pool>,
    interruption: &'r Interruption,
    feed: Arc<InputFeed>,
    /// This field stands before the printer, so that the bar is gone when the printer prints what it has held back.
    progress: Progress,
    printer: Printer,
    log: Option<Log>,
    summary: Summary,
    suspects: Suspects,
    roll: Roll,
    /// The number of inputs, if it is known from the start.
    known: Option<u64>,
    jobs: usize,
    /// Whether the line about a process without any answer is still to come.
    may_be_silent: bool,
}

impl Run<'_> {
    fn drive(&mut self, gathered: Gathered) -> Result<Exit, Trouble> {
        if let Work::Map { task } = self.work {
            let tasks = match (self.pool.tasks(), self.interruption.code()) {
                (Err(_), Some(code)) => return Ok(Exit::Interrupted(code)),
                (tasks, _) => tasks?,
            };
            check_task(task, &tasks)?;
            // With `--json` each input gets an object with its outcome, also an input that never ran.
            if !self.options.json {
                check_inputs(self.pool, task, &gathered.inputs)?;
            }
        }
        let mut with = self.pool.with().order(Order::Completion);
        if self.options.machines.at_most_once {
            with = with.at_most_once();
        }
        // Only the log and the summary care about an attempt that is tried again.
        if self.options.limits.retries.unwrap_or(0) > 0 {
            with = with.every_attempt();
        }
        if let Some(most) = self.options.max_fail {
            with = with.max_failures(most.failures, most.now);
        }
        let (sender, mut reports) = with.open_text(self.work.task());
        if let Some(sender) = sender {
            let brake = Brake::new(self.options, self.jobs);
            feed::start(
                &self.feed,
                self.pool,
                gathered,
                self.work.clone(),
                sender,
                brake,
            )
            .map_err(|error| Trouble::Pool(format!("a thread could not be started: {error}")))?;
        }
        if !self.take_all(&mut reports)? {
            return Ok(NOBODY_READS);
        }
        if self.interruption.code().is_none() {
            self.pool.close();
            self.pool.join()?;
        }
        if !seen_enough(self.take_strays())? {
            return Ok(NOBODY_READS);
        }
        self.tell_news();
        self.finish()
    }

    /// Prints what workers have written outside of calls.
    fn take_strays(&mut self) -> io::Result<()> {
        for stray in self.pool.take_strays() {
            let mut said = Vec::new();
            let skipped = stray.stderr.len().saturating_sub(LAST_WORDS);
            stray.stderr.copy_from(skipped, &mut said)?;
            let said = String::from_utf8_lossy(&said);
            let suspect = self.suspects.note_end(stray.worker, &said);
            self.suspect(&suspect)?;
            self.printer.stray(&stray)?;
        }
        Ok(())
    }

    /// Reports answers that may belong to other inputs.
    fn suspect(&mut self, ranges: &[suspects::Range]) -> io::Result<()> {
        if ranges.is_empty() {
            return Ok(());
        }
        self.summary.suspect(ranges);
        if let Some(log) = &mut self.log {
            log.suspect(ranges)?;
        }
        if self.options.json {
            let object = json!({"v": 1, "suspects": ranges});
            self.printer.line(&object.to_string())?;
        }
        Ok(())
    }

    /// Takes reports until the end. Returns `false` if nobody reads the results any more.
    fn take_all(&mut self, reports: &mut Reports<Text>) -> Result<bool, Trouble> {
        loop {
            if !reports.is_ready() && !seen_enough(self.printer.flush())? {
                return Ok(false);
            }
            match reports.next_timeout(LOOK) {
                Ok(Some(report)) => {
                    if !self.take(report)? {
                        return Ok(false);
                    }
                }
                Ok(None) => return seen_enough(self.printer.flush()),
                Err(_) => {
                    if !self.look()? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Takes a report. Returns `false` if nobody reads the results any more.
    fn take(&mut self, report: Report<Vec<u8>>) -> Result<bool, Trouble> {
        let index = report.index;
        let item = match report.again {
            true => self.feed.item(index),
            false => self.feed.take(index),
        };
        let outcome = Outcome::new(self.work, item.seq, item.input, report);
        // A call that never began, or only waited for a retry, has no outcome and is left to do. A call that
        // was cut off has an outcome: it may have done half of its work.
        let began = outcome.slot.is_some() || outcome.status != Status::Cancelled;
        if !(outcome.stdout.is_empty() && outcome.stderr.is_empty()) {
            check_disk()?;
        }
        if began {
            if let Some(log) = &mut self.log {
                log.write(&outcome)?;
            }
            self.summary.count(&outcome);
            if self.work.may_shift() {
                let suspect = self.suspects.note(&outcome);
                if !seen_enough(self.suspect(&suspect))? {
                    return Ok(false);
                }
            }
        } else {
            self.summary.not_run += 1;
        }
        self.show();
        if outcome.again {
            return Ok(true);
        }
        let printed = self.printer.take(index, began.then_some(outcome));
        self.feed.printed(self.printer.printed());
        seen_enough(printed)
    }

    /// Looks at the running calls from time to time. Returns `false` if nobody reads their output any more.
    fn look(&mut self) -> Result<bool, Trouble> {
        self.show();
        self.may_be_silent &= self.summary.done() == 0;
        if self.may_be_silent {
            self.note_silence();
        }
        if self.interruption.asked() {
            self.list();
        }
        self.tell_news();
        if let Some(log) = &mut self.log {
            self.roll.look(log, self.pool)?;
        }
        if !seen_enough(self.take_strays())? {
            return Ok(false);
        }
        if self.printer.streams() {
            let running = self.pool.running();
            return seen_enough(self.printer.stream(&running, &self.feed));
        }
        Ok(true)
    }

    /// Says which machines have come and gone.
    fn tell_news(&self) {
        for line in machines::news(self.pool) {
            if !self.options.quiet {
                complain(&line);
            }
        }
    }

    /// Once, if no process has answered for a while, says what usually keeps a process from answering.
    fn note_silence(&mut self) {
        let running = self.pool.running();
        let Some(call) = running.iter().find(|call| call.elapsed >= SILENCE) else {
            return;
        };
        self.may_be_silent = false;
        let input = shown(&self.feed.item(call.index).input);
        complain(&format!(
            "no answer yet: process {} was sent {input} {} s ago, and each input is to be answered by one line at once; \
             many programs keep what they write: flush after each line, or try `stdbuf -oL`, `python3 -u`, `sed -u`, \
             `grep --line-buffered`; one that reads to the end before it answers, as sort and wc do, can't be used so",
            call.slot,
            call.elapsed.as_secs()
        ));
    }

    fn show(&self) {
        self.progress.show(|| {
            let calls = self.feed.calls.load(Ordering::Relaxed);
            let all = match self.feed.ended.load(Ordering::Relaxed) {
                true => Some(calls),
                false => {
                    let skipped = self.feed.skipped.load(Ordering::Relaxed);
                    let calls = skipped / self.work.many() as u64;
                    self.known.map(|known| known.saturating_sub(calls))
                }
            };
            progress::Standing {
                done: self.summary.done(),
                failed: self.summary.failed,
                running: self.pool.stats().running,
                all,
            }
        });
    }

    /// Writes a line for each running call.
    fn list(&self) {
        let running = self.pool.running();
        if running.is_empty() {
            // Other machines name a call that has run for a tenth of a second.
            complain(&match self.pool.stats().running {
                0 => "nothing is running".to_owned(),
                calls => format!("{calls} running on other machines, which have only just begun"),
            });
        }
        for call in running {
            let input = shown(&self.feed.item(call.index).input);
            let machine = call.machine.as_deref();
            let on = machine.map_or(String::new(), |machine| format!(" on {machine}"));
            complain(&format!(
                "worker {}{on} (process {}): {input}, attempt {}, for {:.1?}",
                call.slot, call.worker, call.attempt, call.elapsed
            ));
        }
    }

    /// Ends the run with its summary.
    fn finish(&mut self) -> Result<Exit, Trouble> {
        let Run { summary, feed, .. } = self;
        summary.skipped = feed.skipped.load(Ordering::Relaxed);
        let interrupted = self.interruption.code();
        let all_read = feed.ended.load(Ordering::Acquire);
        let broken = feed.broken.load(Ordering::Relaxed);
        if self.options.json {
            let object = summary.json(interrupted.is_some() || broken).to_string();
            let printed = self
                .printer
                .line(&object)
                .and_then(|()| self.printer.flush());
            seen_enough(printed)?;
        }
        // No other text must stand between these lines.
        self.progress = Progress::Nothing;
        seen_enough(self.printer.end())?;
        self.summary
            .say(self.options, interrupted.is_some() || !all_read || broken);
        Ok(match interrupted {
            Some(code) => Exit::Interrupted(code),
            None if !self.summary.is_well() || broken => Exit::SomeFailed,
            None => Exit::AllOk,
        })
    }
}
