//! What calls carry: encoded inputs on their way to the workers, the outputs that come back, and what was printed.
//!
//! Everybody above may use it. It knows bytes and files, and nothing of workers, threads or the pool's state.

mod ahead;
pub(crate) mod buffers;
mod files;
pub(crate) mod forward;
mod inputs;
mod job;
mod outputs;
pub(crate) mod printed;
#[cfg(feature = "agents")]
pub(crate) mod spool;

pub use files::Files;
#[cfg(feature = "agents")]
pub(crate) use files::stays_within;
pub(crate) use inputs::{Chunk, EncodedInputs, Piece};
pub(crate) use job::{Job, Place};
pub(crate) use outputs::{By, Encoded, Payload, Trace, Values};
