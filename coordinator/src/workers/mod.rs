//! How a worker comes to be: which program it is, how it is started, where it is met, and how it is let in; and the
//! words in which it is spoken to.
//!
//! The engine uses it. It knows nothing of slots' threads or of the pool's state: what is to become of a worker is decided
//! above.

pub(crate) mod board;
pub(crate) mod by_hand;
pub(crate) mod launch;
pub(crate) mod meeting;
pub(crate) mod program;
pub(crate) mod socket;
pub(crate) mod talk;
mod visitors;
