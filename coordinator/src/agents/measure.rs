//! What the files are called that go along with calls. To find out takes as long as reading them, so a thread does it.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use protocol::agent::{Bulk, Files, Sent};

use super::bulk::{self, AtPath, Content};
use super::carriage::Inputs;

/// How many files may come back from one call: their names, which are their hashes, stand in one message.
const MOST_FETCHED: usize = 4096;

/// The files of a lease's calls.
pub(crate) struct Measured {
    pub(super) files: Vec<Files>,
    pub(super) contents: Vec<(Bulk, Arc<dyn Content>)>,
    /// Calls whose files can't be read, and why.
    pub(super) failed: Vec<(u64, String)>,
}

/// Whether files go along with some of these calls.
pub(super) fn has_files(inputs: &Inputs) -> bool {
    inputs.0.iter().any(|part| part.inputs.files().is_some())
}

/// Reads the files of all calls, of which the first has this index.
pub(super) fn all(inputs: &Inputs, first: u64, directory: &Path) -> Measured {
    let mut measured = Measured {
        files: Vec::new(),
        contents: Vec::new(),
        failed: Vec::new(),
    };
    let mut index = first;
    for part in &inputs.0 {
        if let Some(files) = part.inputs.files() {
            let mut call = Files {
                index,
                send: Vec::new(),
                fetch: files
                    .fetch
                    .iter()
                    .map(|path| path.as_os_str().as_bytes().to_vec())
                    .collect(),
            };
            if call.fetch.len() > MOST_FETCHED {
                let many = call.fetch.len();
                let why =
                    format!("{many} files are to come back from it, of {MOST_FETCHED} at most");
                measured.failed.push((index, why));
            }
            for name in &files.send {
                match one(&directory.join(name)) {
                    Ok((bulk, mode, content)) => {
                        let name = name.as_os_str().as_bytes().to_vec();
                        call.send.push(Sent { name, mode, bulk });
                        measured.contents.push((bulk, content));
                    }
                    Err(error) => {
                        let why = format!("the file {name:?} can't go along: {error}");
                        measured.failed.push((index, why));
                    }
                }
            }
            measured.files.push(call);
        }
        index += u64::from(part.count);
    }
    measured
}

fn one(path: &Path) -> io::Result<(Bulk, u32, Arc<dyn Content>)> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let content = AtPath {
        path: path.to_owned(),
        len: metadata.len(),
    };
    let bulk = bulk::name_of(&content)?;
    Ok((bulk, metadata.permissions().mode(), Arc::new(content)))
}
