//! What a running call can learn about itself.

use std::cell::Cell;
use std::sync::{Arc, PoisonError, RwLock};

use protocol::black_box::BlackBox;

use crate::os;

/// The call that is running on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Current {
    /// The slot of the pool this worker fills, counted from 1.
    pub worker: u32,
    /// The call's index in its map, from 0. Single calls (`call`, `submit`) of one task with the same limits count as one map.
    pub index: u64,
    /// Which attempt at the call this is, from 1.
    pub attempt: u32,
    /// Whether the call is being stopped, because of its timeout or because it was cancelled. The worker has
    /// received SIGTERM, which by default ends it at once. A task that ignores or handles SIGTERM can ask here, and has
    /// the grace period to tidy up before SIGKILL.
    pub cancelled: bool,
}

/// This worker's black box.
static BLACK_BOX: RwLock<Option<Arc<BlackBox>>> = RwLock::new(None);

/// The black box that tells whether a call is being stopped.
pub(crate) fn look_at(black_box: &Arc<BlackBox>) {
    let mut known = BLACK_BOX.write().unwrap_or_else(PoisonError::into_inner);
    // A copy of a worker has a box of its own, and the one before is the other process's.
    *known = Some(Arc::clone(black_box));
}

fn with_black_box<R>(what: impl FnOnce(&BlackBox) -> R) -> Option<R> {
    let known = BLACK_BOX.read().unwrap_or_else(PoisonError::into_inner);
    known.as_deref().map(what)
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// The call that this thread is running; `None` outside of a worker, and on other threads of one.
///
/// ```
/// assert_eq!(worker::current(), None); // this is no worker
/// ```
#[must_use]
pub fn current() -> Option<Current> {
    let mut current = CURRENT.get()?;
    current.cancelled = with_black_box(BlackBox::is_doomed).unwrap_or(false);
    Some(current)
}

/// Keeps a panic's message in the black box, in case the panic ends this process.
pub(crate) fn note_panic(text: &[u8]) {
    with_black_box(|black_box| black_box.note_panic(text));
}

/// Sets the call's clock back when the call has ended, so that the time for its report does not count towards its limit.
pub(crate) fn begin_again() {
    with_black_box(|black_box| black_box.begin(os::now()));
}

pub(crate) fn set(current: Option<Current>) {
    CURRENT.set(current);
}
