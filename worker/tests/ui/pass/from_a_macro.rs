//! Tasks that a macro writes: their types come in invisible parentheses.
#![deny(warnings)]

use worker::{Task, task};

macro_rules! tasks {
    ($($(#[$attribute:meta])* $visibility:vis $name:ident($($parameter:ident: $ty:ty),*) -> $returned:ty $body:block)*) => {
        $(
            $(#[$attribute])*
            #[task]
            $visibility fn $name($($parameter: $ty),*) -> $returned $body
        )*
    };
}

tasks! {
    /// Halves a number.
    pub half(x: u32) -> Result<u32, String> {
        if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }
    }
    join(parts: Vec<String>, by: (char, u8)) -> String { parts.join(&by.0.to_string()) }
}

fn main() {
    assert_eq!((half(4), <half as Task>::run(4)), (Ok(2), Ok(2)));
    assert_eq!(<half as Task>::run(3), Err("3 is odd".to_owned()));
    assert_eq!(<half as Task>::DOC, "Halves a number.");
    assert_eq!(<half as Task>::SIGNATURE, "fn half(x: u32) -> Result<u32, String>");
    assert_eq!(<join as Task>::TYPES, "(Vec<String>, (char, u8)) -> String");
    assert_eq!(join(vec!["a".into(), "b".into()], ('+', 0)), "a+b");
}
