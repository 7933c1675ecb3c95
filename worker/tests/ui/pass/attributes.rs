//! What else stands on a function stays with the task: docs, visibility, cfg, lints.
#![deny(warnings)]
#![deny(missing_docs)]

use worker::{Task, task};

/// Squares a number.
///
/// It wraps around.
#[task]
pub fn square(x: i64) -> i64 {
    x.wrapping_mul(x)
}

#[task]
/// The comment may stand behind the attribute.
pub fn behind() {}

#[doc = "As an attribute."]
#[task]
#[inline]
pub(crate) fn spelled_out() {}

#[task]
fn undocumented() {}

// Of two that exclude each other one is left, wherever the cfg stands.
#[cfg(all())]
#[task]
fn before() -> u8 {
    1
}

#[cfg(any())]
#[task]
fn before() -> u8 {
    2
}

#[task]
#[cfg(all())]
fn after() -> u8 {
    1
}

#[task]
#[cfg(any())]
fn after() -> u8 {
    2
}

#[task]
#[cfg_attr(all(), doc = "Conditionally documented.")]
fn conditional() {}

#[task]
#[must_use]
fn must_use() -> u8 {
    1
}

#[task]
#[must_use = "it is costly"]
fn must_use_why() -> u8 {
    1
}

#[task]
#[allow(unused_variables, unused_mut)]
fn sloppy(mut x: u8) {}

#[allow(dead_code)]
#[task(register = false)]
fn not_registered_and_never_used() {}

#[expect(unused_variables)]
#[task]
fn expected(x: u8) {}

#[deprecated(note = "use square")]
#[task]
fn old(x: u8) -> u8 {
    x
}

fn doc<T: Task>(_: T) -> &'static str {
    T::DOC
}

fn main() {
    assert_eq!(doc(square), "Squares a number.\n\nIt wraps around.");
    assert_eq!(doc(behind), "The comment may stand behind the attribute.");
    assert_eq!(doc(spelled_out), "As an attribute.");
    assert_eq!(doc(conditional), "Conditionally documented.");
    assert_eq!(doc(undocumented), "");
    assert_eq!((before(), after()), (1, 1));
    assert_eq!((must_use(), must_use_why()), (1, 1));
    sloppy(1);
    expected(1);
    #[allow(deprecated)]
    {
        assert_eq!(old(1), 1);
    }
}
