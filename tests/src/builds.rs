//! Two builds of one program, which differ in what a task returns; and a program whose file is replaced, renamed or
//! deleted while it runs.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "for the tests")]

use std::path::Path;

use coordinator::{Builder, Pool};
use worker::Task;

/// Makes a pool, has something become of a program's file after the third input, and prints all results.
///
/// # Panics
///
/// If the file can't be changed.
pub fn run<T: Task<Input = u32, Output = u32>>(task: T) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let this = std::env::current_exe().unwrap();
    match words[..] {
        ["replaced", other] => map(builder(), task, || replace(&this, Path::new(other))),
        ["deleted"] => map(builder(), task, || std::fs::remove_file(&this).unwrap()),
        ["renamed", to] => map(builder(), task, || std::fs::rename(&this, to).unwrap()),
        // The worker's, which is another program.
        ["separate", program, other] => {
            let change = || replace(Path::new(program), Path::new(other));
            map(builder().worker(program), task, change);
        }
        // Its own file by name.
        ["named", other] => map(builder().worker(&this), task, || {
            replace(&this, Path::new(other));
        }),
        _ => panic!("{words:?}"),
    }
}

fn builder() -> Builder {
    Pool::builder().workers(1).recycle_after(2)
}

fn replace(path: &Path, with: &Path) {
    let new = path.with_extension("new");
    std::fs::copy(with, &new).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn map<T: Task<Input = u32, Output = u32>>(builder: Builder, task: T, change: impl Fn()) {
    let pool = builder.build().unwrap();
    for number in 0..8 {
        if number == 3 {
            change();
        }
        match pool.call(task, number) {
            Ok(value) => println!("{value}"),
            Err(error) => println!("{error}"),
        }
    }
    drop(pool);
    match Pool::new(1).map(|pool| pool.call(task, 8)) {
        Ok(Ok(value)) => println!("new pool: {value}"),
        other => println!("new pool: {other:?}"),
    }
}
