//! Handles a run's signals. Its workers don't receive the terminal's signals, because each has a process group
//! of its own.
//!
//! `ctrlc` handles Ctrl-C, and `signal-hook` the other signals, which it can tell apart.

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
    /// The first interruption.
    cause: Option<Cause>,
    /// The pool, once there is one.
    pool: Weak<Pool>,
    /// How long calls have to end after SIGTERM.
    grace: Duration,
    /// Whether somebody has asked what is running.
    asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Ctrl-C.
    Interrupt,
    /// The run was told to end, or lost its terminal.
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

/// How long a run has to end by itself once its workers are gone.
const LEAVE: Duration = Duration::from_millis(500);
/// How long the end of a pool may take, beyond the grace of its calls.
const TO_END: Duration = Duration::from_secs(2);
/// How long a line may wait for stderr before the announced action happens anyway.
const TO_SAY: Duration = Duration::from_millis(100);
/// The exit code of a run that was interrupted by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// The exit code of a run that was told to end, or lost its terminal.
const TERMINATED: u8 = 143;

impl Interruption {
    /// Handles signals from now on: they end the run in steps, or pause it.
    pub(super) fn handle() -> Result<Self, Trouble> {
        let interruption = Self::default();
        // Signals that were ignored at the start (by nohup, or in a shell's background) stay ignored.
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

    /// Sets the pool of this run. If the run was interrupted before, the pool is ended at once.
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

    /// Whether somebody has asked what is running since the last call.
    pub(super) fn asked(&self) -> bool {
        std::mem::take(&mut self.state().asked)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an interruption. Returns the first one, if this is not the first, and the pool.
    fn note(&self, cause: Cause) -> (Option<Cause>, Option<Arc<Pool>>) {
        let mut state = self.state();
        let before = state.cause;
        state.cause.get_or_insert(cause);
        (before, state.pool.upgrade())
    }

    /// Handles Ctrl-C: the first lets running calls finish, the second stops them.
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
            // No call runs yet. Workers that have been started end with this process.
            (Some(cause), None) => std::process::exit(cause.code().into()),
        }
    }

    /// Ends the workers, and then this program, if the run does not end by itself: it may be blocked while it prints
    /// results that nobody reads.
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

    /// Handles Ctrl-Z: the workers stop, and then this program. When the program continues, so do the workers.
    fn suspend(&self) {
        let pool = self.state().pool.upgrade();
        if let Some(pool) = &pool {
            pool.pause();
        }
        // This returns when the shell continues the program, or at once if the program can't be stopped.
        let _ = low_level::emulate_default_handler(SIGTSTP);
        if let Some(pool) = &pool {
            pool.resume();
        }
    }
}

/// Writes a line to stderr, without waiting for a blocked stderr: the reaction to a signal must not depend on it.
fn tell(what: String) {
    aside(TO_SAY, move || complain(&what));
}

/// Runs a function on a thread of its own, and waits for it no longer than a limit.
fn aside(most: Duration, what: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let body = move || {
        what();
        // The receiver may have stopped waiting.
        let _ = done.send(());
    };
    // If no thread can be started, the function does not run: this process ends soon, and all that it has started with it.
    if thread::Builder::new().spawn(body).is_ok() {
        let _ = is_done.recv_timeout(most);
    }
}

/// The signals that this program ignores, one bit each: see proc_pid_status(5). `None` if the system does not
/// tell.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
