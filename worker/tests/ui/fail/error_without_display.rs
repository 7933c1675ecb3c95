use worker::task;

enum Trouble {
    _Big,
}

#[task]
fn risky(x: u32) -> Result<u32, Trouble> {
    Ok(x)
}

fn main() {}
