//! A task that asks for itself in its own body, and one that calls itself.

use worker::{Task, task};

fn name<T: Task>(_: T) -> &'static str {
    T::NAME
}

#[task]
fn again(depth: u8) -> String {
    match depth {
        0 => name(again {}).to_owned(),
        _ => again(depth - 1),
    }
}

#[task]
#[rustfmt::skip]
fn sixteen(
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
) {}

fn main() {
    assert_eq!(again(2), "again");
    sixteen(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}
