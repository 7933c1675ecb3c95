//! The pool's board: where large inputs are written, for all of its workers.

use std::fs::File;
use std::io;
use std::sync::Arc;

use protocol::board::{Board, REGION, REGIONS};

use crate::os;

/// How many regions there are besides one for each worker, if there may be so many: for inputs that wait.
const WAITING: usize = 10;

/// A board, and what workers are given to map it.
#[derive(Debug)]
pub(crate) struct PoolBoard {
    pub(crate) board: Arc<Board>,
    pub(crate) file: File,
}

impl PoolBoard {
    /// For a pool of so many workers. It takes memory only as far as it is written on, and keeps that for the
    /// next inputs: what nobody else can write to can't be given back in part.
    pub(crate) fn new(workers: usize) -> io::Result<Self> {
        let regions = (workers + WAITING).min(REGIONS);
        let file = os::unsealed_memory(regions * REGION)?;
        let board = Board::map(&file)?;
        os::seal_writer(&file)?;
        Ok(PoolBoard { board, file })
    }
}
