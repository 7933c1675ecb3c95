//! Where a large value may be written in the first place.

use std::fmt::Debug;

/// Where there may be room for a large value.
pub trait Room: Debug {
    /// One that is being written there.
    type Begun: Begun + Debug;

    /// Begins with a large piece and what is before it. `None` if they find no room.
    fn begin(self, before: &[u8], piece: &[u8]) -> Option<Self::Begun>;
}

/// A large value that is being written where it will be read. Dropping it takes the value back: nobody has heard of it.
pub trait Begun {
    /// Adds bytes. `false`, and nothing is added, if there is no room for them.
    #[must_use]
    fn append(&mut self, bytes: &[u8]) -> bool;

    /// Adds what has been written so far to a buffer.
    fn copy_to(&self, buffer: &mut Vec<u8>);
}
