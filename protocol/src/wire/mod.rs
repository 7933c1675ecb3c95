//! What is said over a link: messages, the frames they travel in, and in which order.
//!
//! Both sides' programs use it. Nothing of who runs what belongs here, and no process is started or waited for.

pub mod descriptors;
pub mod frame;
pub mod handshake;
pub mod link;
pub mod message;
pub mod spin;
