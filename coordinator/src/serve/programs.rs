//! Programs that runs have brought along, by their content.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::agent::Bulk;

use super::life;
use crate::agents::bulk::{self, Fetched};

/// How much all of them may have, in bytes. The oldest go first.
const MOST: u64 = 2 << 30;

/// Where a program is, if it is here: this one, or one that a run has brought before.
pub(super) fn find(program: &Bulk, own: &(PathBuf, Bulk)) -> Option<PathBuf> {
    let (path, this) = own;
    if this == program {
        return Some(path.clone());
    }
    let path = place(program).ok()?;
    let file = File::open(&path).ok()?;
    // It may have been changed, or written by half when the machine died.
    let is_whole = bulk::name_of(&file).is_ok_and(|found| found == *program);
    if is_whole {
        // The oldest go first: this one is young again.
        let _ = file.set_modified(SystemTime::now());
    }
    is_whole.then_some(path)
}

/// The program that this process runs, and what it is called.
pub(super) fn own() -> io::Result<(PathBuf, Bulk)> {
    let (file, path) = worker::private::image::file()?;
    Ok((path, bulk::name_of(&file)?))
}

/// Keeps a program that was fetched.
pub(super) fn keep(program: &Bulk, fetched: Fetched) -> io::Result<PathBuf> {
    let path = place(program)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_room(directory, program.len);
    let bytes = fetched.into_bytes()?;
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o700)
        .open(&new)?;
    let written = file
        .write_all(&bytes)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o700)))
        .and_then(|()| file.sync_all());
    // What is open for writing can't be run, and another agent may run it as soon as it has its name.
    drop(file);
    let kept = written.and_then(|()| fs::rename(&new, &path));
    if kept.is_err() {
        // It is of no use to anybody.
        let _ = fs::remove_file(&new);
    }
    kept.map(|()| path)
}

fn place(program: &Bulk) -> io::Result<PathBuf> {
    let hash = program.hash.iter().fold(String::new(), |mut text, byte| {
        // A string takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(life::directory("programs")?.join(hash))
}

/// Removes the oldest programs until there is room for so much more.
fn make_room(directory: &Path, more: u64) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut known: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    known.sort();
    let mut all = known
        .iter()
        .map(|(_, len, _)| len)
        .sum::<u64>()
        .saturating_add(more);
    for (_, len, path) in known {
        if all <= MOST {
            return;
        }
        all -= len;
        // Another agent may have removed it.
        let _ = fs::remove_file(path);
    }
}
