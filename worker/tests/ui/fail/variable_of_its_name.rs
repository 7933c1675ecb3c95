//! A variable can't have the name of a task that is in scope: the compiler takes it for the task.

#[worker::task]
fn a(x: i64) -> i64 {
    x
}

fn mul(a: i64, b: i64) -> i64 {
    a * b
}

fn main() {
    mul(2, 3);
}
