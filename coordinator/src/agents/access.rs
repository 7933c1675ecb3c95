//! Where the agents of a pool are, and how they are reached.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use worker::private::{image, path};

use super::broker::{Access, Credentials, PING};
use super::ssh::crew::Plan;
use super::ssh::hosts;
use super::subjects;
use crate::error::PoolError;

/// How long a machine may be out of sight, unless that is said.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// How much longer than the grace a lease must be.
const LEAST_BEYOND_GRACE: Duration = Duration::from_secs(3);

/// The agents of a pool: machines that run calls of it besides this one.
///
/// ```no_run
/// # use coordinator::{Agents, Pool};
/// let pool = Pool::builder()
///     .workers(8)
///     .agents(Agents::at("tls://hub").key("submit.key"))
///     .build()?;
/// for agent in pool.agents() {
///     println!("{} runs {} of {}", agent.name, agent.busy, agent.slots);
/// }
/// # Ok::<(), coordinator::PoolError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "agents are told to Builder::agents()"]
pub struct Agents {
    pub(crate) way: Way,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) about: Option<String>,
    pub(crate) is_apart: bool,
    /// What the run is called.
    pub(crate) run: Option<String>,
}

/// How agents are reached.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// By a broker that stands already.
    Broker {
        url: String,
        key: Option<PathBuf>,
        insecure: bool,
    },
    /// By ssh, with a broker of this run.
    Ssh {
        hosts: Vec<String>,
        /// This program is `coordinator`, and not another one that uses the library.
        is_coordinator: bool,
    },
}

impl Agents {
    /// Agents that have been started as services, and wait at this broker, a `nats-server`: `tls://hub`, or
    /// `nats://127.0.0.1:4222`.
    ///
    /// See [`Agents`] for an example.
    pub fn at(url: impl Into<String>) -> Self {
        Self::by(Way::Broker {
            url: url.into(),
            key: None,
            insecure: false,
        })
    }

    /// Machines that this user reaches by ssh without a question: `HOST`, `HOST:SLOTS`, `USER@HOST:SLOTS`, or an address in
    /// brackets, `[2001:db8::7]:8`. Nothing has to be prepared there. The program `coordinator` is copied once, to
    /// `~/.cache/coordinator`, and runs there for as long as the pool lives.
    ///
    /// On this machine `nats-server` has to be installed (version 2.9 or later), and `coordinator`, with agents and of this
    /// version, beside this program or in PATH. Set the variable `COORDINATOR_SSH` to use another program than `ssh`.
    ///
    /// A machine that can't be reached is left out, and [`Pool::take_agent_news`](crate::Pool::take_agent_news) says why. A pool
    /// that has no worker here fails when no machine is left.
    ///
    /// ```no_run
    /// # use coordinator::{Agents, Pool};
    /// let pool = Pool::builder().agents(Agents::over_ssh(["box2", "box3:16"])).build()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn over_ssh(hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::by(Way::Ssh {
            hosts: hosts.into_iter().map(Into::into).collect(),
            is_coordinator: false,
        })
    }

    /// What is copied to machines that are reached by ssh is this program itself. For the command line alone.
    #[doc(hidden)]
    pub fn by_this_program(mut self) -> Self {
        if let Way::Ssh { is_coordinator, .. } = &mut self.way {
            *is_coordinator = true;
        }
        self
    }

    fn by(way: Way) -> Self {
        Agents {
            way,
            variables: Vec::new(),
            about: None,
            is_apart: false,
            run: None,
        }
    }

    /// The key that lets this user submit, as `coordinator agents --new-keys` writes it.
    ///
    /// See [`Agents`] for an example.
    pub fn key(mut self, path: impl Into<PathBuf>) -> Self {
        if let Way::Broker { key, .. } = &mut self.way {
            *key = Some(path.into());
        }
        self
    }

    /// Also takes a broker that lets everybody in, or does not encrypt. Whoever can reach it can run anything on all machines
    /// that it connects.
    ///
    /// ```no_run
    /// # use coordinator::Agents;
    /// let agents = Agents::at("nats://10.0.0.7").insecure();
    /// ```
    pub fn insecure(mut self) -> Self {
        if let Way::Broker { insecure, .. } = &mut self.way {
            *insecure = true;
        }
        self
    }

    /// Sets a variable for the workers of agents. Nothing else of this program's environment travels.
    ///
    /// ```no_run
    /// # use coordinator::Agents;
    /// let agents = Agents::at("tls://hub").key("submit.key").env("LANG", "C");
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Each call has a directory of its own on other machines, with the [`Files`](crate::Files) that go along with it. Without
    /// this, calls run in the directory of the same name as this program's.
    ///
    /// ```no_run
    /// # use coordinator::Agents;
    /// let agents = Agents::over_ssh(["box2"]).apart();
    /// ```
    pub fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// What the run is about, for those who look at the agents.
    ///
    /// ```no_run
    /// # use coordinator::Agents;
    /// let agents = Agents::at("tls://hub").key("submit.key").about("thumbnails of 2026");
    /// ```
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = Some(about.into());
        self
    }
}

/// How agents are reached, once all that is needed for that was found.
#[derive(Debug)]
pub(crate) enum Reach {
    Broker(Access),
    Ssh(Plan),
}

/// What a pool has to know of its agents.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) agents: Agents,
    pub(crate) reach: Reach,
    pub(crate) lease: Duration,
    /// Where the workers run.
    pub(crate) directory: PathBuf,
}

impl Wanted {
    pub(crate) fn new(
        agents: &Agents,
        lease: Option<Duration>,
        grace: Duration,
    ) -> Result<Self, PoolError> {
        let least = grace.saturating_add(LEAST_BEYOND_GRACE);
        let lease = match lease {
            Some(lease) if lease < least => {
                return Err(PoolError::Setting(format!(
                    "a lease of {lease:?} is too short: an agent that is cut off needs the grace ({grace:?}) to end its \
                     calls, and 3 s besides: use {least:?} or more"
                )));
            }
            Some(lease) => lease,
            None => LEASE.max(grace.saturating_add(Duration::from_secs(10))),
        };
        let reach = match &agents.way {
            Way::Broker { url, key, insecure } => {
                Reach::Broker(access(url, key.as_deref(), *insecure, "submit")?)
            }
            Way::Ssh {
                hosts,
                is_coordinator,
            } => {
                let hosts = hosts::read(hosts).map_err(PoolError::Setting)?;
                let plan = Plan::new(hosts, program(*is_coordinator)?);
                Reach::Ssh(plan.map_err(PoolError::System)?)
            }
        };
        let directory = std::env::current_dir().map_err(|error| {
            PoolError::System(format!(
                "agents run calls in the directory of this program, and it has none: {error}"
            ))
        })?;
        Ok(Wanted {
            agents: agents.clone(),
            reach,
            lease,
            directory,
        })
    }
}

/// The program that becomes an agent on machines that are reached by ssh.
fn program(is_this: bool) -> Result<File, PoolError> {
    const NAME: &str = "coordinator";
    let found = match is_this {
        true => image::file().map(|(file, _)| file),
        false => {
            let this = std::env::current_exe().unwrap_or_default();
            let beside = this.with_file_name(NAME);
            let is_other = beside.is_file() && beside != this;
            match is_other {
                true => File::open(beside),
                false => path::place_of(OsStr::new(NAME)).and_then(File::open),
            }
        }
    };
    found.map_err(|error| {
        PoolError::System(format!(
            "the program `{NAME}`, which is copied to machines that are reached by ssh, is neither beside this program nor \
             in PATH ({error}): install it with `cargo install --locked --path coordinator --features agents`"
        ))
    })
}

/// A broker that stands already, and who one is there. `role` is who, if the key does not say.
pub(crate) fn access(
    url: &str,
    key: Option<&Path>,
    insecure: bool,
    role: &str,
) -> Result<Access, PoolError> {
    let (url, named) = take_user(url);
    let (credentials, user) = match (key, named) {
        (Some(path), _) => {
            let key = read_key(path)?;
            let credentials = Credentials::Key {
                seed: key.seed,
                trusts: key.has_certificate.then(|| path.to_owned()),
            };
            (credentials, key.user)
        }
        (None, Some((user, password))) => {
            let credentials = Credentials::Password {
                user: user.clone(),
                password,
            };
            (credentials, Some(subjects::as_name(&user)))
        }
        (None, None) => (Credentials::None, None),
    };
    Ok(Access {
        url,
        credentials,
        inbox: subjects::inbox(user.as_deref().unwrap_or(role)),
        ping: PING,
        insecure,
    })
}

/// Takes a user and a password out of a URL, `nats://ann:secret@hub`, so that it can be shown.
fn take_user(url: &str) -> (String, Option<(String, String)>) {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let named = rest
        .rsplit_once('@')
        .and_then(|(named, host)| Some((named.split_once(':')?, host)));
    match named {
        Some(((user, password), host)) => (
            format!("{scheme}{host}"),
            Some((user.to_owned(), password.to_owned())),
        ),
        None => (url.to_owned(), None),
    }
}

/// Whose a key is, if it is that of one agent alone.
pub(crate) fn agent_of(key: Option<&Path>) -> Result<Option<String>, PoolError> {
    key.map_or(Ok(None), |path| read_key(path).map(|key| key.agent))
}

/// A key, and whose it is.
struct Key {
    seed: String,
    user: Option<String>,
    /// The only agent that it lets in.
    agent: Option<String>,
    /// The file also has the certificates that a broker may prove itself by.
    has_certificate: bool,
}

fn read_key(path: &Path) -> Result<Key, PoolError> {
    let wrong = |why: String| PoolError::Setting(format!("the key {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong(
            "there is no such file: `coordinator agents --new-keys DIR` makes keys on the broker's machine, and each machine \
             needs a copy of its own"
                .to_owned(),
        ),
        _ => wrong(error.to_string()),
    })?;
    let mut key = Key {
        seed: String::new(),
        user: None,
        agent: None,
        has_certificate: false,
    };
    for line in text.lines().map(str::trim) {
        match line.split_once(':') {
            // Certificates come last. A line of one may look like a key.
            _ if line.starts_with("-----BEGIN") => {
                key.has_certificate = true;
                break;
            }
            Some(("user", user)) => key.user = Some(subjects::as_name(user.trim())),
            Some(("agent", agent)) => key.agent = Some(subjects::as_name(agent.trim())),
            None if line.starts_with("SU") => key.seed = line.to_owned(),
            _ => {}
        }
    }
    match key.seed.is_empty() {
        true => Err(wrong(
            "there is none in it: a key is a line that begins with SU, as `coordinator agents --new-keys` writes it"
                .to_owned(),
        )),
        false => Ok(key),
    }
}
