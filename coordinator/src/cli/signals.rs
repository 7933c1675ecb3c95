//! What a run does about signals. Its workers don't see those of the terminal: each has a process group
//! of its own.
//!
//! Ctrl-C comes by way of `ctrlc`, the others by way of `signal-hook`, which can tell them apart.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use coordinator::Pool;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::{Trouble, complain};

/// How far a run has been interrupted.
#[derive(Debug, Clone, Default)]
pub(super) struct Interruption(Arc<AtomicU8>);

impl Interruption {
    /// The exit code of an interrupted run; `None` if it was not.
    pub(super) fn code(&self) -> Option<u8> {
        Some(self.0.load(Ordering::SeqCst)).filter(|code| *code != 0)
    }

    /// Notes an interruption; whether it is the first.
    fn note(&self, code: u8) -> bool {
        self.0
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Exit code of a run that was interrupted by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Exit code of a run that was told to end, or lost its terminal.
const TERMINATED: u8 = 143;

/// Makes signals end the pool, in steps, or stop it for a while.
pub(super) fn handle(pool: &Arc<Pool>) -> Result<Interruption, Trouble> {
    let interruption = Interruption::default();
    // What this program was started with as ignored (nohup, a shell's background) stays so.
    let ignored = ignored_signals();
    let heeded = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
    let refused =
        |error: &dyn std::fmt::Display| Trouble::Pool(format!("signals can't be handled: {error}"));
    if heeded(&SIGINT) {
        let (pool, interruption) = (Arc::downgrade(pool), interruption.clone());
        ctrlc::set_handler(move || interrupt(&pool, &interruption))
            .map_err(|error| refused(&error))?;
    }
    let others: Vec<i32> = [SIGTERM, SIGHUP, SIGTSTP]
        .into_iter()
        .filter(heeded)
        .collect();
    let mut signals = Signals::new(others).map_err(|error| refused(&error))?;
    let (pool, noted) = (Arc::downgrade(pool), interruption.clone());
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in &mut signals {
                match signal {
                    SIGTSTP => suspend(&pool),
                    _ => terminate(&pool, &noted),
                }
            }
        })
        .map_err(|error| refused(&error))?;
    Ok(interruption)
}

/// Ctrl-C: once, what runs is finished; twice, it is stopped.
fn interrupt(pool: &Weak<Pool>, interruption: &Interruption) {
    let Some(pool) = pool.upgrade() else { return };
    if interruption.note(INTERRUPTED) {
        pool.stop();
        let running = pool.stats().running;
        complain(&match running {
            0 => "interrupted: nothing more is started".to_owned(),
            _ => format!(
                "interrupted: finishing {running} running, starting nothing more; Ctrl-C again stops them"
            ),
        });
    } else {
        complain(&"interrupted again: the workers are being stopped");
        pool.terminate();
    }
}

fn terminate(pool: &Weak<Pool>, interruption: &Interruption) {
    let Some(pool) = pool.upgrade() else { return };
    if interruption.note(TERMINATED) {
        complain(&"told to end: the workers are being stopped");
    }
    pool.terminate();
}

/// Ctrl-Z: the workers stop, this program stops, and when it goes on, so do they.
fn suspend(pool: &Weak<Pool>) {
    let Some(pool) = pool.upgrade() else { return };
    pool.pause();
    // Returns when the shell continues this program; if that can't be, there is no pause.
    let _ = low_level::emulate_default_handler(SIGTSTP);
    pool.resume();
}

/// The signals that this program ignores, a bit each: see proc_pid_status(5). None, where that is not to
/// be found out.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
