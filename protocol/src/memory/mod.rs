//! What coordinator and worker have mapped, both of them: who stands where with a batch, and large payloads.
//!
//! The wire uses it, and both sides' programs. It knows values, and nothing of messages or frames. All that is read here
//! was written by another process, and may be anything: it can't go wrong, only be nonsense.

pub mod black_box;
pub mod board;
pub mod lane;
mod load;
pub mod place;
