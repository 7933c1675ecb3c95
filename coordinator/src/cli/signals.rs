//! What a run does about signals. Its workers don't see those of the terminal: each has a process group
//! of its own.
//!
//! Ctrl-C comes by way of `ctrlc`, the others by way of `signal-hook`, which can tell them apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::Duration;

use coordinator::Pool;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::{Trouble, complain};

/// How far a run has been interrupted.
#[derive(Debug, Clone, Default)]
pub(super) struct Interruption(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What interrupted it first.
    cause: Option<Cause>,
    /// The pool, once there is one.
    pool: Weak<Pool>,
    /// How long its calls have to end.
    grace: Duration,
    /// Somebody asked what is running.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Ctrl-C.
    Interrupt,
    /// It was told to end, or lost its terminal.
    Terminate,
}

impl Cause {
    fn code(self) -> u8 {
        match self {
            Cause::Interrupt => INTERRUPTED,
            Cause::Terminate => TERMINATED,
        }
    }
}

/// How long a run whose workers are gone has to end by itself.
const LEAVE: Duration = Duration::from_millis(500);
/// How long it may take to end a pool, beyond the grace of its calls.
const TO_END: Duration = Duration::from_secs(2);
/// How long a line waits for stderr before what it speaks of is done.
const TO_SAY: Duration = Duration::from_millis(100);
/// Exit code of a run that was interrupted by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Exit code of a run that was told to end, or lost its terminal.
const TERMINATED: u8 = 143;

impl Interruption {
    /// Handles signals from now on: they end the run, in steps, or stop it for a while.
    pub(super) fn handle() -> Result<Self, Trouble> {
        let interruption = Self::default();
        // What this program was started with as ignored (nohup, a shell's background) stays so.
        let ignored = ignored_signals();
        let heeded = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
        let refused = |error: &dyn std::fmt::Display| {
            Trouble::Pool(format!("signals can't be handled: {error}"))
        };
        if heeded(&SIGINT) {
            let interruption = interruption.clone();
            ctrlc::set_handler(move || interruption.interrupt())
                .map_err(|error| refused(&error))?;
        }
        let others = [SIGTERM, SIGHUP, SIGTSTP, SIGUSR1];
        let heeded: Vec<i32> = others.into_iter().filter(heeded).collect();
        let mut signals = Signals::new(heeded).map_err(|error| refused(&error))?;
        let noted = interruption.clone();
        let body = move || {
            for signal in &mut signals {
                match signal {
                    SIGTSTP => noted.suspend(),
                    SIGUSR1 => noted.state().asked = true,
                    _ => noted.terminate(),
                }
            }
        };
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(body)
            .map_err(|error| refused(&error))?;
        Ok(interruption)
    }

    /// This is the pool whose run is interrupted; perhaps it has been already.
    pub(super) fn attach(&self, pool: &Arc<Pool>, grace: Duration) {
        let mut state = self.state();
        state.grace = grace;
        state.pool = Arc::downgrade(pool);
        let cause = state.cause;
        drop(state);
        match cause {
            None => {}
            Some(Cause::Interrupt) => pool.stop(),
            Some(Cause::Terminate) => pool.terminate(),
        }
    }

    /// The exit code of an interrupted run; `None` if it was not.
    pub(super) fn code(&self) -> Option<u8> {
        self.state().cause.map(Cause::code)
    }

    /// Whether somebody asked what is running since the last time.
    pub(super) fn asked(&self) -> bool {
        std::mem::take(&mut self.state().asked)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an interruption; returns what was the first, if this is not, and the pool.
    fn note(&self, cause: Cause) -> (Option<Cause>, Option<Arc<Pool>>) {
        let mut state = self.state();
        let before = state.cause;
        state.cause.get_or_insert(cause);
        (before, state.pool.upgrade())
    }

    /// Ctrl-C: once, what runs is finished; twice, it is stopped.
    fn interrupt(&self) {
        match self.note(Cause::Interrupt) {
            (None, Some(pool)) => {
                pool.stop();
                tell(match pool.stats().running {
                    0 => "interrupted: nothing more is started".to_owned(),
                    running => format!(
                        "interrupted: finishing {running} running, starting nothing more; Ctrl-C \
                         again stops them"
                    ),
                });
            }
            (Some(_), Some(pool)) => {
                tell("interrupted again: the workers are being stopped".to_owned());
                self.end(pool);
            }
            (None, None) => tell("interrupted".to_owned()),
            // Nothing runs yet. What has been started ends with this process.
            (Some(cause), None) => std::process::exit(cause.code().into()),
        }
    }

    /// Ends the workers, and then this program, if it does not do so by itself: it may be about to print
    /// results that nobody reads, and so may whatever it takes to end the pool.
    fn end(&self, pool: Arc<Pool>) {
        let most = self.state().grace.saturating_add(TO_END);
        aside(most, move || pool.terminate());
        thread::sleep(LEAVE);
        std::process::exit(self.code().unwrap_or(TERMINATED).into());
    }

    fn terminate(&self) {
        match self.note(Cause::Terminate) {
            (_, Some(pool)) => {
                tell("told to end: the workers are being stopped".to_owned());
                self.end(pool);
            }
            (None, None) => tell("told to end".to_owned()),
            (Some(cause), None) => std::process::exit(cause.code().into()),
        }
    }

    /// Ctrl-Z: the workers stop, this program stops, and when it goes on, so do they.
    fn suspend(&self) {
        let pool = self.state().pool.upgrade();
        if let Some(pool) = &pool {
            pool.pause();
        }
        // Returns when the shell continues this program; if that can't be, there is no pause.
        let _ = low_level::emulate_default_handler(SIGTSTP);
        if let Some(pool) = &pool {
            pool.resume();
        }
    }
}

/// Says something on stderr. Nobody waits for stderr to take it: what is to be done about a signal is done.
fn tell(what: String) {
    aside(TO_SAY, move || complain(&what));
}

/// Does something on a thread of its own, and waits for it for so long at most.
fn aside(most: Duration, what: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let body = move || {
        what();
        // Nobody may wait for it any more.
        let _ = done.send(());
    };
    // Without a thread it is not done: this process ends soon, and with it all that it has started.
    if thread::Builder::new().spawn(body).is_ok() {
        let _ = is_done.recv_timeout(most);
    }
}

/// The signals that this program ignores, a bit each: see proc_pid_status(5). None, where that is not to
/// be found out.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
