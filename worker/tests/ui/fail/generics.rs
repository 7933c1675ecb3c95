use worker::task;

#[task]
fn debug(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

#[task]
fn nested(values: Vec<impl std::fmt::Debug>) -> String {
    format!("{values:?}")
}

#[task]
fn generic<T: std::fmt::Debug>(value: T) -> String {
    format!("{value:?}")
}

#[task]
fn constant<const N: usize>(values: [u8; N]) -> usize {
    values.len()
}

#[task]
fn bounded(x: u8) -> u8
where
    u8: Copy,
{
    x
}

fn main() {}
