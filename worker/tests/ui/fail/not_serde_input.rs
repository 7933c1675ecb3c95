use worker::task;

struct Matrix {
    _rows: u32,
}

#[task]
fn transpose(matrix: Matrix) -> u32 {
    matrix._rows
}

fn main() {}
