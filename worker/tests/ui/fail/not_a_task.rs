use worker::task;

#[task]
fn square(x: i64) -> i64 {
    x * x
}

fn plain(x: i64) -> i64 {
    x * x
}

fn needs<T: worker::Task>(_: T) {}

fn main() {
    needs(square);
    needs(plain);
    needs(|x: i64| x * x);
    needs(*square);
    needs("square");
}
