//! What a run does about signals. Its workers don't see those of the terminal: each has a process group
//! of its own.
//!
//! Ctrl-C comes by way of `ctrlc`, the others by way of `signal-hook`, which can tell them apart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

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
const LEAVE: std::time::Duration = std::time::Duration::from_millis(500);
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
    pub(super) fn attach(&self, pool: &Arc<Pool>) {
        let mut state = self.state();
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
                complain(&match pool.stats().running {
                    0 => "interrupted: nothing more is started".to_owned(),
                    running => format!(
                        "interrupted: finishing {running} running, starting nothing more; Ctrl-C \
                         again stops them"
                    ),
                });
            }
            (Some(_), Some(pool)) => {
                complain(&"interrupted again: the workers are being stopped");
                self.end(&pool);
            }
            (None, None) => complain(&"interrupted"),
            // Nothing runs yet. What has been started ends with this process.
            (Some(cause), None) => std::process::exit(cause.code().into()),
        }
    }

    /// Ends the workers, and then this program, if it does not do so by itself: it may be about to print
    /// results that nobody reads.
    fn end(&self, pool: &Pool) {
        pool.terminate();
        thread::sleep(LEAVE);
        std::process::exit(self.code().unwrap_or(TERMINATED).into());
    }

    fn terminate(&self) {
        match self.note(Cause::Terminate) {
            (_, Some(pool)) => {
                complain(&"told to end: the workers are being stopped");
                self.end(&pool);
            }
            (None, None) => complain(&"told to end"),
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

/// The signals that this program ignores, a bit each: see proc_pid_status(5). None, where that is not to
/// be found out.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
