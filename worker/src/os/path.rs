//! Finding programs in PATH.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, FileType, Stat};
use rustix::io::Errno;

/// Finds a program in PATH. It remembers the last program found: a run mostly repeats one command, and a new search would
/// cost one failed system call for each directory before the program's.
///
/// # Errors
///
/// PATH has no such program that may be run.
pub fn place_of(program: &OsStr) -> io::Result<PathBuf> {
    static LAST: Mutex<Option<(OsString, PathBuf)>> = Mutex::new(None);
    if program.as_bytes().contains(&b'/') {
        return Ok(program.into());
    }
    // The system would read a name with a zero byte only up to that byte.
    CString::new(program.as_bytes())?;
    let is_executable = |path: &Path| rustix::fs::access(path, Access::EXEC_OK).is_ok();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((name, place)) = &*last
        && name == program
        && is_executable(place)
    {
        return Ok(place.clone());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut why = Errno::NOENT;
    for directory in env::split_paths(&path) {
        let place = directory.join(program);
        let found = rustix::fs::stat(&place);
        let is_file = |found: &Stat| FileType::from_raw_mode(found.st_mode).is_file();
        if found.as_ref().is_ok_and(is_file) && is_executable(&place) {
            *last = Some((program.to_owned(), place.clone()));
            return Ok(place);
        }
        // "Permission denied" for one directory says more than "not found" for the others.
        if why != Errno::ACCESS {
            why = found.err().unwrap_or(Errno::ACCESS);
        }
    }
    Err(why.into())
}
