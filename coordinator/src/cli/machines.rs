//! The machines that a run uses besides this one.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::{Builder, Pool};

use super::Trouble;
use super::units;

/// Which machines, and how they are reached.
#[derive(Debug, Args)]
pub(super) struct MachineArgs {
    /// Also run calls on these machines, over ssh: HOST or HOST:SLOTS, with commas between; @FILE reads them from a file
    #[arg(long, value_name = "HOST,...", conflicts_with_all = ["nats", "key"])]
    pub(super) on: Option<String>,
    /// Also run calls on the agents that wait at this broker [env: COORDINATOR_NATS]
    #[arg(long, value_name = "URL")]
    pub(super) nats: Option<String>,
    /// The key that lets this user submit [env: COORDINATOR_KEY]
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Also use a broker that lets everybody in, or does not encrypt
    #[arg(long)]
    pub(super) insecure: bool,
    /// Set a variable for calls on other machines: as it is here, or to VALUE; nothing else of the environment travels
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<OsString>,
    /// How long a machine may be out of sight before its calls are given to others [default: 15s]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(super) lease: Option<Duration>,
    /// Do not run a call again that may have begun on a machine that was lost, unless by --retries
    #[arg(long)]
    pub(super) at_most_once: bool,
}

/// What a build without agents says.
#[cfg(not(feature = "agents"))]
pub(super) const WITHOUT: &str = "this coordinator was built without agents, and so can use no other machine: install it with \
                                  `cargo install --path coordinator --features agents`";

impl MachineArgs {
    /// The broker that was named, by an option or by a variable.
    pub(super) fn broker(&self) -> Option<String> {
        match &self.on {
            Some(_) => None,
            None => broker(self.nats.as_ref()),
        }
    }

    /// Whether other machines take part.
    pub(super) fn are_wanted(&self) -> bool {
        self.on.is_some() || self.broker().is_some()
    }
}

/// The broker that was named, by an option or by a variable.
pub(super) fn broker(named: Option<&String>) -> Option<String> {
    let set = || std::env::var("COORDINATOR_NATS").ok();
    let url = named.cloned().or_else(set);
    url.filter(|url| !url.is_empty())
}

/// The key that was named, by an option or by a variable.
#[cfg(feature = "agents")]
pub(super) fn key(named: Option<&PathBuf>) -> Option<PathBuf> {
    let set = || std::env::var_os("COORDINATOR_KEY").map(PathBuf::from);
    named.cloned().or_else(set)
}

/// Has a pool use the machines. `about` is what the run does.
#[cfg(feature = "agents")]
pub(super) fn apply(
    machines: &MachineArgs,
    builder: Builder,
    about: &str,
) -> Result<Builder, Trouble> {
    use coordinator::Agents;
    use std::os::unix::ffi::OsStrExt as _;

    let mut agents = match (&machines.on, machines.broker()) {
        (Some(hosts), _) => Agents::over_ssh(hosts_of(hosts)?),
        (None, Some(url)) => {
            let agents = Agents::at(url);
            match key(machines.key.as_ref()) {
                Some(path) => agents.key(path),
                None => agents,
            }
        }
        (None, None) => return Ok(builder),
    };
    if machines.insecure {
        agents = agents.insecure();
    }
    for variable in &machines.env {
        let bytes = variable.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let value = std::ffi::OsStr::from_bytes(&bytes[at + 1..]);
                (std::ffi::OsStr::from_bytes(&bytes[..at]), value.to_owned())
            }
            None => match std::env::var_os(variable) {
                Some(value) => (variable.as_os_str(), value),
                None => {
                    return Err(Trouble::Usage(format!(
                        "there is no variable {} to take along: set it, or give its value, as in --env NAME=VALUE",
                        variable.display()
                    )));
                }
            },
        };
        agents = agents.env(name, value);
    }
    let mut builder = builder.agents(agents.about(about));
    if let Some(lease) = machines.lease {
        builder = builder.lease(lease);
    }
    Ok(builder)
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
    _about: &str,
) -> Result<Builder, Trouble> {
    match machines.are_wanted() {
        true => Err(Trouble::Usage(WITHOUT.to_owned())),
        false => Ok(builder),
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
