//! Finds out what else runs in this process.

use std::fs;
use std::io;
use std::path::Path;

/// Something that runs already, although nothing should before [`init`](crate::init).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// An async runtime, and the sign of it.
    Runtime(String),
    /// Other threads, by their names.
    Threads(String),
}

/// What runs in this process besides the calling thread. `None` if nothing does, or if the system does not tell.
pub(crate) fn what_runs() -> Option<Before> {
    let names = other_threads().unwrap_or_default();
    let is_runtime = |name: &&String| RUNTIMES.iter().any(|runtime| name.starts_with(runtime));
    if let Some(name) = names.iter().find(is_runtime) {
        return Some(Before::Runtime(format!("its thread `{name}` runs")));
    }
    if has_event_queue() {
        return Some(Before::Runtime(
            "there is an event queue of its own".to_owned(),
        ));
    }
    (!names.is_empty()).then(|| Before::Threads(names.join("`, `")))
}

/// The names that runtimes give their threads, cut to the 15 bytes that the system keeps.
const RUNTIMES: [&str; 4] = ["tokio-", "async-std/", "async-io", "smol-"];

/// The names of this process's other threads.
///
/// # Errors
///
/// The system does not tell.
pub(super) fn other_threads() -> io::Result<Vec<String>> {
    let this = rustix::thread::gettid().as_raw_nonzero().to_string();
    let tasks = fs::read_dir("/proc/self/task")?;
    let others = tasks
        .flatten()
        .filter(|task| task.file_name() != this.as_str());
    let names = others.flat_map(|task| fs::read_to_string(task.path().join("comm")));
    Ok(names.map(|name| name.trim_end().to_owned()).collect())
}

/// Whether this program has made an epoll instance, as single-threaded runtimes do. An inherited instance does not
/// count: it would not be close-on-exec.
fn has_event_queue() -> bool {
    let files = fs::read_dir("/proc/self/fd").into_iter().flatten();
    files.flatten().any(|file| {
        fs::read_link(file.path()).is_ok_and(|target| target == Path::new("anon_inode:[eventpoll]"))
            && closes_on_exec(&file.file_name().to_string_lossy())
    })
}

fn closes_on_exec(number: &str) -> bool {
    let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() != 0)
}
