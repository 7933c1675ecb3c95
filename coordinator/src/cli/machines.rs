//! The machines that a run uses besides this one.

#[cfg(feature = "agents")]
use std::ffi::{OsStr, OsString};
#[cfg(feature = "agents")]
use std::path::PathBuf;

#[cfg(feature = "agents")]
use coordinator::Agents;
use coordinator::{Builder, Pool};

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use super::Trouble;
use super::machine_args::MachineArgs;
use super::work::Work;

/// What a build without agents says.
#[cfg(not(feature = "agents"))]
pub(super) const WITHOUT: &str = "this coordinator was built without agents, and so can use no other machine: install it with \
                                  `cargo install --locked --path coordinator --features agents`";

/// The key that was named, by an option or by a variable.
#[cfg(feature = "agents")]
pub(super) fn key(named: Option<&PathBuf>) -> Option<PathBuf> {
    let set = || std::env::var_os("COORDINATOR_KEY").map(PathBuf::from);
    named.cloned().or_else(set)
}

/// The agents that are named, if some are.
#[cfg(feature = "agents")]
pub(super) fn agents(machines: &MachineArgs) -> Result<Option<Agents>, Trouble> {
    let agents = match (&machines.on, machines.broker()) {
        (Some(hosts), _) => Agents::over_ssh(hosts_of(hosts)?).by_this_program(),
        (None, Some(url)) => {
            let agents = Agents::at(url);
            match key(machines.key.as_ref()) {
                Some(path) => agents.key(path),
                None => agents,
            }
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(match machines.insecure {
        true => agents.insecure(),
        false => agents,
    }))
}

/// A name for a run that nobody can guess.
pub(super) fn new_run() -> String {
    // `RandomState` has keys from the system's random numbers.
    let random = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", random(), random())
}

/// The names of the machines that take part now.
pub(super) fn names(pool: &Pool) -> Vec<String> {
    #[cfg(feature = "agents")]
    return pool
        .agents()
        .iter()
        .map(|agent| agent.name.to_string())
        .collect();
    #[cfg(not(feature = "agents"))]
    {
        let _ = pool;
        Vec::new()
    }
}

/// Whether nothing of a pool that has ended runs on any machine.
pub(super) fn have_ended(pool: &Pool) -> bool {
    #[cfg(feature = "agents")]
    return !pool.has_left_calls();
    #[cfg(not(feature = "agents"))]
    {
        let _ = pool;
        true
    }
}

/// Has a pool use the machines for some work.
#[cfg(feature = "agents")]
pub(super) fn apply(
    machines: &MachineArgs,
    builder: Builder,
    work: &Work,
    grace: Duration,
    run: Option<&str>,
) -> Result<Builder, Trouble> {
    machines.check()?;
    let Some(mut agents) = agents(machines)? else {
        return Ok(builder);
    };
    if let Some(run) = run {
        agents = agents.run(run);
    }
    for variable in &machines.env {
        let (name, value) = variable_of(variable)?;
        agents = agents.env(name, value);
    }
    if work.has_files() {
        agents = agents.apart();
    }
    // The lease is said in any case: the log has it.
    let builder = builder.agents(agents.about(work.key()));
    Ok(builder.lease(machines.lease(grace)))
}

/// A variable that `--env` names, and its value.
#[cfg(feature = "agents")]
fn variable_of(named: &OsStr) -> Result<(&OsStr, OsString), Trouble> {
    use std::os::unix::ffi::OsStrExt as _;

    let bytes = named.as_bytes();
    if let Some(at) = bytes.iter().position(|byte| *byte == b'=') {
        let value = OsStr::from_bytes(&bytes[at + 1..]);
        return Ok((OsStr::from_bytes(&bytes[..at]), value.to_owned()));
    }
    let value = std::env::var_os(named).ok_or_else(|| {
        Trouble::Usage(format!(
            "there is no variable {} to take along: set it, or give its value, as in --env NAME=VALUE",
            named.display()
        ))
    })?;
    Ok((named, value))
}

/// The machines that `--on` names.
#[cfg(feature = "agents")]
fn hosts_of(hosts: &str) -> Result<Vec<String>, Trouble> {
    let text = match hosts.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            Trouble::Usage(format!(
                "the list of machines {path} can't be read: {error}"
            ))
        })?,
        None => hosts.to_owned(),
    };
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    let hosts = lines.flat_map(|line| line.split([',', ' ', '\t']));
    let hosts: Vec<String> = hosts
        .filter(|host| !host.is_empty())
        .map(str::to_owned)
        .collect();
    match hosts.is_empty() {
        true => Err(Trouble::Usage(
            "--on names no machine: --on box2,box3:8".to_owned(),
        )),
        false => Ok(hosts),
    }
}

/// The same in a build that can't.
#[cfg(not(feature = "agents"))]
pub(super) fn apply(
    machines: &MachineArgs,
    builder: Builder,
    _work: &Work,
    _grace: Duration,
    _run: Option<&str>,
) -> Result<Builder, Trouble> {
    match machines.are_wanted() {
        true => Err(Trouble::Usage(WITHOUT.to_owned())),
        false => machines.check().map(|()| builder),
    }
}

/// How many calls other machines can run at once.
pub(super) fn slots(pool: &Pool) -> usize {
    #[cfg(feature = "agents")]
    return pool.agents().iter().map(|agent| agent.slots).sum();
    #[cfg(not(feature = "agents"))]
    {
        let _ = pool;
        0
    }
}

/// What there is to say of machines since the last time.
pub(super) fn news(pool: &Pool) -> Vec<String> {
    #[cfg(feature = "agents")]
    return pool.take_agent_news();
    #[cfg(not(feature = "agents"))]
    {
        let _ = pool;
        Vec::new()
    }
}
