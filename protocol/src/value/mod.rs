//! How values become bytes, and bytes values: what stands in payloads and headers.
//!
//! Everybody may use it; it uses nothing of this crate. There is no memory of another process in here and no
//! stream: where a large value may be written instead of a buffer, a [`Room`](room::Room) says.

mod encode;
pub mod parcel;
mod reader;
pub mod room;
pub mod sheet;
mod writer;

pub use encode::{decode, encode};
pub use writer::ValueError;
