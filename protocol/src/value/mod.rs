//! How values become bytes, and bytes values: the content of payloads and headers.
//!
//! Every module of this crate may use this one; it uses none of them but `pages`, which reserves memory. It knows no stream and no memory of another
//! process: a [`Room`](room::Room) stands for any place other than a buffer where a large value may be written.

mod encode;
mod error;
mod packed;
pub mod parcel;
mod reader;
pub mod room;
pub mod sheet;
mod varint;
mod whole;
mod writer;

pub use encode::{decode, encode};
pub use error::ValueError;
