//! One of two builds of the same program: see [`tests::builds`].

/// What tells the builds from each other.
#[worker::task]
fn number(_: u32) -> u32 {
    100
}

fn main() {
    worker::init();
    tests::builds::run(number);
}
