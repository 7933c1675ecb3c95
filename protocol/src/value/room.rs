//! A place other than a buffer where a large value may be written directly.

use std::fmt::Debug;

/// A place that may have room for a large value.
pub trait Room: Debug {
    /// A value that is being written there.
    type Begun: Begun + Debug;

    /// Begins a value with the bytes before its large piece, and that piece. `None` if they find no room.
    fn begin(self, before: &[u8], piece: &[u8]) -> Option<Self::Begun>;
}

/// A large value that is being written where it will be read. Dropping it takes the value back, because nobody has
/// heard of it yet.
pub trait Begun {
    /// Adds bytes. If there is no room for them, returns `false` and adds nothing.
    #[must_use]
    fn append(&mut self, bytes: &[u8]) -> bool;

    /// Copies the bytes written so far to the end of a buffer.
    fn copy_to(&self, buffer: &mut Vec<u8>);
}
