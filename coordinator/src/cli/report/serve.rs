//! `report --live`: serves the page of a log that grows, until this program is ended.
//!
//! Only this machine can reach the server, and only who knows the address, whose path is a secret, gets the page: a log may
//! hold what other users of the machine must not see.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::page::{self, Live};
use super::read_log;
use super::timeline::Timeline;

/// How many requests are answered at once. A browser opens connections on suspicion, and lets them wait.
const THREADS: usize = 8;
/// How long a client may take to say what it wants, or to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request, in bytes.
const REQUEST: usize = 16 << 10;
/// How often a page asks for news, at most.
const PAUSE: Duration = Duration::from_secs(2);

/// A log and its latest page.
pub(super) struct Server {
    listener: TcpListener,
    /// The secret part of the address.
    secret: String,
    log: PathBuf,
    title: String,
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    state: String,
    page: Vec<u8>,
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Vec<u8>,
}

impl Server {
    /// Listens on the loopback interface, on a port that is free.
    pub(super) fn new(log: &Path, title: String) -> io::Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let secret = random.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Server {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            secret,
            log: log.to_owned(),
            title,
            latest: Mutex::default(),
        })
    }

    /// The address of the page.
    pub(super) fn address(&self) -> io::Result<String> {
        Ok(format!(
            "http://{}/{}/",
            self.listener.local_addr()?,
            self.secret
        ))
    }

    /// Answers requests, for ever.
    pub(super) fn run(&self) {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for client in self.listener.incoming() {
                        match client {
                            // A client that goes away misses its answer, and nobody else does.
                            Ok(client) => _ = self.serve(client),
                            // Too many open files, most likely. They may become fewer.
                            Err(_) => thread::sleep(PAUSE),
                        }
                    }
                });
            }
        });
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_write_timeout(Some(PATIENCE))?;
        let request = read_request(&mut client)?;
        let Answer { status, kind, body } = self.answer(&request);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes())?;
        if !request.starts_with(b"HEAD ") {
            client.write_all(&body)?;
        }
        client.flush()
    }

    fn answer(&self, request: &[u8]) -> Answer {
        let text = |status, body: &str| Answer {
            status,
            kind: "text/plain",
            body: body.as_bytes().to_vec(),
        };
        let line = request
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [b"GET" | b"HEAD", path, _] = words[..] else {
            return text("405 Method Not Allowed", "only GET and HEAD\n");
        };
        let ours = path
            .strip_prefix(b"/")
            .and_then(|path| path.strip_prefix(self.secret.as_bytes()));
        match ours {
            Some(b"/") => match self.page() {
                Ok(body) => Answer {
                    status: "200 OK",
                    kind: "text/html",
                    body,
                },
                Err(error) => text(
                    "500 Internal Server Error",
                    &format!("the log can't be read: {error}\n"),
                ),
            },
            Some(b"/state") => text("200 OK", &state(&self.log)),
            _ => text(
                "404 Not Found",
                "there is nothing here; the address has to be whole\n",
            ),
        }
    }

    /// The page of the log as it is now.
    fn page(&self) -> io::Result<Vec<u8>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state(&self.log);
        if latest.state != state || latest.page.is_empty() {
            let began = Instant::now();
            let log = read_log(File::open(&self.log)?, &self.log)?;
            let timeline = Timeline::new(log);
            let live = Live {
                state: state.clone(),
                // A long log takes a while to read, and reading it must not be all that this machine does.
                pause: PAUSE.max(began.elapsed() * 10),
            };
            let mut page = Vec::new();
            page::write(&mut page, &self.title, &timeline, Some(&live))?;
            *latest = Latest { state, page };
        }
        Ok(latest.page.clone())
    }
}

/// A text that changes when the log does.
fn state(log: &Path) -> String {
    let found = log.metadata().and_then(|found| {
        let changed = found
            .modified()?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(format!("{}-{}", found.len(), changed.as_nanos()))
    });
    found.unwrap_or_else(|_| "gone".to_owned())
}

/// Reads a request up to the end of its head, which has to come soon: a client that sends a byte now and then must not keep a
/// thread. What comes behind the head does not matter.
fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut block = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        match client.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if request.len() > REQUEST => return Err(io::ErrorKind::InvalidData.into()),
            count => request.extend_from_slice(&block[..count]),
        }
    }
    Ok(request)
}
