use std::borrow::Cow;
use worker::task;

#[task]
fn text(text: &str) -> usize {
    text.len()
}

#[task]
fn slice(numbers: &[i64]) -> i64 {
    numbers.iter().sum()
}

#[task]
fn reference(scale: u8, numbers: &mut Vec<i64>) -> i64 {
    numbers.iter().sum::<i64>() * i64::from(scale)
}

#[task]
fn nested(words: Vec<Option<&'static str>>) -> usize {
    words.len()
}

#[task]
fn elided(text: Cow<'_, str>) -> usize {
    text.len()
}

fn main() {
    // The functions are still there: no second error for their use.
    text("abc");
    slice(&[1]);
}
