use worker::task;

struct Counter(u32);

impl Counter {
    #[task]
    fn borrowed(&self) -> u32 {
        self.0
    }

    #[task]
    fn owned(self, by: u32) -> u32 {
        self.0 + by
    }
}

fn main() {}
