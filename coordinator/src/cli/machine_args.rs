//! The options that are about other machines.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Trouble;
use super::units::{self, JobCount};

/// How long a machine may be out of sight unless something else is said, and how much longer than calls have to end, at least.
const USUAL_LEASE: Duration = Duration::from_secs(15);
const BEYOND_GRACE: Duration = Duration::from_secs(10);

/// Which machines, and how they are reached.
#[derive(Debug, Clone, Args)]
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

impl MachineArgs {
    /// The broker that was named, by an option or by a variable.
    pub(super) fn broker(&self) -> Option<String> {
        match &self.on {
            Some(_) => None,
            None => broker(self.nats.as_ref()),
        }
    }

    /// Options that are for other machines make no sense without them.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        let option = match self {
            _ if self.are_wanted() => return Ok(()),
            MachineArgs { lease: Some(_), .. } => "--lease",
            MachineArgs { env, .. } if !env.is_empty() => "--env",
            MachineArgs {
                at_most_once: true, ..
            } => "--at-most-once",
            MachineArgs { key: Some(_), .. } => "--key",
            MachineArgs { insecure: true, .. } => "--insecure",
            MachineArgs { .. } => return Ok(()),
        };
        Err(Trouble::Usage(format!(
            "{option} is about other machines, and none is named: name some with --on or --nats, or leave it out"
        )))
    }

    /// How long a machine may be out of sight, where calls have this long to end: as the library has it, if nobody has said it.
    pub(super) fn lease(&self, grace: Duration) -> Duration {
        let usual = || USUAL_LEASE.max(grace.saturating_add(BEYOND_GRACE));
        self.lease.unwrap_or_else(usual)
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

/// The options of `agent`.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// The broker at which it waits for runs [env: COORDINATOR_NATS]
    #[arg(long, value_name = "URL")]
    pub(super) nats: Option<String>,
    /// The key that lets it in [env: COORDINATOR_KEY]
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// How many calls it runs at once [default: the processors this process may use]
    #[arg(short, long, value_name = "N|N%|-N", allow_hyphen_values = true, value_parser = units::jobs)]
    pub(super) jobs: Option<JobCount>,
    /// What it is called [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Take no further calls while the load is this or above: a number, or a share of the processors
    #[arg(long, value_name = "N|N%", value_parser = units::load)]
    pub(super) max_load: Option<f64>,
    /// Take no further calls while less memory is free
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub(super) min_free_memory: Option<u64>,
    /// Also wait at a broker that lets everybody in, or does not encrypt
    #[arg(long)]
    pub(super) insecure: bool,
    /// Serve one run, whose coordinator is at the other end of stdin and stdout
    #[arg(long, hide = true, exclusive = true)]
    pub(super) stdio: bool,
}

/// The options of `agents`.
#[derive(Debug, Args)]
pub(super) struct AgentsArgs {
    /// The broker at which agents wait [env: COORDINATOR_NATS]
    #[arg(long, value_name = "URL", conflicts_with = "new_keys")]
    pub(super) nats: Option<String>,
    /// The key to look or to submit [env: COORDINATOR_KEY]
    #[arg(long, value_name = "FILE", conflicts_with = "new_keys")]
    pub(super) key: Option<PathBuf>,
    /// Also a broker that lets all in, or does not encrypt
    #[arg(long, conflicts_with = "new_keys")]
    pub(super) insecure: bool,
    /// Print one JSON object for each agent
    #[arg(long, conflicts_with = "new_keys")]
    pub(super) json: bool,
    /// Make a broker's configuration and all keys, in DIR
    #[arg(long, value_name = "DIR")]
    pub(super) new_keys: Option<PathBuf>,
    /// A key for each of these agents, not one for all
    #[arg(long, value_name = "NAME", requires = "new_keys", num_args = 1.., value_delimiter = ',')]
    pub(super) each: Vec<String>,
    /// A further name or address of the broker
    #[arg(long, value_name = "HOST", requires = "new_keys", num_args = 1.., value_delimiter = ',')]
    pub(super) host: Vec<String>,
}
