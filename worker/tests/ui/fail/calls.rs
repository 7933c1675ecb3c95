use worker::task;

#[task]
fn square(x: i64) -> i64 {
    x * x
}

fn main() {
    square("7");
    square(1, 2);
    // A task is a unit struct, and such a name can't be a variable's.
    let square = square(7);
}
