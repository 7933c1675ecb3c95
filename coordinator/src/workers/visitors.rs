//! Who has connected to a slot's meeting place, until one of them speaks.
//!
//! Whoever connects and says nothing must not keep others waiting: a worker that is started by hand may come at any time.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use interprocess::local_socket::Listener;
use interprocess::local_socket::traits::{Stream as _, StreamCommon as _};
use protocol::handshake::HandshakeError;
use protocol::link::{self, Socket};

use super::socket::{Patience, SLICE};
use crate::os::{self, WorkerProcess};

/// How long a worker that was started has until it connects.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long a visitor that has connected has to introduce itself.
pub(crate) const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// How many visitors may wait to speak. When another one comes, the visitor that has waited longest is sent away.
const MOST: usize = 64;

/// Somebody who has connected.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) stream: Socket,
    /// Its process, if the system tells.
    pub(crate) pid: Option<u32>,
    /// For how long it may go on without saying who it is.
    pub(crate) patience: Patience,
}

/// Those who have connected to a meeting place and said nothing yet.
#[derive(Debug)]
pub(crate) struct Visitors<'p> {
    listener: &'p Listener,
    slot: u32,
    /// The worker that was started, if one was: nobody else is let in.
    process: Option<&'p WorkerProcess>,
    /// For how long it may not connect.
    patience: Option<Patience>,
    waiting: Vec<Visitor>,
}

impl<'p> Visitors<'p> {
    pub(crate) fn new(
        listener: &'p Listener,
        slot: u32,
        process: Option<&'p WorkerProcess>,
    ) -> Self {
        Visitors {
            listener,
            slot,
            process,
            patience: process.map(|_| Patience::new(CONNECT_LIMIT)),
            waiting: Vec::new(),
        }
    }

    /// The next one who speaks, or who has waited too long; or why there will be none.
    pub(crate) fn next(&mut self, stop: &impl AsFd) -> Result<Visitor, String> {
        loop {
            let mut fds = vec![os::listener_fd(self.listener), stop.as_fd()];
            fds.extend(self.process.map(AsFd::as_fd));
            let others = fds.len();
            fds.extend(self.waiting.iter().map(|it| os::socket_fd(&it.stream)));
            let readable = match (&mut self.patience, &self.waiting[..]) {
                (Some(patience), []) => patience.wait(&fds).ok_or_else(|| {
                    format!("it did not connect within {CONNECT_LIMIT:?}; is it a worker?")
                })?,
                (None, []) => os::wait_readable(&fds, None),
                (_, _) => os::wait_readable(&fds, Some(SLICE)),
            };
            if !readable.contains(&true)
                && let Some(silent) = self.wait_less()
            {
                return Ok(silent);
            }
            if let Some(speaks) = readable[others..].iter().position(|speaks| *speaks) {
                return Ok(self.waiting.remove(speaks));
            }
            if readable[0] {
                self.receive();
            } else if readable[1] {
                return Err("the pool ended before it was ready".to_owned());
            } else if let (true, Some(process)) = (readable[2..].contains(&true), self.process) {
                return Err(format!("it {} before it was ready", process.reap()));
            }
        }
    }

    /// Takes one connection. Strangers are turned away.
    fn receive(&mut self) {
        match accept(self.listener, self.process) {
            Ok(visitor) => self.waiting.push(visitor),
            Err(stranger) => turned_away(self.slot, &stranger),
        }
        if self.waiting.len() > MOST {
            self.waiting.remove(0);
        }
    }

    /// Nobody has spoken, so this is the visitor that has waited too long.
    fn wait_less(&mut self) -> Option<Visitor> {
        let mut all = self.waiting.iter_mut();
        let silent = all.position(|visitor| !visitor.patience.wait_less(SLICE))?;
        Some(self.waiting.remove(silent))
    }
}

/// Says that somebody was not let in. It costs no more than that.
pub(crate) fn turned_away(slot: u32, error: &HandshakeError) {
    log::warn!("slot {slot}: a process that connected was turned away: {error}");
}

/// Takes one connection, and checks whose it is: that of the right user, and of the process that was
/// started, if one was.
fn accept(listener: &Listener, process: Option<&WorkerProcess>) -> Result<Visitor, HandshakeError> {
    let stream = os::accept(listener).map_err(broken)?;
    // On some systems a connection is non-blocking because its listener is.
    stream.set_nonblocking(false).map_err(broken)?;
    let peer = stream.peer_creds().map_err(broken)?;
    let peer_pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    if peer.euid().is_some_and(|user| user != os::effective_user()) {
        return Err(HandshakeError::Refused(
            "it belongs to another user".to_owned(),
        ));
    }
    match (process, peer_pid) {
        (Some(process), Some(pid)) if process.pid() != pid => {
            Err(HandshakeError::Refused(format!(
                "it is process {pid}, where process {} was started",
                process.pid()
            )))
        }
        _ => Ok(Visitor {
            stream,
            pid: peer_pid,
            patience: Patience::new(GREETING_LIMIT),
        }),
    }
}

pub(crate) fn broken(error: io::Error) -> HandshakeError {
    HandshakeError::Link(link::LinkError::Broken(error))
}
