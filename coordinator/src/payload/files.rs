//! Files that go along with a call to another machine, and come back.

use std::path::{Component, Path, PathBuf};

/// Files that go along with a call to another machine, and files that come back from there; see
/// [`Inputs::send_with`](crate::Inputs::send_with).
///
/// Their names are relative to this program's directory. On the other machine the call has a directory of its own, in which
/// what was sent stands under the same names. A call that runs here finds its files where they are.
///
/// ```
/// use coordinator::Files;
/// let files = Files::new().send("in/a.wav").fetch("out/a.mp3");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "files go along with a call"]
pub struct Files {
    pub(crate) send: Vec<PathBuf>,
    pub(crate) fetch: Vec<PathBuf>,
}

impl Files {
    /// No files.
    ///
    /// See [`Files`] for an example.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file that goes along with the call.
    ///
    /// See [`Files`] for an example.
    pub fn send(mut self, path: impl Into<PathBuf>) -> Self {
        self.send.push(path.into());
        self
    }

    /// A file that the call makes, and that is put in its place here when the call has succeeded. On another machine a call
    /// that has not made it fails. Nobody looks whether a call that runs here has made it.
    ///
    /// See [`Files`] for an example.
    pub fn fetch(mut self, path: impl Into<PathBuf>) -> Self {
        self.fetch.push(path.into());
        self
    }

    /// The files that come back.
    ///
    /// ```
    /// use coordinator::Files;
    /// let files = Files::new().fetch("out/a.mp3");
    /// assert_eq!(files.fetched().next().unwrap().to_str(), Some("out/a.mp3"));
    /// ```
    pub fn fetched(&self) -> impl Iterator<Item = &Path> {
        self.fetch.iter().map(PathBuf::as_path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.send.is_empty() && self.fetch.is_empty()
    }

    /// Fails if a name leads out of the directory.
    pub(crate) fn check(&self) -> Result<(), String> {
        for path in self.send.iter().chain(&self.fetch) {
            if !stays_within(path) {
                return Err(format!(
                    "the file {path:?} is not within the directory of the run, and so can't go along with a call: name it \
                     relative to that directory, without `..`"
                ));
            }
        }
        Ok(())
    }

    /// How much their names take in a message, in bytes.
    pub(crate) fn size(&self) -> usize {
        let names = self.send.iter().chain(&self.fetch);
        names.map(|path| path.as_os_str().len() + 64).sum()
    }
}

/// Whether a name is of something within a directory.
pub(crate) fn stays_within(path: &Path) -> bool {
    let mut parts = path.components();
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    parts
        .clone()
        .any(|part| matches!(part, Component::Normal(_)))
        && parts.all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["a", "./a", "a/b", "a b", "a\nb", "..a", "a..", ".a/..b"] {
            assert!(stays_within(Path::new(name)), "{name:?}");
            assert_eq!(Files::new().send(name).check(), Ok(()));
        }
        for name in ["", ".", "/", "/a", "..", "../a", "a/../b", "a/..", "./.."] {
            assert!(!stays_within(Path::new(name)), "{name:?}");
            assert!(Files::new().fetch(name).check().is_err());
        }
    }
}
