//! What agents are told of a run before they join it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use protocol::agent::{self, Bulk, Carried, Open, SharedValue};
use worker::private::Kept;

use super::access::{Agents, Wanted};
use super::bulk::{self, Content, Store};
use super::carriage::{fits, nanos};
use crate::engine::shared::PoolShared;
use crate::payload::printed::Output;

/// What agents are told, and the input of the initializer.
pub(super) fn open(
    shared: &PoolShared,
    wanted: &Wanted,
    (store, values): (&mut Store, &mut Values),
    run: String,
) -> io::Result<(Open, Vec<u8>)> {
    let program = shared.config.launcher.program.file()?;
    let program = store.offer(Arc::new(program))?;
    let (initializer, input) = initializer(shared, store, values)?;
    let variables = wanted.agents.variables.iter();
    let variables =
        variables.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let open = Open {
        run,
        lease: nanos(wanted.lease),
        grace: nanos(shared.config.limits.grace),
        program,
        initializer,
        directory: wanted.directory.as_os_str().as_bytes().to_vec(),
        is_apart: wanted.agents.is_apart,
        variables: variables.collect(),
        recycle_after: shared.config.recycle_after,
        recycle_above: shared.config.recycle_above,
        prints: shared.output() != Output::Null,
        about: about(&wanted.agents),
        is_hungry: false,
    };
    Ok((open, input))
}

/// The initializer as agents are told of it, and its input.
fn initializer(
    shared: &PoolShared,
    store: &mut Store,
    values: &mut Values,
) -> io::Result<(Option<agent::Initializer>, Vec<u8>)> {
    let Some(initializer) = &shared.config.initializer else {
        return Ok((None, Vec::new()));
    };
    let all = worker::private::Given::default().add(&initializer.kept);
    let values = all.into_iter().map(|kept| values.share(store, kept));
    let values = values.collect::<io::Result<_>>()?;
    let (input, payload) = match fits(initializer.input.len() as u64) {
        true => (Carried::Here, initializer.input.clone()),
        false => {
            let bulk = store.offer(Arc::new(initializer.input.clone()))?;
            (Carried::Apart(bulk), Vec::new())
        }
    };
    let told = agent::Initializer {
        task: initializer.job.task.to_string(),
        types: initializer.job.types.clone(),
        encoding: initializer.job.encoding,
        input,
        shared: values,
    };
    Ok((Some(told), payload))
}

/// How many values are remembered.
const MOST_VALUES: usize = 1 << 16;

/// The values that inputs refer to: what they are called. To find that out takes as long as reading them, and each lease names
/// them anew.
#[derive(Default)]
pub(super) struct Values(BTreeMap<u64, Bulk>);

impl Values {
    /// Offers a value.
    pub(super) fn share(&mut self, store: &mut Store, kept: Kept) -> io::Result<SharedValue> {
        let id = kept.id();
        let content = Arc::new(Value(kept));
        let bulk = match self.0.get(&id) {
            Some(bulk) => *bulk,
            None => bulk::name_of(&*content)?,
        };
        if self.0.len() >= MOST_VALUES {
            self.0.clear();
        }
        self.0.insert(id, bulk);
        store.offer_as(bulk, content);
        Ok(SharedValue { id, bulk })
    }
}

/// A value, which stays where the workers of this process have it.
struct Value(Kept);

impl Content for Value {
    fn len(&self) -> u64 {
        self.0.encoded_len()
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.encoded_part(at, len)
    }
}

/// Whose run it is, and what it does.
fn about(agents: &Agents) -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let what = agents.about.clone().unwrap_or_else(|| {
        let program = std::env::current_exe().ok();
        let name = program
            .as_deref()
            .and_then(|path| path.file_name())
            .unwrap_or_default();
        name.to_string_lossy().into_owned()
    });
    format!("{user}: {what}")
}
