use worker::task;

#[task]
async fn fetch(url: String) -> String {
    url
}

#[task]
unsafe fn dangerous(address: usize) -> usize {
    address
}

#[task]
extern "C" fn for_c(x: i32) -> i32 {
    x
}

fn main() {}
