//! A task as a value: handed to something that wants a task, and to something that wants a function.
#![deny(warnings)]

use worker::{Task, task};

#[task]
fn square(x: i64) -> i64 {
    x * x
}

#[task]
fn add(x: i64, y: i64) -> i64 {
    x + y
}

fn needs<T: Task + Copy + Send + Sync + 'static>(_: T) -> &'static str {
    T::NAME
}

fn apply(function: impl Fn(i64) -> i64, x: i64) -> i64 {
    function(x)
}

fn main() {
    assert_eq!((1..=3).map(*square).collect::<Vec<_>>(), [1, 4, 9]);
    assert_eq!((1..=3).map(|x| square(x)).sum::<i64>(), 14);
    assert_eq!([1, 2, 3].into_iter().reduce(*add), Some(6));
    assert_eq!(apply(*square, 4), 16);
    let pointer: fn(i64) -> i64 = *square;
    assert_eq!(pointer(5), 25);
    let task = square;
    assert_eq!((needs(task), needs(task), task(6)), ("square", "square", 36));
    assert_eq!(std::thread::spawn(move || task(7)).join().unwrap(), 49);
}
