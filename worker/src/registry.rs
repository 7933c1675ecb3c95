//! The tasks of this program, found by name.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use protocol::message::TaskInfo;

use crate::run::{self, Runner};
use crate::task::Task;

/// A task as the registry holds it: its name, and how to run it on bytes.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub(crate) name: &'static str,
    pub(crate) signature: &'static str,
    pub(crate) types: &'static str,
    pub(crate) doc: &'static str,
    /// Where it is defined, to tell two of one name apart.
    location: &'static str,
    pub(crate) postcard: Runner,
    pub(crate) text: Runner,
    /// Checks an input without running the task.
    pub(crate) check: Runner,
}

impl Entry {
    /// The entry of a task. `location` is where it is defined, as `file:line`.
    #[must_use]
    pub const fn new<T: Task>(location: &'static str) -> Self {
        Entry {
            name: T::NAME,
            signature: T::SIGNATURE,
            types: T::TYPES,
            doc: T::DOC,
            location,
            postcard: run::postcard::<T>,
            text: run::text::<T>,
            check: run::check::<T>,
        }
    }

    /// The task's entry in the greeting to the coordinator.
    pub(crate) fn info(&self) -> TaskInfo {
        TaskInfo {
            name: self.name.to_owned(),
            signature: self.signature.to_owned(),
            doc: self.doc.lines().next().unwrap_or_default().to_owned(),
        }
    }
}

/// The tasks that registered themselves. The linker gathers them, so they are there before anything runs.
#[linkme::distributed_slice]
pub static TASKS: [Entry];

/// Tasks that were added at run time; see [`add`].
static ADDED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Adds tasks that do not register themselves. Tasks added after the first call of [`all`] are not seen.
#[cfg_attr(not(feature = "builtin"), expect(dead_code))]
pub(crate) fn add(entries: &[Entry]) {
    let mut added = ADDED.lock().unwrap_or_else(PoisonError::into_inner);
    added.extend(entries);
}

/// All tasks by name, collected at the first call. It is an error if two tasks share a name.
pub(crate) fn all() -> Result<&'static BTreeMap<&'static str, Entry>, String> {
    static ALL: OnceLock<Result<BTreeMap<&'static str, Entry>, String>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let added = ADDED.lock().unwrap_or_else(PoisonError::into_inner);
        collect(TASKS.iter().copied().chain(added.iter().copied()))
    });
    all.as_ref().map_err(Clone::clone)
}

fn collect(entries: impl Iterator<Item = Entry>) -> Result<BTreeMap<&'static str, Entry>, String> {
    let mut all = BTreeMap::new();
    for entry in entries {
        if let Some(other) = all.insert(entry.name, entry) {
            return Err(format!(
                "two tasks are named `{}`, at {} and at {}: give one of them another name with \
                 #[task(name = \"…\")]",
                entry.name, other.location, entry.location
            ));
        }
    }
    Ok(all)
}

/// The task of this name, or an error that lists the existing tasks.
pub(crate) fn find(name: &str) -> Result<&'static Entry, String> {
    let all = all()?;
    all.get(name).ok_or_else(|| {
        let names: Vec<_> = all.keys().copied().collect();
        let known = match names.as_slice() {
            [] => "it has none (the linker leaves out a crate that nothing refers to: `use that_crate as _;` in the \
                   worker's main keeps its tasks)"
                .to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        format!("this worker has no task named `{name}`; {known}")
    })
}
