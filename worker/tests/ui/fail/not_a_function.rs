use worker::task;

#[task]
struct Square {
    x: i64,
}

#[task]
const SQUARE: fn(i64) -> i64 = |x| x * x;

trait Shape {
    #[task]
    fn area() -> f64;
}

#[task]
mod tasks {}

fn main() {}
