use worker::task;

#[task(timeout = 5)]
fn unknown(x: i64) -> i64 {
    x
}

#[task(name = square)]
fn no_string(x: i64) -> i64 {
    x
}

#[task(name = "")]
fn empty(x: i64) -> i64 {
    x
}

#[task(name = "two words")]
fn two_words(x: i64) -> i64 {
    x
}

#[task("square")]
fn bare(x: i64) -> i64 {
    x
}

#[task(name)]
fn no_value(x: i64) -> i64 {
    x
}

#[task(name = "a" register = false)]
fn no_comma(x: i64) -> i64 {
    x
}

#[task(name = "a", name = "b")]
fn twice(x: i64) -> i64 {
    x
}

fn main() {}
