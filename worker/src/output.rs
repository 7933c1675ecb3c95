//! How much the worker's calls have printed.

use std::io::Write;

use crate::os;

/// How long the files behind stdout and stderr are, in bytes; 0 for what is no file (a terminal,
/// when the worker was started by hand).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

impl Printed {
    /// Brings everything that was printed so far into the files, whoever printed it, and measures.
    pub(crate) fn settle() -> Self {
        // A failing flush (a full disk) has no one to report to that would not print, too.
        let _ = std::io::stdout().flush();
        os::flush_c_streams();
        Printed {
            stdout: os::stdout_len(),
            stderr: os::stderr_len(),
        }
    }
}
