//! Large things in pieces: what this side can be asked for, and what it is asking for.
//!
//! A bulk is named by its content. Whoever wants it asks for a few pieces at a time, and for each again if it does not come;
//! so what is large is taken as fast as it is read, and goes on where a cut ended it. It is checked when it is whole. Neither
//! half knows what a bulk is for, nor sends anything itself.

mod fetching;
mod peer;
mod store;

pub(crate) use fetching::Fetching;
pub(crate) use peer::{Fetched, Progress, Target};
pub(crate) use store::{AtPath, Content, Store, name_of};
