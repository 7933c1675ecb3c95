//! Why a value can't be written, or read.

use std::fmt::{self, Display};

use serde::ser;

/// Why a value can't be written, or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(Box<Cause>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    /// An error in the words of the value's type, or of the encoding.
    Said(String),
    /// The type needs a self-describing encoding, for this reason.
    NotDescribed(String),
}

impl ValueError {
    #[cold]
    pub(crate) fn new(why: impl Display) -> Self {
        ValueError(Box::new(Cause::Said(why.to_string())))
    }

    /// The type needs a self-describing encoding.
    #[cold]
    pub(crate) fn not_described(what: impl Display) -> Self {
        ValueError(Box::new(Cause::NotDescribed(what.to_string())))
    }

    /// Names the type in errors that are about the type.
    #[cold]
    pub(crate) fn of<V: ?Sized>(self) -> Self {
        match *self.0 {
            Cause::Said(_) => self,
            Cause::NotDescribed(what) => Self::new(format_args!(
                "{what}, and the encoding of inputs and outputs does not say what comes next: wrap the `{}` in \
                 `worker::Described`, or the field in it by `#[serde(with = \"worker::described\")]`",
                short(std::any::type_name::<V>())
            )),
        }
    }
}

impl Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Cause::Said(text) | Cause::NotDescribed(text)) = &*self.0;
        f.write_str(text)
    }
}

/// The name of a type, without the modules it comes from.
fn short(name: &str) -> String {
    let mut short = String::new();
    let mut word = 0;
    for mark in name.chars() {
        if mark == ':' {
            short.truncate(word);
        } else {
            short.push(mark);
            if !mark.is_alphanumeric() && mark != '_' {
                word = short.len();
            }
        }
    }
    short
}

impl std::error::Error for ValueError {}

impl ser::Error for ValueError {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message)
    }
}

impl From<postcard::Error> for ValueError {
    #[cold]
    fn from(error: postcard::Error) -> Self {
        Self::new(error)
    }
}
