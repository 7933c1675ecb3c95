//! Who an agent is, and how it is told to leave.

use super::life::Life;
use crate::agents::broker::Access;

/// Who an agent is.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) slots: usize,
    pub(super) life: Life,
    pub(super) access: Access,
    /// It ends with the first run.
    pub(super) is_for_one_run: bool,
}

/// How an agent is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It finishes what it runs, and gives the rest back.
    WhenDone,
    /// It ends what it runs, and gives all back.
    Now,
}
