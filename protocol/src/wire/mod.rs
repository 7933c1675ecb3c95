//! The conversation over a link: its messages, the frames they travel in, and their order.
//!
//! The programs of both sides use this module. It does not know which call runs where, and it neither starts processes nor
//! waits for them.

pub mod descriptors;
mod ferry;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod message;
pub mod spin;
