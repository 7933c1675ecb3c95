//! Every signature a task can have: it still is a function, and it runs as a task.
#![deny(warnings)]
#![deny(clippy::all)]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use worker::{Task, task};

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Outcome(Result<u8, String>);

mod own {
    pub type Result = std::result::Result<u8, String>;
}

#[task]
fn nothing() {}

#[task]
fn explicit_unit() -> () {}

#[task]
fn constant() -> u32 {
    7
}

#[task]
fn square(x: i64) -> i64 {
    x * x
}

#[task]
fn power(base: u64, exponent: u32) -> Result<u64, String> {
    base.checked_pow(exponent).ok_or_else(|| "overflow".into())
}

#[task]
fn tuple_and_more((a, b): (u32, u32), Point { x, .. }: Point, _: bool, [first, ..]: [u8; 4]) -> i64 {
    i64::from(a + b) + i64::from(x) + i64::from(first)
}

#[task]
fn one_tuple((a, b): (u32, u32)) -> u32 {
    a + b
}

#[task]
fn countdown(mut from: u32) -> Vec<u32> {
    let mut all = Vec::new();
    while from > 0 {
        all.push(from);
        from -= 1;
    }
    all
}

#[task]
fn factorial(n: u64) -> u64 {
    if n < 2 { 1 } else { n * factorial(n - 1) }
}

#[task]
fn is_even(n: u32) -> bool {
    n == 0 || is_odd(n - 1)
}

#[task]
fn is_odd(n: u32) -> bool {
    n != 0 && is_even(n - 1)
}

#[task]
fn io_result(ok: bool) -> io::Result<u8> {
    if ok { Ok(1) } else { Err(io::Error::other("no luck")) }
}

#[task]
fn unit_result(ok: bool) -> std::fmt::Result {
    if ok { Ok(()) } else { Err(std::fmt::Error) }
}

#[task]
fn result_of_a_module(x: u8) -> own::Result {
    x.checked_add(1).ok_or_else(|| "full".to_owned())
}

// A `Result` that is meant to be a value, whatever it holds.
#[task]
fn outcome(x: u8) -> Outcome {
    Outcome(Ok(x))
}

#[task]
const fn at_compile_time(x: u32) -> u32 {
    x + 1
}

#[task]
fn structured(points: BTreeMap<String, Vec<Point>>, or: Option<Box<Point>>) -> Option<Point> {
    points.into_values().flatten().next().or(or.map(|point| *point))
}

#[task]
fn borrowed_for_ever(text: std::borrow::Cow<'static, str>) -> usize {
    text.len()
}

fn run<T: Task>(_: T, input: T::Input) -> Result<T::Output, String> {
    T::run(input)
}

fn signature<T: Task>(_: T) -> (&'static str, &'static str) {
    (T::SIGNATURE, T::TYPES)
}

fn main() {
    nothing();
    explicit_unit();
    assert_eq!(run(nothing, ()), Ok(()));
    assert_eq!(run(explicit_unit, ()), Ok(()));
    assert_eq!((constant(), run(constant, ())), (7, Ok(7)));
    assert_eq!((square(7), run(square, 7)), (49, Ok(49)));
    assert_eq!((power(2, 10), run(power, (2, 10))), (Ok(1024), Ok(1024)));
    assert_eq!(run(power, (2, 100)), Err("overflow".to_owned()));
    assert_eq!(run(one_tuple, (1, 2)), Ok(3));
    assert_eq!((countdown(2), run(countdown, 3)), (vec![2, 1], Ok(vec![3, 2, 1])));
    assert_eq!((factorial(5), run(factorial, 6)), (120, Ok(720)));
    assert_eq!((is_even(5), run(is_even, 6)), (false, Ok(true)));
    assert_eq!(run(io_result, true), Ok(1));
    assert_eq!(run(io_result, false), Err("no luck".to_owned()));
    assert_eq!(run(unit_result, true), Ok(()));
    assert!(run(unit_result, false).is_err());
    assert_eq!(run(result_of_a_module, 255), Err("full".to_owned()));
    assert_eq!(run(outcome, 1).map(|it| it.0), Ok(Ok(1)));
    assert_eq!(run(at_compile_time, 1), Ok(2));
    assert_eq!(run(borrowed_for_ever, "abc".into()), Ok(3));

    let point = Point { x: 3, y: 4 };
    assert_eq!(run(tuple_and_more, ((1, 2), point.clone(), true, [4; 4])), Ok(10));
    assert_eq!(structured(BTreeMap::new(), None), None);
    assert_eq!(run(structured, (BTreeMap::new(), Some(Box::new(point.clone())))), Ok(Some(point)));

    assert_eq!(signature(nothing), ("fn nothing()", "() -> ()"));
    assert_eq!(signature(countdown), ("fn countdown(from: u32) -> Vec<u32>", "(u32) -> Vec<u32>"));
    assert_eq!(signature(at_compile_time).0, "fn at_compile_time(x: u32) -> u32");
    assert_eq!(
        signature(structured).1,
        "(BTreeMap<String, Vec<Point>>, Option<Box<Point>>) -> Option<Point>"
    );
}
