use worker::task;

type Answer = Result<u8, String>;

#[task]
fn aliased() -> Answer {
    Err("no".into())
}

fn main() {}
