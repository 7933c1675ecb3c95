//! Checks who the coordinator is that a worker is about to obey.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether a user may tell this process what to run: the process's own user, and root, who may do anything anyway.
fn may(user: u32) -> bool {
    user == rustix::process::geteuid().as_raw() || user == 0
}

/// Checks the directory of the coordinator's socket before the worker connects: no other user may have made it, or be
/// able to replace it.
///
/// # Errors
///
/// Why the worker must not connect.
pub(crate) fn check_place(place: &Path) -> Result<(), String> {
    // If the directory does not exist, connecting will say so.
    let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|there| there.uid());
    let directory = place.parent().filter(|path| !path.as_os_str().is_empty());
    for path in [Some(place), directory].into_iter().flatten() {
        if let Some(user) = owner(path).filter(|user| !may(*user)) {
            return Err(format!(
                "{} belongs to user {user}, and a worker runs what it is sent: only the coordinator of its own user may \
                 send it something; if that has ended, another user has put something else in its place",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Checks the user of the listening process, before the worker sends anything.
///
/// # Errors
///
/// The listener belongs to another user, or the system does not tell.
pub(crate) fn check_peer(socket: impl AsFd) -> Result<(), String> {
    let peer = rustix::net::sockopt::socket_peercred(socket)
        .map_err(|error| format!("nobody can say who listens there: {error}"))?;
    match may(peer.uid.as_raw()) {
        true => Ok(()),
        false => Err(format!(
            "user {} listens there, and a worker runs what it is sent: only the coordinator of its own user may send it \
             something",
            peer.uid.as_raw()
        )),
    }
}
