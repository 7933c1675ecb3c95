//! What a task is.

use std::fmt::Display;

use serde::{Serialize, de::DeserializeOwned};

/// A function that workers can run. Write `#[task]` on a function instead of implementing this.
///
/// The attribute turns `fn square(x: i64) -> i64` into a unit struct `square` that implements this
/// trait and can still be called as a function.
///
/// * Several parameters make a tuple: the input of `fn power(base: u64, exponent: u32)` is
///   `(u64, u32)`. No parameter makes `()`.
/// * If the return type is written as some `Result`, say `Result<T, E>` with `E: Display` or
///   `io::Result<T>`, then `Output` is `T` and an error ends the call as *failed*.
/// * Parameters are owned values that serde can carry: `String` and not `&str`.
/// * The name is the function's, or another by `#[task(name = "images.resize")]`. A program can't
///   have two tasks of one name.
/// * Where the task is in scope no variable can have its name: `let square = square(7)` does not
///   compile, because a unit struct's name is a pattern.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "this is not a task",
    note = "a task is a function with the attribute `#[worker::task]`; pass its name, as in `pool.map(square, inputs)`"
)]
pub trait Task: Copy + Send + Sync + 'static {
    /// What one call takes.
    type Input: Serialize + DeserializeOwned;
    /// What a call that succeeds returns.
    type Output: Serialize + DeserializeOwned + 'static;

    /// The name by which the coordinator asks for it.
    const NAME: &'static str;
    /// The signature as it stands in the source: `fn square(x: i64) -> i64`.
    const SIGNATURE: &'static str;
    /// The types alone, `(i64) -> i64`: two builds whose types differ must not talk about the task.
    const TYPES: &'static str;
    /// The doc comment, without its markers.
    const DOC: &'static str;

    /// Runs the function.
    ///
    /// # Errors
    ///
    /// The function's own error, as text.
    fn run(input: Self::Input) -> Result<Self::Output, String>;
}

/// A return type that can say no: some `Result`, under whatever alias.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is called `Result` but is none",
    label = "a task that returns some `Result` has its error reach the coordinator as text",
    note = "return `Result<T, E>` with an `E` that implements `Display`, or name the type differently"
)]
pub trait Fallible {
    /// What it holds when it says yes.
    type Value;
    /// The value, or the error as text.
    ///
    /// # Errors
    ///
    /// The error as text, with its causes where `{:#}` shows them.
    fn into_result(self) -> Result<Self::Value, String>;
}

impl<T, E: Display> Fallible for Result<T, E> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}
