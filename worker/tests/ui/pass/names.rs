//! Tasks whose names collide with something: keywords, parameters, what the expansion uses, each other.
#![deny(warnings)]

use worker::{Task, task};

#[task]
fn r#type(r#fn: u8) -> u8 {
    r#fn + 1
}

#[task]
fn input_0(x: u8) -> u8 {
    x + 1
}

#[task]
fn input_1(x: u8, y: u8) -> u8 {
    x + y
}

#[task]
fn output_0(input_2: u8) -> u8 {
    input_2 + 2
}

#[task]
fn itself(itself: u8, other: u8) -> u8 {
    itself + other
}

// What the expansion defines or calls itself.
#[task]
fn run(x: u8) -> u8 {
    x
}

#[task]
fn deref(x: u8) -> u8 {
    x
}

#[task]
#[allow(non_snake_case)]
fn FUNCTION(x: u8) -> u8 {
    x
}

#[task]
fn task(x: u8) -> Result<u8, String> {
    Ok(x)
}

mod images {
    #[worker::task(name = "images.resize")]
    pub(super) fn resize(x: u8) -> u8 {
        x / 2
    }

    pub mod deeper {
        pub type Size = u16;

        #[worker::task(name = "images.deeper.resize",)]
        pub(in super::super) fn resize(x: super::deeper::Size) -> self::Size {
            x * 2
        }
    }
}

#[task(name = "größe-42/π")]
fn any_characters() {}

fn within_a_function() -> (u8, &'static str) {
    type Local = u8;

    #[task]
    fn inner(x: Local) -> Local {
        x + helper()
    }

    fn helper() -> u8 {
        10
    }

    (inner(1), name(inner))
}

fn within_another_function() -> (u8, &'static str) {
    #[task(name = "another.inner")]
    fn inner(x: u8) -> u8 {
        x + 20
    }
    (inner(1), name(inner))
}

fn name<T: Task>(_: T) -> &'static str {
    T::NAME
}

fn main() {
    assert_eq!((r#type(1), name(r#type), <r#type as Task>::SIGNATURE), (2, "type", "fn type(r#fn: u8) -> u8"));
    assert_eq!((input_0(1), <input_0 as Task>::run(1)), (2, Ok(2)));
    assert_eq!((input_1(1, 2), <input_1 as Task>::run((1, 2))), (3, Ok(3)));
    assert_eq!((output_0(1), <output_0 as Task>::run(1)), (3, Ok(3)));
    assert_eq!((itself(1, 2), <itself as Task>::run((1, 2))), (3, Ok(3)));
    assert_eq!((run(1), <run as Task>::run(1)), (1, Ok(1)));
    assert_eq!((deref(1), <deref as Task>::run(1)), (1, Ok(1)));
    assert_eq!((FUNCTION(1), <FUNCTION as Task>::run(1)), (1, Ok(1)));
    assert_eq!((task(1), <task as Task>::run(1)), (Ok(1), Ok(1)));
    assert_eq!((images::resize(4), name(images::resize)), (2, "images.resize"));
    assert_eq!((images::deeper::resize(4), name(images::deeper::resize)), (8, "images.deeper.resize"));
    any_characters();
    assert_eq!(name(any_characters), "größe-42/π");
    assert_eq!(within_a_function(), (11, "inner"));
    assert_eq!(within_another_function(), (21, "another.inner"));
}
