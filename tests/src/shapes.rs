//! Types whose encoding has to describe itself, and tasks that take them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use worker::{Described, task};

/// Says of which kind it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Tagged {
    /// One kind.
    Circle {
        /// How large it is.
        radius: u32,
    },
    /// Another.
    Square {
        /// How large it is.
        side: u32,
    },
}

/// Is what fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Untagged {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// Has fields of any name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flat {
    /// One that each has.
    pub id: u8,
    /// The others.
    #[serde(flatten)]
    pub others: BTreeMap<String, u8>,
}

/// Leaves out what it lacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sparse {
    /// May be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u8>,
    /// Is there.
    pub second: u8,
}

/// Has a field that describes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Before it.
    pub before: u8,
    /// The field.
    #[serde(with = "worker::described")]
    pub sparse: Sparse,
    /// Behind it.
    pub behind: u8,
}

macro_rules! echoes {
    ($($name:ident: $type:ty;)*) => {
        $(/// Returns what it gets.
        #[task]
        pub fn $name(given: $type) -> $type {
            given
        })*
    };
}

echoes! {
    bare_value: Value;
    bare_tagged: Tagged;
    bare_untagged: Untagged;
    bare_flat: Flat;
    bare_sparse: Sparse;
    value: Described<Value>;
    tagged: Described<Tagged>;
    untagged: Described<Untagged>;
    flat: Described<Flat>;
    sparse: Described<Sparse>;
    parts: Parts;
}

/// Takes a number, and returns a value that says nothing of itself.
#[task]
pub fn value_of(number: u64) -> Value {
    number.into()
}
