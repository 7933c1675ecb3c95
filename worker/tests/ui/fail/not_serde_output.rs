use worker::task;

struct Matrix {
    _rows: u32,
}

#[task]
fn identity(rows: u32) -> Matrix {
    Matrix { _rows: rows }
}

#[task]
fn checked_identity(rows: u32) -> Result<Matrix, String> {
    Ok(Matrix { _rows: rows })
}

fn main() {}
