//! The feeding thread: it reads inputs, makes calls of them, and waits where it must not go ahead.

use std::collections::VecDeque;
use std::path::Path;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::{Files, Inputs as Sender, Pool, Text};

use super::args::Options;
use super::inputs::Source;
use super::machines;
use super::resume::Succeeded;
use super::work::Work;

/// How far reading may be ahead of printing, in calls. A call that has ended has to wait for the calls before it.
const AHEAD: u64 = 1 << 16;
/// The most calls that are submitted together, if their inputs are at hand.
const TOGETHER: usize = 64;
/// How often to check whether a call that is held back may start.
const LOOK: Duration = Duration::from_millis(10);

/// A call that was made of some inputs.
#[derive(Debug, Clone, Default)]
pub(super) struct Item {
    /// The number of its input, from 1; of a call with several, its own.
    pub(super) seq: u64,
    /// Its input. Several inputs stand with NUL between them.
    pub(super) input: Vec<u8>,
}

/// The state that the feeding thread and the run share.
#[derive(Debug, Default)]
pub(super) struct InputFeed {
    state: Mutex<State>,
    printed: Condvar,
    /// How many calls there are so far.
    pub(super) calls: AtomicU64,
    /// How many inputs need not be run.
    pub(super) skipped: AtomicU64,
    /// Whether reading has ended, at the end of the inputs or with an error.
    pub(super) ended: AtomicBool,
    /// Whether some input could not be read.
    pub(super) broken: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The calls from the first unfinished one on. A finished call leaves an empty place.
    items: VecDeque<Option<Item>>,
    /// The index of the first of these calls.
    first: u64,
    /// How many calls have been printed.
    printed: u64,
    /// Whether the run wants no more calls.
    stopped: bool,
}

impl InputFeed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call with this index.
    pub(super) fn item(&self, index: u64) -> Item {
        let mut state = self.state();
        state.place(index).cloned().flatten().unwrap_or_default()
    }

    /// Removes and returns the call with this index, which has ended.
    pub(super) fn take(&self, index: u64) -> Item {
        let mut state = self.state();
        let item = state.place(index).and_then(Option::take);
        while let Some(None) = state.items.front() {
            state.items.pop_front();
            state.first += 1;
        }
        item.unwrap_or_default()
    }

    /// Notes how many calls have been printed.
    pub(super) fn printed(&self, calls: u64) {
        let mut state = self.state();
        // Waking the feeding thread for each call would cost more than it gains.
        let wakes = calls / 1024 > state.printed / 1024;
        state.printed = calls;
        drop(state);
        if wakes {
            self.printed.notify_all();
        }
    }

    /// Notes that the run wants no more calls.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.printed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Notes some calls. Waits while printing is too far behind. Returns `false` if the run wants no more calls.
    fn add(&self, items: Vec<Item>) -> bool {
        let mut state = self.state();
        let many = items.len() as u64;
        while !state.stopped && state.next() + many > state.printed + AHEAD {
            state = self
                .printed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if !state.stopped {
            state.items.extend(items.into_iter().map(Some));
            self.calls.fetch_add(many, Ordering::Relaxed);
        }
        !state.stopped
    }
}

impl State {
    fn place(&mut self, index: u64) -> Option<&mut Option<Item>> {
        let at = index.checked_sub(self.first)?;
        self.items.get_mut(usize::try_from(at).ok()?)
    }

    /// The index of the next call.
    fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }
}

/// A call that will be made.
pub(super) struct Call {
    pub(super) item: Item,
    /// Its inputs, if there may be several.
    several: Option<Vec<Vec<u8>>>,
}

impl Call {
    pub(super) fn inputs(&self) -> &[Vec<u8>] {
        match &self.several {
            Some(inputs) => inputs,
            None => slice::from_ref(&self.item.input),
        }
    }
}

/// Gathers inputs into calls, without the inputs that need not be run.
pub(super) struct Gathered {
    pub(super) inputs: Source,
    pub(super) succeeded: Succeeded,
    pub(super) work: Work,
    /// The first input of the next call, if the call before had no room for it.
    pub(super) held: Option<Vec<u8>>,
    /// How many inputs were read, and how many calls were made of them.
    pub(super) read: u64,
    pub(super) calls: u64,
}

impl Gathered {
    /// Whether the next call's input is here already. With several inputs for a call this is `false`, because it is not known
    /// beforehand how many there will be.
    fn is_at_hand(&self) -> bool {
        self.work.many() == 1 && self.succeeded.is_empty() && self.inputs.is_at_hand()
    }

    /// The next call. Adds the number of inputs skipped before it to `skipped`.
    pub(super) fn next(&mut self, skipped: &AtomicU64) -> Option<Call> {
        let first = self.held.take().or_else(|| self.wanted(skipped))?;
        let (input, several) = match self.work.many() {
            1 => (first, None),
            many => {
                let inputs = self.several(first, many, skipped);
                (inputs.join(&0), Some(inputs))
            }
        };
        let seq = match self.work.many() {
            1 => self.read,
            _ => {
                self.calls += 1;
                self.calls
            }
        };
        let item = Item { seq, input };
        Some(Call { item, several })
    }

    /// The inputs of one call: no more than a command line has room for.
    fn several(&mut self, first: Vec<u8>, many: usize, skipped: &AtomicU64) -> Vec<Vec<u8>> {
        let mut left = self.work.room().saturating_sub(self.work.size_of(&first));
        let mut inputs = vec![first];
        while inputs.len() < many
            && let Some(input) = self.wanted(skipped)
        {
            match left.checked_sub(self.work.size_of(&input)) {
                Some(rest) => left = rest,
                None => {
                    self.held = Some(input);
                    break;
                }
            }
            inputs.push(input);
        }
        inputs
    }

    /// The next input that needs to be run.
    fn wanted(&mut self, skipped: &AtomicU64) -> Option<Vec<u8>> {
        loop {
            let input = self.inputs.next()?;
            self.read += 1;
            if !self.succeeded.skips(&input) {
                return Some(input);
            }
            skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes calls of inputs, on a thread of its own: reading may block for any time, and results
/// must not wait for it.
pub(super) fn start(
    feed: &Arc<InputFeed>,
    pool: &Arc<Pool>,
    mut gathered: Gathered,
    work: Work,
    sender: Sender<Text>,
    brake: Option<Brake>,
) -> std::io::Result<()> {
    let (feed, pool) = (Arc::clone(feed), Arc::downgrade(pool));
    let body = move || {
        let mut brake = brake;
        // With a brake, calls are submitted one by one.
        let most = if brake.is_some() { 1 } else { TOGETHER };
        while let Some(first) = gathered.next(&feed.skipped) {
            if let Some(brake) = &mut brake {
                let jobs = brake.jobs;
                let room = || {
                    let pool = pool.upgrade()?;
                    let stats = pool.stats();
                    let slots = jobs + machines::slots(&pool);
                    Some(slots.saturating_sub(stats.running + stats.waiting))
                };
                if !brake.wait(|| feed.is_stopped(), room) {
                    return;
                }
            }
            let (mut items, mut payloads) = (Vec::new(), Vec::new());
            let files = work.files(first.inputs(), first.item.seq);
            // Elsewhere these directories are made, so that a command need not do it. If one can't be, the command says so.
            for parent in files
                .iter()
                .flat_map(Files::fetched)
                .filter_map(Path::parent)
            {
                let _ = std::fs::create_dir_all(parent);
            }
            let most = if files.is_some() { 1 } else { most };
            let mut next = Some(first);
            while let Some(call) = next {
                payloads.push(work.payload(call.inputs(), call.item.seq));
                items.push(call.item);
                let more = items.len() < most && gathered.is_at_hand();
                next = more.then(|| gathered.next(&feed.skipped)).flatten();
            }
            if !feed.add(items) || !send(&sender, payloads, files) {
                return;
            }
        }
        let broken = gathered.inputs.is_broken();
        feed.broken.store(broken, Ordering::Relaxed);
        feed.ended.store(true, Ordering::Release);
    };
    thread::Builder::new()
        .name("inputs".to_owned())
        .spawn(body)?;
    Ok(())
}

/// Makes calls. Files go along with one alone. Returns `false` if the run wants no more calls.
fn send(sender: &Sender<Text>, mut payloads: Vec<Vec<u8>>, files: Option<Files>) -> bool {
    match (files, payloads.pop()) {
        (Some(files), Some(payload)) => sender.send_with(payload, files).is_ok(),
        (_, None) => true,
        (None, Some(last)) => {
            payloads.push(last);
            sender.send_all(payloads).is_ok()
        }
    }
}

/// Holds calls back: for a time between two starts, or while the machine is too busy.
#[derive(Debug)]
pub(super) struct Brake {
    delay: Option<Duration>,
    max_load: Option<f64>,
    min_free_memory: Option<u64>,
    jobs: usize,
    last: Option<Instant>,
}

impl Brake {
    /// Makes a brake, if the options ask for one.
    pub(super) fn new(options: &Options, jobs: usize) -> Option<Self> {
        let Options {
            delay,
            max_load,
            min_free_memory,
            ..
        } = *options;
        let asked = delay.is_some() || max_load.is_some() || min_free_memory.is_some();
        asked.then_some(Brake {
            delay,
            max_load,
            min_free_memory,
            jobs,
            last: None,
        })
    }

    /// Waits until a call may start. Returns `false` if the run wants no more calls. A submitted call starts at
    /// once, because there are never more of them than workers here and on other machines.
    fn wait(&mut self, stopped: impl Fn() -> bool, room: impl Fn() -> Option<usize>) -> bool {
        loop {
            let Some(room) = room() else {
                return false;
            };
            if stopped() {
                return false;
            }
            let waited = match (self.delay, self.last) {
                (Some(delay), Some(last)) => delay.saturating_sub(last.elapsed()),
                _ => Duration::ZERO,
            };
            // With nothing running, this run adds nothing to the load, and waits only for what others add.
            if waited.is_zero() && room > 0 && self.machine_is_free() {
                self.last = Some(Instant::now());
                return true;
            }
            thread::sleep(waited.clamp(Duration::from_millis(1), LOOK));
        }
    }

    fn machine_is_free(&self) -> bool {
        // If the load or the free memory can't be read, it holds nothing back.
        let load = || {
            let text = std::fs::read_to_string("/proc/loadavg").ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        };
        let free = || {
            let text = std::fs::read_to_string("/proc/meminfo").ok()?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemAvailable:"))?;
            let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kibibytes << 10)
        };
        let quiet = self
            .max_load
            .is_none_or(|most| load().is_none_or(|load| load < most));
        quiet
            && self
                .min_free_memory
                .is_none_or(|least| free().is_none_or(|free| free >= least))
    }
}
