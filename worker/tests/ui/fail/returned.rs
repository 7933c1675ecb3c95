use worker::task;

#[task]
fn text(x: u8) -> &'static str {
    if x == 0 { "none" } else { "some" }
}

#[task]
fn nested(x: u8) -> Option<&'static str> {
    (x > 0).then_some("some")
}

#[task]
fn hidden(n: u32) -> impl Iterator<Item = u32> {
    0..n
}

#[task]
fn never(code: i32) -> ! {
    std::process::exit(code)
}

fn main() {}
