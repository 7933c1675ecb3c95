//! Whom a worker is about to work for.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether a user may tell this process what to run: its own, and the one who may do everything anyway.
fn may(user: u32) -> bool {
    user == rustix::process::geteuid().as_raw() || user == 0
}

/// Looks at the place where a worker is to meet its coordinator, before it goes there: whether another user has made
/// it, or could make another in its place.
///
/// # Errors
///
/// Why it must not go there.
pub(crate) fn check_place(place: &Path) -> Result<(), String> {
    // One that is not there is told of by whoever goes there.
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

/// Looks at who listens at the other end, before it is told anything.
///
/// # Errors
///
/// It is another user's, or nobody knows whose.
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
