//! A program with two tasks of one name can't be a worker, and says where they are.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail, and prints"
)]

mod support;

use std::process::ExitCode;

use support::{Place, command, complaint, ended, this_program};

mod images {
    pub(crate) const LINE: u32 = line!() + 1;
    #[worker::task]
    fn resize(x: u32) -> u32 {
        x / 2
    }
}

mod videos {
    pub(crate) const LINE: u32 = line!() + 1;
    #[worker::task]
    fn resize(x: u32) -> u32 {
        x / 4
    }
}

fn main() -> ExitCode {
    support::main(&[
        ("both_places_are_named", both_places_are_named),
        ("nothing_else_works_either", nothing_else_works_either),
    ])
}

fn names_both(why: &str) {
    assert!(why.contains("two tasks are named `resize`, at "), "{why}");
    for line in [images::LINE, videos::LINE] {
        let place = format!("tests/two_of_one_name.rs:{line}");
        assert!(why.contains(&place), "{place} is not in: {why}");
    }
    assert!(
        why.ends_with("give one of them another name with #[task(name = \"…\")]"),
        "{why}"
    );
}

fn both_places_are_named() {
    let output = ended(command(this_program()).arg("tasks").spawn().unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    names_both(stderr.trim_end());
}

fn nothing_else_works_either() {
    let call = command(this_program())
        .args(["call", "resize", "4"])
        .spawn();
    names_both(&complaint(&ended(call.unwrap())));
    // It does not even come to meet the coordinator.
    let place = Place::new();
    let connect = place.command(this_program()).spawn();
    names_both(&complaint(&ended(connect.unwrap())));
}
