//! Workers that die in the middle of a map: who pays, and does anything run twice?

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::{CallError, Death, Pool, Why, Worker};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::{Setting, Values, WORKERS, values};
use crate::Problem;
use crate::tasks::{leave_mark, open_marks};

/// How many bytes a mark is long.
const MARK: u64 = 8;

/// How many calls, and how many deaths among them.
fn sizes(setting: &Setting) -> (u64, u64) {
    setting.pick((1_000_000, 20), (100_000, 4))
}

/// A map of calls that each leave a mark, while workers are killed from outside, at even distances. A
/// kill may find its worker between two calls: then it costs none.
pub(crate) fn killed(setting: &Setting) -> Result<Values, Problem> {
    let (calls, kills) = sizes(setting);
    let marks = Marks::new()?;
    let pool = marks.pool()?;
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let (results, killed) = thread::scope(|scope| {
        let killer = scope.spawn(|| kill(&pool, &marks.file, calls, kills, &over));
        let results = pool.map_each(leave_mark, (0..calls).map(|x| (x, false)));
        over.store(true, Ordering::Relaxed);
        (results, killer.join())
    });
    let seconds = started.elapsed().as_secs_f64();
    let killed = killed.map_err(|_| "the killer panicked")??;
    if killed.is_empty() {
        return Err("the map was over before a worker could be killed".into());
    }

    let tally = Tally::of(&results, &marks.times(calls)?)?;
    let mut charges: HashMap<u32, u32> = killed.iter().map(|pid| (*pid, 0)).collect();
    for (index, pid) in &tally.charged {
        let charges = charges.get_mut(pid);
        *charges.ok_or_else(|| format!("call {index} is charged with a death that was none"))? += 1;
    }
    let most = charges.into_values().max().unwrap_or_default();
    let mut found = tally.values(calls, killed.len(), seconds);
    found.insert("most".to_owned(), f64::from(most));
    Ok(found)
}

/// A map of calls that each leave a mark; some kill their worker then. Just these are to be charged.
pub(crate) fn died(setting: &Setting) -> Result<Values, Problem> {
    let (calls, deaths) = sizes(setting);
    let marks = Marks::new()?;
    let pool = marks.pool()?;
    let every = calls / deaths;
    let deadly = |x: u64| x % every == every / 2;
    let started = Instant::now();
    let results = pool.map_each(leave_mark, (0..calls).map(|x| (x, deadly(x))));
    let seconds = started.elapsed().as_secs_f64();

    let tally = Tally::of(&results, &marks.times(calls)?)?;
    let charged = tally.charged.iter().map(|(index, _)| *index);
    let (right, wrong): (Vec<u64>, Vec<u64>) = charged.partition(|index| deadly(*index));
    let spared = deaths.saturating_sub(right.len() as u64);
    let mut found = tally.values(calls, usize::try_from(deaths)?, seconds);
    found.insert("wrong".to_owned(), (wrong.len() as u64 + spared) as f64);
    Ok(found)
}

/// Kills so many workers, one after another, each when the marks have come so much further. Returns
/// their process ids.
fn kill(
    pool: &Pool,
    marks: &File,
    calls: u64,
    kills: u64,
    over: &AtomicBool,
) -> Result<Vec<u32>, Problem> {
    let mut killed = Vec::new();
    while (killed.len() as u64) < kills && !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_micros(200));
        let number = killed.len() as u64 + 1;
        if marks.metadata()?.len() < MARK * calls * number / (kills + 1) {
            continue;
        }
        // One that runs a call, as far as one can tell; now this slot, now that.
        let workers = pool.workers();
        let running = workers
            .iter()
            .filter(|worker| worker.running.is_some() && !killed.contains(&worker.pid));
        let turn = |worker: &&Worker| (worker.slot as u64 + number) % WORKERS as u64;
        if let Some(victim) = running.max_by_key(turn) {
            let pid = Pid::from_raw(victim.pid.cast_signed()).ok_or("a worker without a pid")?;
            rustix::process::kill_process(pid, Signal::KILL)?;
            killed.push(victim.pid);
        }
    }
    Ok(killed)
}

/// The file that calls leave their marks in.
struct Marks {
    file: File,
    path: PathBuf,
    /// Removed with all that is in it when this goes.
    _directory: TempDir,
}

impl Marks {
    fn new() -> Result<Self, Problem> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("marks");
        Ok(Marks {
            file: File::create(&path)?,
            path,
            _directory: directory,
        })
    }

    /// A pool whose workers have the file open, and have all started.
    fn pool(&self) -> Result<Pool, Problem> {
        let pool = Pool::builder()
            .workers(WORKERS)
            .initializer(open_marks, self.path.clone())
            // A worker killed before its first call counts as one that failed to start.
            .restart_limit(100, Duration::from_secs(1))
            .build()?;
        while pool.stats().workers_started < WORKERS as u64 {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(pool)
    }

    /// How often each call has left its mark.
    fn times(&self, calls: u64) -> Result<Vec<u32>, Problem> {
        let mut times = vec![0; usize::try_from(calls)?];
        let bytes = fs::read(&self.path)?;
        let (marks, rest) = bytes.as_chunks::<{ MARK as usize }>();
        for mark in marks {
            let index = usize::try_from(u64::from_le_bytes(*mark))?;
            *times.get_mut(index).ok_or("a mark of no call")? += 1;
        }
        if rest.is_empty() {
            Ok(times)
        } else {
            Err("half a mark".into())
        }
    }
}

/// What became of the calls.
#[derive(Default)]
struct Tally {
    /// Which calls ended with the death of which worker.
    charged: Vec<(u64, u32)>,
    /// How many ran more than once.
    twice: u32,
    /// How many have a result, but never ran.
    lost: u32,
}

impl Tally {
    /// An error if a call ended in any other way than with its square or with a killed worker.
    fn of(results: &[Result<u64, CallError>], marks: &[u32]) -> Result<Self, Problem> {
        if results.len() != marks.len() {
            return Err(format!("{} results of {} calls", results.len(), marks.len()).into());
        }
        let mut tally = Tally::default();
        for (index, (result, times)) in (0_u64..).zip(results.iter().zip(marks)) {
            tally.twice += u32::from(*times > 1);
            match result {
                Ok(square) if *square == index * index => tally.lost += u32::from(*times == 0),
                Ok(_) => return Err(format!("call {index} has the result of another").into()),
                Err(error) => match (error.why(), error.worker()) {
                    (Why::Died(Death::Signal(9)), Some(pid)) => tally.charged.push((index, pid)),
                    _ => return Err(error.to_string().into()),
                },
            }
        }
        Ok(tally)
    }

    fn values(&self, calls: u64, deaths: usize, seconds: f64) -> Values {
        values([
            ("time", seconds / calls as f64),
            ("kills", deaths as f64),
            ("charged", self.charged.len() as f64),
            ("twice", f64::from(self.twice)),
            ("lost", f64::from(self.lost)),
        ])
    }
}
