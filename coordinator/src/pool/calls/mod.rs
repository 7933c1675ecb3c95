//! The calls of one map, from both ends: inputs go in, reports come out. And single calls, which share a map.
//!
//! `with` opens a map here. A caller's thread encodes its inputs and decodes its outputs in here; what runs them is below.

mod conclude;
#[cfg(feature = "agents")]
pub(crate) mod encoded;
mod feed;
mod inputs;
mod reports;
mod single;
mod threaded;
mod under;

use std::sync::Arc;

use super::codec::Codec;
use crate::engine::shared::PoolShared;
use crate::payload::Job;
use crate::scheduler::MapSpec;
use under::Under;

pub(super) use conclude::{cancelled, conclude};
pub(super) use feed::Feed;
pub use feed::{Stream, StreamUnordered};
pub use inputs::{Inputs, Refused};
pub use reports::{NotYet, Report, Reports};
pub(super) use single::{Plan, Single};
pub use threaded::ThreadedStream;

/// Opens a map in both directions.
pub(super) fn open<C: Codec>(
    shared: &Arc<PoolShared>,
    codec: C,
    spec: impl FnOnce(Arc<Job>) -> MapSpec<Arc<Job>>,
) -> (Option<Inputs<C>>, Reports<C>) {
    let job = Arc::new(codec.job());
    let opened = Under::open(shared, spec(Arc::clone(&job)));
    let inputs = opened.as_ref().ok().map(|under| Inputs {
        under: Arc::clone(under),
        codec,
    });
    (inputs, Reports::new(shared.output(), job, opened))
}
