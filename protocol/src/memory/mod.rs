//! The memory that coordinator and worker both map: how far a worker has come with its batch, and large payloads.
//!
//! The wire and the programs of both sides use this module. It knows values, and nothing of messages or frames. Another
//! process writes what is read here, so any bytes must be safe to read: they may be nonsense, but they break nothing.

pub mod black_box;
pub mod board;
pub mod ferry;
pub mod lane;
mod load;
pub mod place;
