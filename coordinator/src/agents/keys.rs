//! Keys for a broker's users, and the configuration that lets each do what it needs and no more.
//!
//! An agent runs what submitters send. So all depends on who may publish what: see `rights_of`.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use rcgen::{CertificateParams, DistinguishedName, DnType};

use super::subjects;
use crate::error::PoolError;

/// The users that there always are.
const SUBMIT: &str = "submit";
const LOOK: &str = "look";
/// The user of all agents that have no key of their own.
const AGENT: &str = "agent";

/// Keys for a new broker: who may submit, who may be an agent, who may look at agents.
///
/// ```no_run
/// # use coordinator::NewKeys;
/// let written = NewKeys::in_directory("/etc/coordinator").host("hub.example.org").write()?;
/// println!("start: nats-server -c {}", written[0].display());
/// # Ok::<(), coordinator::PoolError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "no keys are made until write() is called"]
pub struct NewKeys {
    directory: PathBuf,
    agents: Vec<String>,
    hosts: Vec<String>,
}

impl NewKeys {
    /// Keys that will be in this directory, which is made for them if there is none.
    ///
    /// See [`NewKeys`] for an example.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        NewKeys {
            directory: directory.into(),
            agents: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// A key for the agent of this name alone, `NAME.key`. Without any there is one for all agents, who then can read and
    /// answer for each other.
    ///
    /// ```no_run
    /// # use coordinator::NewKeys;
    /// NewKeys::in_directory("/etc/coordinator").agent("node1").agent("node2").write()?;
    /// # Ok::<(), coordinator::PoolError>(())
    /// ```
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.agents.push(name.into());
        self
    }

    /// A name or an address by which the broker is reached, besides this machine's name and `localhost`: its certificate
    /// holds for these alone.
    ///
    /// See [`NewKeys`] for an example.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Makes the keys and writes all files, or none. Returns their paths: the broker's configuration `nats.conf` comes first,
    /// then its certificate and the key of that, then the users' keys.
    ///
    /// # Errors
    ///
    /// One of the files is there already, can't be written, or a name can't be one.
    ///
    /// See [`NewKeys`] for an example.
    pub fn write(&self) -> Result<Vec<PathBuf>, PoolError> {
        let users = self.users()?;
        let certificate = certificate(&self.hosts)?;
        let made = make_directory(&self.directory)?;
        let mut written = Written {
            directory: made.then(|| self.directory.clone()),
            files: Vec::new(),
        };
        let directory = fs::canonicalize(&self.directory)
            .map_err(|error| cannot_write(&self.directory, &error))?;
        let config = config(&directory, &users)?;
        written.add(directory.join("nats.conf"), 0o644, &config)?;
        written.add(directory.join("cert.pem"), 0o644, &certificate.pem)?;
        written.add(directory.join("key.pem"), 0o600, &certificate.key)?;
        for user in &users {
            let path = directory.join(format!("{}.key", user.name));
            written.add(path, 0o600, &user.file(&certificate.pem)?)?;
        }
        Ok(written.keep())
    }

    fn users(&self) -> Result<Vec<User>, PoolError> {
        let mut users = vec![
            User::new(SUBMIT, Role::Submitter),
            User::new(LOOK, Role::Looker),
        ];
        if self.agents.is_empty() {
            users.push(User::new(AGENT, Role::AnyAgent));
        }
        for name in &self.agents {
            let is_taken = name == AGENT || users.iter().any(|user| user.name == *name);
            let why = match subjects::as_name(name) == *name {
                false => "letters, digits, - and _ can be in it",
                true if is_taken => "that is taken: choose another",
                true => {
                    users.push(User::new(name, Role::Agent));
                    continue;
                }
            };
            return Err(PoolError::Setting(format!(
                "an agent can't be named `{name}`: {why}"
            )));
        }
        Ok(users)
    }
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Submitter,
    Looker,
    /// Whichever agent has the key.
    AnyAgent,
    /// The agent that is named as the user is.
    Agent,
}

struct User {
    name: String,
    role: Role,
    key: KeyPair,
}

/// What a user may do: subjects, which may have wildcards.
struct Rights {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl User {
    fn new(name: &str, role: Role) -> Self {
        User {
            name: name.to_owned(),
            role,
            key: KeyPair::new_user(),
        }
    }

    /// The least that works. Each rule of it keeps somebody from telling agents what to run, or from reading what is not theirs:
    /// a test tries them all.
    fn rights(&self) -> Rights {
        let inbox = |user: &str| format!("{}.>", subjects::inbox(user));
        let agent = match self.role {
            Role::Agent => self.name.as_str(),
            _ => "*",
        };
        let (publish, mut subscribe) = match self.role {
            Role::Submitter => (
                vec![
                    subjects::call(),
                    subjects::agents(),
                    subjects::all("*"),
                    subjects::down("*", "*"),
                ],
                vec![subjects::up("*", "*")],
            ),
            Role::Looker => (vec![subjects::agents()], Vec::new()),
            // Not `allow_responses`: whoever may look could ask for an answer to `call`, and an accomplice with an agent's key
            // would then be allowed to answer there, and so to tell all agents what to run.
            Role::AnyAgent | Role::Agent => (
                vec![subjects::up("*", agent), inbox(LOOK), inbox(SUBMIT)],
                vec![
                    subjects::call(),
                    subjects::agents(),
                    subjects::all("*"),
                    subjects::down("*", agent),
                ],
            ),
        };
        subscribe.push(inbox(&self.name));
        Rights { publish, subscribe }
    }

    /// The file with the secret half of the key, and how the broker proves itself.
    fn file(&self, certificate: &str) -> Result<String, PoolError> {
        let seed = self.key.seed().map_err(|error| cannot_make(&error))?;
        let name = &self.name;
        let agent = match self.role {
            Role::Agent => format!("agent: {name}\n"),
            _ => String::new(),
        };
        Ok(format!(
            "# {}. Keep it secret.\nuser: {name}\n{agent}{seed}\n\
             # The broker's certificate. Remove it if the broker has one that all systems trust.\n{certificate}",
            match self.role {
                Role::Submitter => "Whoever has this key can run anything on all agents",
                Role::Looker => "Whoever has this key can see what agents do",
                Role::AnyAgent => "Whoever has this key gets calls as any agent",
                Role::Agent => "Whoever has this key gets calls as this agent",
            }
        ))
    }
}

/// How the broker proves itself.
struct Certificate {
    pem: String,
    key: String,
}

/// A certificate that its clients have beside their key, so that nobody else has to vouch for it. It does not end: new keys
/// replace it.
fn certificate(hosts: &[String]) -> Result<Certificate, PoolError> {
    let own = rustix::system::uname();
    let own = own.nodename().to_string_lossy().into_owned();
    let known = [own.as_str(), "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut all: Vec<String> = hosts.iter().cloned().chain(known).collect();
    all.retain(|host| !host.is_empty());
    let mut parameters = CertificateParams::new(all).map_err(|error| {
        PoolError::Setting(format!("a certificate can't hold for these hosts: {error}"))
    })?;
    parameters.distinguished_name = DistinguishedName::new();
    let name = "broker of coordinator";
    parameters.distinguished_name.push(DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().map_err(|error| cannot_make(&error))?;
    let certificate = parameters
        .self_signed(&key)
        .map_err(|error| cannot_make(&error))?;
    Ok(Certificate {
        pem: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn cannot_make(error: &dyn std::error::Error) -> PoolError {
    PoolError::System(format!("a key can't be made: {error}"))
}

/// The broker's configuration.
fn config(directory: &Path, users: &[User]) -> Result<String, PoolError> {
    let certificate = quoted(&directory.join("cert.pem"))?;
    let key = quoted(&directory.join("key.pem"))?;
    let mut text = format!(
        "# For nats-server, as `coordinator agents --new-keys` has written it. It has no secrets.\n\
         listen: \"0.0.0.0:4222\"\n\
         tls {{\n  cert_file: {certificate}\n  key_file: {key}\n  timeout: 5\n}}\n\
         authorization {{\n  users: [\n"
    );
    let list = |subjects: &[String]| -> String {
        let quoted: Vec<String> = subjects
            .iter()
            .map(|subject| format!("\"{subject}\""))
            .collect();
        format!("[{}]", quoted.join(", "))
    };
    for user in users {
        let rights = user.rights();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "    # {}.key\n    {{\n      nkey: {}\n      permissions: {{\n        publish: {}\n        subscribe: {}\n      }}\n    }}\n",
            user.name,
            user.key.public_key(),
            list(&rights.publish),
            list(&rights.subscribe),
        );
    }
    text.push_str("  ]\n}\n");
    Ok(text)
}

/// A path as nats-server reads it. It takes others as seen from where it was started.
fn quoted(path: &Path) -> Result<String, PoolError> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    let text = text.ok_or_else(|| {
        PoolError::Setting(format!(
            "nats-server can't be told of {}: choose a directory whose name is plain text",
            path.display()
        ))
    })?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}

/// Makes a directory that only this user can enter. Returns `false` if there is one.
fn make_directory(directory: &Path) -> Result<bool, PoolError> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(true),
        Err(_) if directory.is_dir() => Ok(false),
        Err(error) => Err(cannot_write(directory, &error)),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> PoolError {
    let what = path.display();
    match error.kind() {
        io::ErrorKind::AlreadyExists => PoolError::Setting(format!(
            "{what} is there already, and keys are not overwritten: move it away, or choose another directory"
        )),
        _ => PoolError::System(format!("{what} can't be written: {error}")),
    }
}

/// Files that are removed again unless all could be written.
struct Written {
    /// The directory, if it was made for them.
    directory: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Written {
    fn add(&mut self, path: PathBuf, mode: u32, text: &str) -> Result<(), PoolError> {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(mode).open(&path);
        let mut file = opened.map_err(|error| cannot_write(&path, &error))?;
        self.files.push(path.clone());
        let wrote = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        wrote.map_err(|error| cannot_write(&path, &error))
    }

    fn keep(mut self) -> Vec<PathBuf> {
        self.directory = None;
        std::mem::take(&mut self.files)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for file in &self.files {
            // What can't be removed is in the way of the next attempt, which will say so.
            let _ = fs::remove_file(file);
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::super::access;
    use super::super::broker::Credentials;
    use super::*;

    #[test]
    fn keys_are_written_whole_secret_and_never_over_others() {
        let outer = TempDir::new().unwrap();
        let directory = outer.path().join("keys \"of\" 2026");
        let keys = NewKeys::in_directory(&directory).host("hub.example.org");
        let written = keys.write().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        let names = [
            "nats.conf",
            "cert.pem",
            "key.pem",
            "submit.key",
            "look.key",
            "agent.key",
        ];
        let directory = directory.canonicalize().unwrap();
        assert_eq!(written, names.map(|name| directory.join(name)));
        for path in &written[2..] {
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
        let config = fs::read_to_string(&written[0]).unwrap();
        let key = |name: &str| {
            let path = directory.join(name);
            access::access("tls://hub", Some(&path), false, "x").unwrap()
        };
        assert_eq!(key("submit.key").inbox, "_INBOX_submit");
        let Credentials::Key { seed, trusts } = key("agent.key").credentials else {
            panic!("no key");
        };
        // The broker knows the public half alone.
        assert!(!config.contains(&seed), "{config}");
        let public = KeyPair::from_seed(&seed).unwrap().public_key();
        assert!(config.contains(&public), "{config}");
        assert_eq!(trusts, Some(directory.join("agent.key")));

        fs::remove_file(&written[5]).unwrap();
        let error = keys.write().unwrap_err().to_string();
        assert!(error.contains("nats.conf is there already"), "{error}");
        fs::remove_file(&written[0]).unwrap();
        let error = keys.write().unwrap_err().to_string();
        assert!(error.contains("cert.pem is there already"), "{error}");
        // What the attempt had written before is gone, and what was there is not.
        assert!(!written[0].exists() && written[1].exists());
    }

    #[test]
    fn an_agent_with_a_key_of_its_own_has_a_name_that_can_stand_in_a_subject() {
        let outer = TempDir::new().unwrap();
        let directory = outer.path().join("keys");
        for name in ["a.b", "*", ">", "", "../x", "submit", "agent", "look"] {
            let keys = NewKeys::in_directory(&directory).agent(name);
            assert!(keys.write().is_err(), "{name}");
            assert!(!directory.exists());
        }
        let keys = NewKeys::in_directory(&directory);
        assert!(keys.clone().agent("a").agent("a").write().is_err());
        let keys = keys.agent("a").agent("b-1");
        keys.write().unwrap();
        assert!(!directory.join("agent.key").exists());
        let path = directory.join("b-1.key");
        assert_eq!(access::agent_of(Some(&path)).unwrap().unwrap(), "b-1");
    }
}
