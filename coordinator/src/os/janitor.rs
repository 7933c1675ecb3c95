//! What removes a directory that this process may have no time to remove.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Removes directories when this process is gone, also if it was killed: a process that waits for that. A place where
/// workers meet that are started by hand can be seen for as long as it takes a person to type a line.
#[derive(Debug, Default)]
pub(crate) struct Janitor(Mutex<Option<Child>>);

/// It hears of directories, one a line, until its stdin ends, and removes those that are there still.
const SCRIPT: &str = "trap '' HUP INT TERM; while IFS= read -r place; do set -- \"$@\" \"$place\"; done; \
    for place; do rm -f -- \"$place/$0\"; rmdir -- \"$place\"; done";

impl Janitor {
    /// A directory with at most a file of this name in it is to be removed in the end.
    ///
    /// # Errors
    ///
    /// There is no shell, or no further process.
    pub(crate) fn look_after(&self, directory: &Path, file: &str) -> io::Result<()> {
        let mut janitor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let janitor = match &mut *janitor {
            Some(janitor) => janitor,
            none => none.insert(
                Command::new("/bin/sh")
                    .args(["-c", SCRIPT, file])
                    .current_dir("/")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    // A terminal's signals are not for it.
                    .process_group(0)
                    .spawn()?,
            ),
        };
        let line = [directory.as_os_str().as_bytes(), b"\n"].concat();
        match &mut janitor.stdin {
            Some(stdin) => stdin.write_all(&line),
            None => Ok(()),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        let janitor = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut janitor) = janitor.take() {
            drop(janitor.stdin.take());
            // Whoever else in the host waits for children may have it already.
            let _ = janitor.wait();
        }
    }
}
