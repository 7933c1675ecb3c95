//! How far a run has come, on stderr, while it runs.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::args::{Options, When};

/// The bar that is shown, if there is one: whatever else is written to a terminal must go around it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A progress bar, or none.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(options: &Options, colour: bool) -> Self {
        let wanted = match options.progress {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
                io::stderr().is_terminal() && !ci && !options.quiet
            }
        };
        if !wanted {
            return Progress { bar: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(style("{elapsed_precise} {pos} done{msg} · {rate}", colour));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Progress { bar: Some(bar) }
    }

    pub(super) fn none() -> Self {
        Progress { bar: None }
    }

    /// Shows how many calls are done, how many of them failed, how many run, and how many there are, if
    /// that is known.
    pub(super) fn show(
        &self,
        done: u64,
        failed: u64,
        running: impl FnOnce() -> usize,
        all: Option<u64>,
        colour: bool,
    ) {
        let Some(bar) = &self.bar else { return };
        if let (Some(all), None) = (all, bar.length()) {
            bar.set_length(all);
            let wide = "{elapsed_precise} {wide_bar} {pos}/{len}{msg} · {rate} · {left} left";
            bar.set_style(style(wide, colour));
        }
        bar.set_position(done);
        let failed = match (failed, colour) {
            (0, _) => String::new(),
            (failed, true) => format!(" · \u{1b}[31m{failed} failed\u{1b}[0m"),
            (failed, false) => format!(" · {failed} failed"),
        };
        bar.set_message(format!("{failed} · {} running", running()));
    }

    /// Whether there is a bar.
    pub(super) fn is_shown() -> bool {
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        shown.is_some()
    }

    /// Writes something to the terminal without disturbing the bar.
    pub(super) fn aside<T>(write: impl FnOnce() -> T) -> T {
        let bar = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

fn style(template: &str, colour: bool) -> ProgressStyle {
    let template = match colour {
        true => template.replace("{wide_bar}", "{wide_bar:.green/dim}"),
        false => template.to_owned(),
    };
    // The templates are ours; one that is wrong shows in the first run.
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
            let _ = write!(to, "{:.1}/s", state.per_sec());
        })
        .with_key("left", |state: &ProgressState, to: &mut dyn fmt::Write| {
            // Of nothing one can't tell.
            let _ = match state.pos() {
                0 => write!(to, "?"),
                _ => write!(to, "{:#}", HumanDuration(state.eta())),
            };
        })
}
