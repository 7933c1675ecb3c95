use worker::task;

struct Counter;

impl Counter {
    #[task]
    fn next(from: u32) -> u32 {
        from + 1
    }
}

fn main() {}
