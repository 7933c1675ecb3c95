//! Shows the progress of a run on stderr: a bar on a terminal, or else a line now and then.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::args::{Options, When};
use super::{complain, terminal};

/// The bar on the terminal, if there is one. All other text for the terminal must be written around it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// How often the bar is drawn at most, per second.
const HZ: u8 = 10;
/// The least width of a bar that is of use, in columns.
const LEAST_BAR: usize = 8;
/// When the first line comes where there is no bar. Each further line comes after twice as long, at most [`RAREST`].
const FIRST_LINE: Duration = Duration::from_secs(1);
const RAREST: Duration = Duration::from_secs(60);

/// How a run's progress is shown.
#[derive(Debug)]
pub(super) enum Progress {
    Nothing,
    Bar(Bar),
    PlainLines(PlainLines),
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) running: usize,
    /// How many calls the run has, if that is known.
    pub(super) all: Option<u64>,
}

impl Progress {
    pub(super) fn new(options: &Options, colour: bool) -> Self {
        let has_bar = terminal::understands_escapes();
        match options.progress {
            When::Always if has_bar => Progress::Bar(Bar::new(colour)),
            When::Always => Progress::PlainLines(PlainLines::new()),
            When::Never => Progress::Nothing,
            When::Auto => {
                let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
                let wanted = has_bar && !ci && !options.quiet && !terminal::stdout_is_pipe();
                match wanted {
                    true => Progress::Bar(Bar::new(colour)),
                    false => Progress::Nothing,
                }
            }
        }
    }

    /// Shows how far the run has come.
    pub(super) fn show(&self, state: impl FnOnce() -> Standing) {
        match self {
            Progress::Nothing => {}
            Progress::Bar(bar) => bar.show(state),
            Progress::PlainLines(lines) => lines.show(state),
        }
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

/// A line at the bottom of the terminal that is drawn again and again.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    colour: bool,
    /// Whether drawing is suspended, because others write to the terminal.
    hidden: Cell<bool>,
    template: Cell<&'static str>,
    /// When it was last updated.
    shown: Cell<Option<Instant>>,
    /// What the line says: it is put into words when the bar is drawn, so both are of the same moment.
    standing: Arc<Mutex<Standing>>,
}

impl Bar {
    fn new(colour: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Bar {
            bar,
            colour,
            hidden: Cell::new(true),
            template: Cell::new(""),
            shown: Cell::new(None),
            standing: Arc::default(),
        }
    }

    fn show(&self, state: impl FnOnce() -> Standing) {
        let is_recent = |shown: Instant| shown.elapsed() < Duration::from_secs(1) / u32::from(HZ);
        if self.shown.get().is_some_and(is_recent) {
            return;
        }
        self.shown.set(Some(Instant::now()));
        let state = state();
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.lay_out(&state);
        let hidden = !terminal::is_in_foreground();
        if self.hidden.replace(hidden) != hidden {
            self.bar.set_draw_target(match hidden {
                true => ProgressDrawTarget::hidden(),
                false => ProgressDrawTarget::stderr_with_hz(HZ),
            });
        }
        // This draws once. A call for each of these would draw after each.
        self.bar.update(|bar| {
            bar.set_pos(state.done);
            if let Some(all) = state.all {
                bar.set_len(all);
            }
        });
    }

    /// Chooses what the line consists of.
    fn lay_out(&self, state: &Standing) {
        let text = state.text(self.bar.per_sec(), self.bar.eta());
        // The elapsed time, and a space on both sides of the bar.
        let around = "00:00:00".len() + 2;
        let left = terminal::columns().saturating_sub(around + text.chars().count());
        let template = match (state.all, self.colour) {
            (Some(_), true) if left > LEAST_BAR => "{elapsed_precise} {wide_bar:.green/dim} {text}",
            (Some(_), false) if left > LEAST_BAR => "{elapsed_precise} {wide_bar} {text}",
            _ => "{text}",
        };
        if self.template.replace(template) == template {
            return;
        }
        let (standing, colour) = (Arc::clone(&self.standing), self.colour);
        let text = move |bar: &ProgressState, line: &mut dyn fmt::Write| {
            let standing = *standing.lock().unwrap_or_else(PoisonError::into_inner);
            let text = standing.text(bar.per_sec(), bar.eta());
            // A line that the terminal breaks could not be drawn over.
            let text = text.chars().take(terminal::columns()).collect();
            // The bar's own buffer takes anything.
            let _ = line.write_str(&standing.coloured(text, colour));
        };
        // The templates are constants of this file, so a wrong one shows in the first run.
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.with_key("text", text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A line now and then, for a file or a simple terminal.
#[derive(Debug)]
pub(super) struct PlainLines {
    began: Instant,
    next: Cell<Duration>,
}

impl PlainLines {
    fn new() -> Self {
        PlainLines {
            began: Instant::now(),
            next: Cell::new(FIRST_LINE),
        }
    }

    fn show(&self, state: impl FnOnce() -> Standing) {
        let elapsed = self.began.elapsed();
        if elapsed < self.next.get() {
            return;
        }
        self.next.set(elapsed + elapsed.min(RAREST));
        let state = state();
        let rate = state.done as f64 / elapsed.as_secs_f64();
        let left = state.all.map_or(0, |all| all.saturating_sub(state.done));
        let eta = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or_default();
        complain(&state.text(rate, eta));
    }
}

impl Standing {
    /// The line with the number of failures in red, if there are any.
    fn coloured(&self, text: String, colour: bool) -> String {
        let failed = format!("{} failed", self.failed);
        match colour && self.failed > 0 {
            true => text.replace(&failed, &format!("\u{1b}[31m{failed}\u{1b}[0m")),
            false => text,
        }
    }

    /// The progress in one line.
    fn text(&self, rate: f64, eta: Duration) -> String {
        let Standing {
            done,
            failed,
            running,
            all,
        } = self;
        let done = match all {
            Some(all) => format!("{done}/{all}"),
            None => format!("{done} done"),
        };
        let failed = match failed {
            0 => String::new(),
            failed => format!(" · {failed} failed"),
        };
        let left = match all {
            None => String::new(),
            // Without any finished call there is no estimate.
            Some(_) if self.done == 0 => " · ? left".to_owned(),
            Some(_) => format!(" · {:#} left", HumanDuration(eta)),
        };
        format!("{done}{failed} · {running} running · {rate:.1}/s{left}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let mut state = Standing {
            done: 0,
            failed: 0,
            running: 2,
            all: None,
        };
        let second = Duration::from_secs(1);
        assert_eq!(state.text(0.0, second), "0 done · 2 running · 0.0/s");
        state.all = Some(9);
        assert_eq!(state.text(0.0, second), "0/9 · 2 running · 0.0/s · ? left");
        (state.done, state.failed) = (8, 1);
        assert_eq!(
            state.text(7.96, second),
            "8/9 · 1 failed · 2 running · 8.0/s · 1s left"
        );
    }
}
