use worker::task;

struct Matrix {
    _rows: u32,
}

#[task]
fn scale(factor: f64, matrix: Matrix) -> f64 {
    factor * f64::from(matrix._rows)
}

fn main() {}
