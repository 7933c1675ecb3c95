use worker::task;

#[task]
#[rustfmt::skip]
fn seventeen(
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
) {}

fn main() {}
