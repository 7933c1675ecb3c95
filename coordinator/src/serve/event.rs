//! What an agent hears: from the broker, and from its own threads.

use std::sync::Arc;

use protocol::agent::What;

use super::building::Building;
use super::files::Made;

use crate::agents::broker::Event as Heard;
use crate::agents::bulk::Content;
use crate::error::PoolError;
use crate::pool::Pool;

pub(super) enum Event {
    Broker(Heard),
    News(News),
    /// All calls of a lease have ended, or came back.
    Over {
        epoch: u64,
        lease: u64,
    },
    /// The files of a lease's calls are in their places, or can't be put there.
    LaidOut {
        epoch: u64,
        lease: u64,
        done: std::io::Result<()>,
    },
    /// The pipe to the broker has ended, and can't come back.
    Cut,
    /// The workers of a run are ready, or can't be had.
    Built {
        building: Building,
        built: Result<Arc<Pool>, PoolError>,
    },
}

/// What became of some calls of a lease.
pub(super) struct News {
    /// Which life of the agent it is of, and which lease.
    pub(super) epoch: u64,
    pub(super) lease: u64,
    /// Of how many calls.
    pub(super) calls: u64,
    pub(super) what: What,
    pub(super) payload: Box<dyn Content>,
    /// The files that it has made.
    pub(super) made: Made,
}
