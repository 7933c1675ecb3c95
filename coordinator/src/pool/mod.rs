//! The library's face: what a program that uses it names.
//!
//! The command line and every user's program go through it. It encodes inputs, decodes outputs, and says how calls ended;
//! what keeps the workers going is the engine's.

mod available;
mod build;
mod builder;
mod calls;
mod codec;
mod observe;
mod pending;
#[expect(clippy::module_inception, reason = "it is the pool of all this")]
mod pool;
mod process;
mod with;

pub use crate::scheduler::Order;
pub use available::available_workers;
pub use builder::Builder;
#[cfg(feature = "agents")]
pub(crate) use calls::encoded::{EncodedEnd, EncodedEnds, EncodedMap, EncodedOutput};
pub use calls::{
    Inputs, NotYet, Refused, Report, Reports, Stream, StreamUnordered, ThreadedStream,
};
pub use codec::{Text, Typed};
pub use observe::{Stats, Worker};
pub use pending::Pending;
pub use pool::Pool;
pub use process::{Child, Process};
pub use with::With;
