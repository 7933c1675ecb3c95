//! The broker of one run: a `nats-server` that only this machine can reach, and that ends with this process.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use worker::private::path;
use worker::private::spawn::{Image, Spawn};

use super::hello::USER;
use crate::agents::broker::{Access, Credentials, PING};
use crate::os::{self, Beginning, WorkerProcess};

const PROGRAM: &str = "nats-server";
/// Where it may be besides PATH: some systems have these directories only in root's.
const BESIDES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];
/// How long it may take until it can be reached.
const START: Duration = Duration::from_secs(20);
/// The longest line of it that is looked at, in bytes.
const LINE: u64 = 4096;

/// A broker. Dropping it ends it. However this process ends, its end closes the broker's lifeline.
pub(super) struct Server {
    process: WorkerProcess,
    port: u16,
    password: String,
}

/// Where `nats-server` is. An error says how to get it.
pub(crate) fn find() -> Result<PathBuf, String> {
    let besides = || BESIDES.iter().map(|place| Path::new(place).join(PROGRAM));
    path::place_of(OsStr::new(PROGRAM)).or_else(|_| {
        besides().find(|path| path.is_file()).ok_or_else(|| {
            format!(
                "to use machines over ssh, `{PROGRAM}` is needed on this one, and it is not in PATH: `apt install \
                 {PROGRAM}`, or get it from https://nats.io (version 2.9 or later)"
            )
        })
    })
}

impl Server {
    /// Starts a broker, and waits until it can be reached.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let mut password = String::new();
        for byte in random {
            // A string takes whatever is written to it.
            let _ = write!(password, "{byte:02x}");
        }
        let config = config(&password)?;
        let (stderr, writer) = os::pipe()?;
        let image = Image::at(program)?;
        let place = format!("/proc/self/fd/{}", config.as_raw_fd());
        let words = [PROGRAM, "-c", &place];
        let words = words.iter().map(|word| word.as_bytes());
        let spawn = Spawn::new(&image, words, std::env::vars_os())?;
        let process = WorkerProcess::start(
            &spawn,
            &Beginning {
                directory: None,
                inherits: Some(config.as_fd()),
                stdout: os::nowhere()?,
                stderr: File::from(OwnedFd::from(writer)),
            },
        )?;
        // If it takes too long, the process is killed with this value.
        let port = port(stderr)?;
        Ok(Server {
            process,
            port,
            password,
        })
    }

    /// How this process comes to it.
    pub(super) fn access(&self) -> Access {
        Access {
            url: format!("nats://127.0.0.1:{}", self.port),
            credentials: Credentials::Password {
                user: USER.to_owned(),
                password: self.password.clone(),
            },
            inbox: "_INBOX_submit".to_owned(),
            ping: PING,
            insecure: false,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// Whether it has ended, though it should not have.
    pub(super) fn has_ended(&self) -> bool {
        self.process.wait(Some(Duration::ZERO))
    }
}

/// What the server is told. It is in memory that only this user can open: a file could be left behind, and arguments can be read
/// by everybody.
///
/// The agents' connections go through pipes that stand still when a machine can't be reached, or when this process is stopped.
/// Leases decide what follows from that, and not the broker.
fn config(password: &str) -> io::Result<File> {
    let text = format!(
        "listen: \"127.0.0.1:-1\"\nauthorization {{ user: {USER}, password: \"{password}\" }}\n\
         ping_interval: \"1h\"\nwrite_deadline: \"1h\"\n"
    );
    let file = os::shared_memory(text.len())?;
    file.write_all_at(text.as_bytes(), 0)?;
    Ok(file)
}

/// On which port the server says that it listens. What else it says is read, so that it need not wait, and is of no interest.
fn port(stderr: PipeReader) -> io::Result<u16> {
    let (found, port) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("nats-server".to_owned());
    thread.spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while let Ok(1..) = stderr.by_ref().take(LINE).read_until(b'\n', &mut line) {
            let said = String::from_utf8_lossy(&line).trim_end().to_owned();
            log::debug!("nats-server: {said}");
            // Nobody waits for it any more once the port is known.
            let _ = found.send(said);
            line.clear();
        }
    })?;
    let until = Instant::now() + START;
    let mut last = "it said nothing".to_owned();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(said) = port.recv_timeout(left) else {
            return Err(io::Error::other(format!(
                "the broker, {PROGRAM}, could not be started: {last}"
            )));
        };
        if let Some(port) = port_in(&said) {
            return Ok(port);
        }
        last = said;
    }
}

/// The port in `Listening for client connections on 127.0.0.1:41235`.
fn port_in(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit());
    let port = rest.get(..digits.unwrap_or(rest.len()))?.parse().ok()?;
    (port > 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_what_the_server_says() {
        let line = "[7] 2026/01/01 [INF] Listening for client connections on 127.0.0.1:41235";
        assert_eq!(port_in(line), Some(41235));
        assert_eq!(port_in("[INF] Starting nats-server"), None);
        assert_eq!(port_in("listen: 127.0.0.1:-1"), None);
    }
}
