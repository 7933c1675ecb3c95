//! How an agent comes to serve a run: it gets what is missing here, and starts a first worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::{Bulk, Carried, Open};
use worker::private::Kept;

use super::building::Building;
use super::event::Event;
use super::files::RunFiles;
use super::programs;
use crate::agents::bulk::Fetched;
use crate::engine::config::Initializer;
use crate::error::PoolError;
use crate::payload::printed::Output;
use crate::payload::{Job, Place};
use crate::pool::Pool;
use crate::workers::launch::Surroundings;

/// The variable that tells the built-in tasks where each call has its own directory: the same as theirs.
const CALLS_VARIABLE: &str = "COORDINATOR_CALLS";
/// How long nothing may come from a run's coordinator before the run is given up: no piece of what is fetched, and afterwards no
/// word that it wants machines, which it says each second.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A run that this agent is going to serve.
pub(super) struct Preparing {
    pub(super) open: Open,
    input: Vec<u8>,
    /// Where its program is, once that is known.
    program: Option<PathBuf>,
    directory: Option<OwnedFd>,
    /// The files of its calls, if they have some.
    pub(super) files: Option<RunFiles>,
    /// What had to be fetched, as far as it has come.
    fetched: BTreeMap<Bulk, Option<Vec<u8>>>,
    building: Option<Building>,
    /// When its coordinator was heard last.
    heard: Instant,
}

impl Preparing {
    /// Looks at what a run needs. An error says why it can't be served here.
    pub(super) fn new(
        open: Open,
        input: Vec<u8>,
        own: &(PathBuf, Bulk),
        home: u64,
    ) -> Result<Self, String> {
        let files = open.is_apart.then(|| RunFiles::new(home)).transpose();
        let files = files
            .map_err(|error| format!("there is no place here for the files of calls: {error}"))?;
        let path = match &files {
            Some(files) => files.calls(),
            None => PathBuf::from(OsString::from_vec(open.directory.clone())),
        };
        let directory = File::open(&path).and_then(|file| match file.metadata()?.is_dir() {
            true => Ok(OwnedFd::from(file)),
            false => Err(io::Error::other("it is no directory")),
        });
        let directory = directory.map_err(|error| {
            format!(
                "calls run in the directory {}, and there is none that can be used: {error}",
                path.display()
            )
        })?;
        let program = programs::find(&open.program, own);
        let mut fetched = BTreeMap::new();
        if program.is_none() {
            fetched.insert(open.program, None);
        }
        if let Some(initializer) = &open.initializer {
            if let Carried::Apart(bulk) = initializer.input {
                fetched.insert(bulk, None);
            }
            fetched.extend(initializer.shared.iter().map(|value| (value.bulk, None)));
        }
        Ok(Preparing {
            open,
            input,
            program,
            directory: Some(directory),
            files,
            fetched,
            building: None,
            heard: Instant::now(),
        })
    }

    /// Its coordinator still wants machines. While something is fetched that says little: a run whose pieces never come is not
    /// waited for.
    pub(super) fn is_wanted_again(&mut self) {
        if self.is_building() {
            self.heard = Instant::now();
        }
    }

    /// Whether nothing has come from its coordinator for so long that it is gone, though nobody has said so.
    pub(super) fn is_forgotten(&self) -> bool {
        self.heard.elapsed() >= FORGOTTEN
    }

    pub(super) fn is_building(&self) -> bool {
        self.building.is_some()
    }

    /// Whether these are its workers.
    pub(super) fn has_begun(&self, building: &Building) -> bool {
        let own = self.building.as_ref();
        own.is_some_and(|own| own.is(building))
    }

    /// It is not to be served. Returns when nothing of it runs.
    pub(super) fn end(&mut self) {
        if let Some(building) = &self.building {
            building.end();
        }
    }

    /// What has to be fetched.
    pub(super) fn missing(&self) -> impl Iterator<Item = Bulk> {
        let missing = self.fetched.iter().filter(|(_, come)| come.is_none());
        missing.map(|(bulk, _)| *bulk)
    }

    /// A piece of something has come.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Something has come.
    pub(super) fn arrived(&mut self, bulk: Bulk, fetched: Fetched) -> Result<(), String> {
        if !self.fetched.contains_key(&bulk) {
            return Ok(());
        }
        if bulk == self.open.program && self.program.is_none() {
            let kept = programs::keep(&bulk, fetched);
            let kept =
                kept.map_err(|error| format!("the program of the run can't be kept: {error}"))?;
            self.program = Some(kept);
            self.fetched.remove(&bulk);
            return Ok(());
        }
        let bytes = fetched.into_bytes();
        let bytes = bytes.map_err(|error| format!("an input can't be kept: {error}"))?;
        self.fetched.insert(bulk, Some(bytes));
        Ok(())
    }

    /// Starts the workers, on a thread of its own: the first may take as long as the initializer does.
    pub(super) fn build(
        &mut self,
        slots: usize,
        mark: (OsString, OsString),
        to: Sender<Event>,
    ) -> Result<(), String> {
        let building = Building::default();
        self.building = Some(building.clone());
        let builder = self
            .builder(slots, mark)
            .map_err(|error| error.to_string())?;
        let thread = thread::Builder::new().name("pool".to_owned());
        let spawned = thread.spawn(move || {
            let built = builder.build_now().and_then(|pool| {
                let pool = Arc::new(pool);
                building.has(&pool);
                pool.tasks()?;
                Ok(pool)
            });
            // Nobody hears it if the agent has ended: then this pool ends, too.
            let _ = to.send(Event::Built { building, built });
        });
        spawned
            .map(drop)
            .map_err(|error| format!("a thread could not be started: {error}"))
    }

    fn builder(
        &mut self,
        slots: usize,
        mark: (OsString, OsString),
    ) -> io::Result<crate::pool::Builder> {
        let open = &self.open;
        let program = self.program.clone().unwrap_or_default();
        let variables = open.variables.iter().map(|(name, value)| {
            let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
            (text(name), text(value))
        });
        let calls = self.files.as_ref().map(|files| {
            let calls = files.calls().into_os_string();
            (OsString::from(CALLS_VARIABLE), calls)
        });
        let surroundings = Surroundings {
            env: variables.chain([mark]).chain(calls).collect(),
            directory: self.directory.take(),
        };
        let mut builder = Pool::builder()
            .worker(program)
            .workers(slots)
            .grace(Duration::from_nanos(open.grace))
            .output(match open.prints {
                true => Output::Capture,
                false => Output::Null,
            })
            .surroundings(surroundings);
        if let Some(calls) = open.recycle_after {
            builder = builder.recycle_after(calls);
        }
        if let Some(bytes) = open.recycle_above {
            builder = builder.recycle_above(bytes);
        }
        let Some(initializer) = &open.initializer else {
            return Ok(builder);
        };
        let come = |bulk: &Bulk| {
            self.fetched
                .get(bulk)
                .cloned()
                .flatten()
                .unwrap_or_default()
        };
        let kept = initializer
            .shared
            .iter()
            .map(|value| Kept::copy_of(value.id, &come(&value.bulk)));
        let input = match &initializer.input {
            Carried::Here => self.input.clone(),
            Carried::Apart(bulk) => come(bulk),
        };
        Ok(builder.encoded_initializer(Initializer {
            job: Job {
                task: initializer.task.as_str().into(),
                types: initializer.types.clone(),
                encoding: initializer.encoding,
                place: Place::default(),
            },
            input,
            kept: kept.collect::<io::Result<_>>()?,
        }))
    }
}

/// Why a pool could not be had, for the coordinator.
pub(super) fn why(error: &PoolError) -> String {
    match error {
        PoolError::CannotStart { cause, .. } => format!("its worker could not be started: {cause}"),
        other => other.to_string(),
    }
}
