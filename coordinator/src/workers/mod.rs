//! How a worker comes to be, and the words in which it is spoken to.
//!
//! `program` finds the executable, `launch` starts it and lets it in, or `by_hand` says how a person starts it. `meeting` is the
//! place where it connects, `visitors` are those who come there, `socket` and `talk` carry the conversation, and `board` holds
//! large inputs. `template` is a worker that others are copied from.
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
pub(crate) mod template;
mod visitors;
