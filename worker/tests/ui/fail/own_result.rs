use worker::task;

#[derive(serde::Serialize, serde::Deserialize)]
struct Result {
    value: u32,
}

#[task]
fn risky(value: u32) -> Result {
    Result { value }
}

fn main() {}
