//! The end of a map that inputs go in by.

use std::fmt;
use std::sync::Arc;

use super::under::Under;
use crate::engine::state::State;
use crate::error::Why;
use crate::payload::{Chunk, Files};
use crate::pool::codec::Codec;
use crate::scheduler::{MapId, Time};

/// The end of a map that inputs go in by; made by [`With::open`](crate::With::open). Dropping it
/// says that there are no more.
#[derive(Debug)]
pub struct Inputs<C> {
    pub(super) under: Arc<Under>,
    pub(super) codec: C,
}

impl<C: Codec> Inputs<C> {
    /// Adds a call. Blocks while the map's window is full.
    ///
    /// # Errors
    /// The call would never run, because nobody takes the results any more, or the pool has ended.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// if let Some(inputs) = inputs {
    ///     inputs.send(7)?;
    /// }
    /// assert_eq!(reports.count(), 1);
    /// # Ok(()) }
    /// ```
    pub fn send(&self, input: C::Input) -> Result<(), Refused> {
        self.send_one(input, Files::new())
    }

    fn send_one(&self, input: C::Input, files: Files) -> Result<(), Refused> {
        let Under {
            shared,
            id,
            watcher,
        } = &*self.under;
        if shared.is_copied() {
            return Err(Refused);
        }
        let mut chunk = Chunk::default();
        let encoded = files
            .check()
            .and_then(|()| chunk.add(shared.board(), |sheet| self.codec.encode(input, sheet)));
        chunk.accompany(files);
        let mut state = shared.state();
        while !state.jobs.has_room(*id) {
            if state.jobs.is_sealed(*id) {
                return Err(Refused);
            }
            state = watcher.wait(state, None);
        }
        match encoded {
            Ok(()) => push(&mut state, *id, &mut chunk),
            Err(why) => push_ended(&mut state, *id, why, shared.now()),
        }
        shared.release(state);
        Ok(())
    }

    /// As [`send`](Self::send), with files that go along with the call if it runs on another machine, and come back from there.
    /// A call whose files lie outside of this program's directory ends as [`Undecodable`](crate::Why::Undecodable).
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// ```no_run
    /// # use coordinator::{Files, Pool, task};
    /// # #[task] fn resize(path: String) {}
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(resize);
    /// if let Some(inputs) = inputs {
    ///     inputs.send_with("a.png".to_owned(), Files::new().send("a.png").fetch("a.small.png"))?;
    /// }
    /// # drop(reports);
    /// # Ok(()) }
    /// ```
    pub fn send_with(&self, input: C::Input, files: Files) -> Result<(), Refused> {
        self.send_one(input, files)
    }

    /// Adds calls. Costs less for each than [`send`](Self::send) does. Blocks while the map's window is full.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send). The first of them may run all the same.
    ///
    /// ```no_run
    /// # use coordinator::{Pool, task};
    /// # #[task] fn square(x: i64) -> i64 { x * x }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = Pool::new(2)?;
    /// let (inputs, reports) = pool.with().open(square);
    /// if let Some(inputs) = inputs {
    ///     inputs.send_all((0..100).collect())?;
    /// }
    /// assert_eq!(reports.count(), 100);
    /// # Ok(()) }
    /// ```
    pub fn send_all(&self, inputs: Vec<C::Input>) -> Result<(), Refused> {
        let Under { shared, id, .. } = &*self.under;
        let mut chunk = Chunk::default();
        let mut inputs = inputs.into_iter();
        while inputs.len() > 0 {
            let mut wrong = None;
            for input in inputs.by_ref().take(self.room()?) {
                let added = chunk.add(shared.board(), |sheet| self.codec.encode(input, sheet));
                wrong = added.err();
                if wrong.is_some() || chunk.is_full() {
                    break;
                }
            }
            let mut state = shared.state();
            if !chunk.is_empty() {
                push(&mut state, *id, &mut chunk);
            }
            if let Some(why) = wrong {
                push_ended(&mut state, *id, why, shared.now());
            }
            shared.release(state);
        }
        Ok(())
    }

    /// Waits until there is room for calls, and says for how many.
    fn room(&self) -> Result<usize, Refused> {
        let Under {
            shared,
            id,
            watcher,
        } = &*self.under;
        if shared.is_copied() {
            return Err(Refused);
        }
        let mut state = shared.state();
        loop {
            match state.jobs.room(*id) {
                0 if state.jobs.is_sealed(*id) => return Err(Refused),
                0 => state = watcher.wait(state, None),
                room => return Ok(room),
            }
        }
    }
}

/// Adds the calls whose inputs were gathered.
pub(super) fn push(state: &mut State, map: MapId, chunk: &mut Chunk) {
    for inputs in chunk.take() {
        state.jobs.push(map, inputs);
    }
}

/// Adds a call whose input can't be encoded.
pub(super) fn push_ended(state: &mut State, map: MapId, why: String, now: Time) {
    let (jobs, sight) = state.jobs_and_sight();
    jobs.push_ended(map, Why::Undecodable(why), now, &sight);
}

impl<C> Drop for Inputs<C> {
    fn drop(&mut self) {
        if self.under.shared.is_copied() {
            return;
        }
        self.under
            .shared
            .act(|state| state.jobs.seal(self.under.id));
    }
}

/// The inputs can't be taken: the pool, or whoever takes the results, wants no more; or the pool is another
/// process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no further inputs are taken: the pool has ended, or nobody takes the results")
    }
}

impl std::error::Error for Refused {}
