//! The tasks of this program, found by name.

use std::sync::{Mutex, OnceLock, PoisonError};

use protocol::message::TaskInfo;

use crate::run::{self, Runner};
use crate::task::Task;

/// A task as the registry holds it: its name, and how to run it on bytes.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub(crate) name: &'static str,
    /// The crate that defines it. Empty for a task that is not defined by the attribute.
    krate: &'static str,
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
            krate: T::CRATE,
            signature: T::SIGNATURE,
            types: T::TYPES,
            doc: T::DOC,
            location,
            postcard: run::postcard::<T>,
            text: run::text::<T>,
            check: run::check::<T>,
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

/// All tasks, collected at the first call. It is an error if two tasks of a crate share a name.
pub(crate) fn all() -> Result<&'static Registry, String> {
    static ALL: OnceLock<Result<Registry, String>> = OnceLock::new();
    let all = ALL.get().unwrap_or_else(|| {
        let added = ADDED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = Registry::collect(TASKS.iter().copied().chain(added));
        // Not collected within `get_or_init`: if the program is forked meanwhile, its copy would wait for a thread that does
        // not exist there.
        ALL.get_or_init(|| all)
    });
    all.as_ref().map_err(Clone::clone)
}

/// The task of this name, or an error that lists the existing tasks.
pub(crate) fn find(name: &str) -> Result<&'static Entry, String> {
    all()?.find(name)
}

/// The name by which a coordinator asks for a task: qualified by its crate if this program has a task of the same name in
/// another crate.
#[must_use]
pub fn name_of<T: Task>() -> String {
    let is_another = |entry: &&Entry| entry.name == T::NAME && entry.krate != T::CRATE;
    let clashes = all().is_ok_and(|all| all.named(T::NAME).any(|entry| is_another(&entry)));
    match clashes {
        true => qualified(T::CRATE, T::NAME),
        false => T::NAME.to_owned(),
    }
}

fn qualified(krate: &str, name: &str) -> String {
    match krate {
        "" => name.to_owned(),
        krate => format!("{krate}::{name}"),
    }
}

/// Tasks by their names. Two may share a name if their crates differ.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Sorted by name and crate.
    entries: Vec<Entry>,
}

impl Registry {
    fn collect(entries: impl Iterator<Item = Entry>) -> Result<Self, String> {
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by_key(|entry| (entry.name, entry.krate));
        for pair in entries.windows(2) {
            if (pair[0].name, pair[0].krate) == (pair[1].name, pair[1].krate) {
                return Err(format!(
                    "two tasks are named `{}`, at {} and at {}: give one of them another name with \
                     #[task(name = \"…\")]",
                    pair[0].name, pair[0].location, pair[1].location
                ));
            }
        }
        Ok(Registry { entries })
    }

    /// The tasks of this name, one for each crate.
    fn named(&self, name: &str) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.name < name);
        self.entries[first..]
            .iter()
            .take_while(move |entry| entry.name == name)
    }

    /// The shortest name that means this task alone.
    fn shown(&self, entry: &Entry) -> String {
        match self.named(entry.name).count() {
            1 => entry.name.to_owned(),
            _ => qualified(entry.krate, entry.name),
        }
    }

    /// The tasks as the greeting to the coordinator has them.
    pub(crate) fn infos(&self) -> Vec<TaskInfo> {
        let infos = self.entries.iter().map(|entry| TaskInfo {
            name: self.shown(entry),
            signature: entry.signature.to_owned(),
            doc: entry.doc.lines().next().unwrap_or_default().to_owned(),
        });
        infos.collect()
    }

    /// Finds a task by its name, or by its crate and its name.
    fn find(&self, name: &str) -> Result<&Entry, String> {
        let mut same: Vec<&Entry> = self.named(name).collect();
        if same.is_empty()
            && let Some((krate, rest)) = name.split_once("::")
        {
            same.extend(self.named(rest).filter(|entry| entry.krate == krate));
        }
        match same[..] {
            [one] => Ok(one),
            [] => Err(self.has_none(name)),
            _ => {
                let names: Vec<_> = same.iter().map(|entry| self.shown(entry)).collect();
                Err(format!(
                    "this worker has several tasks named `{name}`: name one, {}",
                    names.join(" or ")
                ))
            }
        }
    }

    fn has_none(&self, name: &str) -> String {
        let names: Vec<_> = self.entries.iter().map(|entry| self.shown(entry)).collect();
        let known = match names.as_slice() {
            [] => "it has none (the linker leaves out a crate that nothing refers to: `use that_crate as _;` in the \
                   worker's main keeps its tasks)"
                .to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        format!("this worker has no task named `{name}`; {known}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;
    use crate as worker;

    #[worker::task(register = false)]
    fn nothing() {}

    fn entry(krate: &'static str, name: &'static str) -> Entry {
        Entry {
            name,
            krate,
            ..Entry::new::<nothing>("here")
        }
    }

    #[test]
    fn tasks_of_two_crates_may_share_a_name() {
        let entries = [
            entry("b", "resize"),
            entry("a", "resize"),
            entry("a", "crop"),
            entry("c", "x::y"),
        ];
        let registry = Registry::collect(entries.into_iter()).unwrap();
        let found = |name| registry.find(name).map(|entry| (entry.krate, entry.name));
        assert_eq!(found("crop"), Ok(("a", "crop")));
        assert_eq!(found("a::crop"), Ok(("a", "crop")));
        assert_eq!(found("b::resize"), Ok(("b", "resize")));
        assert_eq!(found("x::y"), Ok(("c", "x::y")));
        assert_eq!(found("c::x::y"), Ok(("c", "x::y")));
        assert_eq!(
            found("resize"),
            Err(
                "this worker has several tasks named `resize`: name one, a::resize or b::resize"
                    .to_owned()
            )
        );
        let listed =
            "this worker has no task named `b::crop`; it has crop, a::resize, b::resize, x::y";
        assert_eq!(found("b::crop"), Err(listed.to_owned()));
    }
}
