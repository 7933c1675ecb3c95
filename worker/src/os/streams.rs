//! Which standard streams this process was started with.
#![expect(unsafe_code, reason = "what runs before `main`")]

use std::sync::atomic::{AtomicBool, Ordering};

static HAS_NO_STDOUT: AtomicBool = AtomicBool::new(false);

/// Whether this process was started with stdout closed. Nobody sees that later: before `main` Rust puts `/dev/null` in
/// its place, which takes whatever is written.
pub(crate) fn has_no_stdout() -> bool {
    HAS_NO_STDOUT.load(Ordering::Relaxed)
}

#[used]
// SAFETY: the section holds functions of this type, which C calls before `main`, and before Rust's own beginning.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: a plain call, for a number that may be no file's.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    HAS_NO_STDOUT.store(flags < 0, Ordering::Relaxed);
}
