//! What agents are told of a run before they join it.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use protocol::agent::{self, Carried, Open, SharedValue};

use super::access::{Agents, Wanted};
use super::bulk::Store;
use super::carriage::{fits, nanos};
use crate::engine::shared::PoolShared;
use crate::payload::printed::Output;

/// What agents are told, and the input of the initializer.
pub(super) fn open(
    shared: &PoolShared,
    wanted: &Wanted,
    store: &mut Store,
    run: String,
) -> io::Result<(Open, Vec<u8>)> {
    let program = shared.config.launcher.program.file()?;
    let program = store.offer(Arc::new(program))?;
    let (initializer, input) = initializer(shared, store)?;
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
) -> io::Result<(Option<agent::Initializer>, Vec<u8>)> {
    let Some(initializer) = &shared.config.initializer else {
        return Ok((None, Vec::new()));
    };
    let all = worker::private::Given::default().add(&initializer.kept);
    let values = all.iter().map(|kept| share(store, kept));
    let values = values.collect::<io::Result<_>>()?;
    let (input, payload) = match fits(initializer.input.len() as u64) {
        true => (Carried::Here, initializer.input.clone()),
        false => {
            let bulk = store.offer(Arc::new(initializer.input.clone()))?;
            (Carried::Apart(bulk), Vec::new())
        }
    };
    let told = agent::Initializer {
        task: initializer.job.task.clone(),
        types: initializer.job.types.clone(),
        encoding: initializer.job.encoding,
        input,
        shared: values,
    };
    Ok((Some(told), payload))
}

/// Offers a value that inputs refer to.
pub(super) fn share(store: &mut Store, kept: &worker::private::Kept) -> io::Result<SharedValue> {
    let bulk = store.offer(Arc::new(kept.encoded()?))?;
    Ok(SharedValue {
        id: kept.id(),
        bulk,
    })
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
