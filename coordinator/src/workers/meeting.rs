//! The place where a coordinator and its workers meet: a socket that only they find.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use interprocess::local_socket::Listener;
use protocol::handshake::Token;

use crate::os;

/// Where a coordinator and a worker meet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct MeetingPlace {
    pub(super) listener: Listener,
    pub(super) name: PathBuf,
    /// `None` once nothing of it is left to be seen.
    pub(super) directory: Option<Directory>,
    /// What `name` stands for then, in a process that inherits it.
    pub(super) door: Option<OwnedFd>,
    /// Whose it is: who may connect.
    pub(super) user: u32,
    pub(super) token: Token,
}

/// What the socket is called.
pub(super) const SOCKET: &str = "link";

/// A directory that holds at most a socket. It can be removed without a descriptor to spare.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What can't be removed stays.
        let _ = std::fs::remove_file(self.0.join(SOCKET));
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl MeetingPlace {
    /// One that can be seen until it is dropped. Somebody hears of its directory before that is there.
    pub(super) fn visible(announce: impl Fn(&Path)) -> io::Result<Self> {
        let directory = Directory(os::private_directory(announce)?);
        let name = directory.0.join(SOCKET);
        let listener = os::listen(&name)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(MeetingPlace {
            listener,
            name,
            directory: Some(directory),
            door: None,
            user: os::effective_user(),
            token: Token::from_random(random),
        })
    }

    /// One that can't be seen: a worker that this process starts inherits a way in.
    pub(super) fn hidden() -> io::Result<Self> {
        let mut place = Self::visible(|_| ())?;
        if let Some((door, name)) = os::door(&place.name) {
            place.door = Some(door);
            // What can't be removed now is removed later.
            let _ = std::fs::remove_file(&place.name);
            place.directory = None;
            place.name = name;
        }
        Ok(place)
    }
}
