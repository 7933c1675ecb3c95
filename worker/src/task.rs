//! What a task is.

use std::error::Error;
use std::fmt::Display;
use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

/// A function that workers can run. Write `#[task]` on a function instead of implementing this.
///
/// The attribute turns `fn square(x: i64) -> i64` into a unit struct `square` that implements this
/// trait and can still be called as a function.
///
/// * Several parameters make a tuple: the input of `fn power(base: u64, exponent: u32)` is
///   `(u64, u32)`. No parameter makes `()`.
/// * If the return type is written as some `Result`, say `Result<T, E>` with `E: Display` or
///   `io::Result<T>`, then `Output` is `T` and an error ends the call as *failed*, with the error's text and those of its
///   causes.
/// * A `Result` under another name is refused, because its errors would be taken for values. If they are meant to be,
///   wrap it in a type of your own.
/// * Parameters, 16 at most, are owned values that serde can carry: `String` and not `&str`. `serde_json::Value` and
///   types with some of serde's attributes travel in [`Described`](crate::Described).
/// * It is a free function: one in an `impl` can't be a task, but a task can call it. In its own body a task's name is
///   the function; to map itself it writes `pool.map(name {}, inputs)`.
/// * The name is the function's, or another by `#[task(name = "images.resize")]`. A program can't
///   have two tasks of one name.
/// * Where the task is in scope no variable can have its name: `let square = square(7)` does not
///   compile, because a unit struct's name is a pattern.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "this is not a task",
    note = "a task is a function with the attribute `#[task]`; pass its name, as in `pool.map(square, inputs)`",
    note = "within the task's own body its name is the function; there write `pool.map(square {{}}, inputs)`"
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
    /// What it holds when it says no.
    type Error;
    /// The one or the other.
    ///
    /// # Errors
    ///
    /// What it holds when it says no.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E: Display> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;
    fn into_result(self) -> Result<T, E> {
        self
    }
}

/// A return type that is not written as a `Result`, and is not to be one either: `Returned::<T>::IS_RESULT`, with
/// [`NoResult`] in scope, tells.
#[derive(Debug)]
pub struct Returned<T>(PhantomData<T>);

impl<T, E> Returned<Result<T, E>> {
    /// The compiler takes what a type has itself before what a trait gives it.
    pub const IS_RESULT: bool = true;
}

/// What is true of all other types.
pub trait NoResult {
    /// It is none.
    const IS_RESULT: bool = false;
}

impl<T> NoResult for Returned<T> {}

/// An error that is to become text, with all its causes if it is an [`Error`].
///
/// The expansion of `#[task]` calls `(&&&Told(&error)).as_text()` with the traits below in scope. The compiler looks for a
/// method of `&&Told`, then of `&&&Told`, of `&Told`, and of `Told`, and takes the first that the error's type allows.
#[derive(Debug)]
pub struct Told<'e, E>(pub &'e E);

/// The text of an [`Error`].
pub trait ErrorText {
    /// The text.
    fn as_text(&self) -> String;
}

impl<E: Error> ErrorText for &&&Told<'_, E> {
    fn as_text(&self) -> String {
        with_causes(format!("{:#}", self.0), self.0.source())
    }
}

/// The text of an error in a box.
pub trait BoxedText {
    /// The text.
    fn as_text(&self) -> String;
}

macro_rules! boxed {
    ($($boxed:ty),*) => {$(
        impl BoxedText for &&Told<'_, $boxed> {
            fn as_text(&self) -> String {
                with_causes(format!("{:#}", self.0), self.0.source())
            }
        }
    )*};
}
boxed!(
    Box<dyn Error>,
    Box<dyn Error + Send>,
    Box<dyn Error + Send + Sync>
);

/// The text of what is no more than text, with its causes where `{:#}` shows them.
pub trait DisplayText {
    /// The text.
    fn as_text(&self) -> String;
}

impl<E: Display> DisplayText for &Told<'_, E> {
    fn as_text(&self) -> String {
        format!("{:#}", self.0)
    }
}

/// There is none. [`Fallible`] has said what is missing, and that is enough.
pub trait NoText {
    /// Nothing.
    fn as_text(&self) -> String;
}

impl<E> NoText for Told<'_, E> {
    fn as_text(&self) -> String {
        String::new()
    }
}

/// Adds the causes, but those that the text has already.
fn with_causes(mut text: String, mut cause: Option<&(dyn Error + 'static)>) -> String {
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{BoxedText as _, DisplayText as _, ErrorText as _, Told};

    macro_rules! text {
        ($error:expr) => {
            (&&&Told(&$error)).as_text()
        };
    }

    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("it can't be saved")
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let outer = || Outer(io::Error::other("the disk is full"));
        let told = "it can't be saved: the disk is full";
        assert_eq!(text!(outer()), told);
        let boxed: Box<dyn std::error::Error> = outer().into();
        assert_eq!(text!(boxed), told);
        let boxed: Box<dyn std::error::Error + Send + Sync> = outer().into();
        assert_eq!(text!(boxed), told);
        // What it says itself is not said twice.
        let io = io::Error::other(outer());
        assert_eq!(text!(io), told);
        assert_eq!(text!("no more than text"), "no more than text");
        assert_eq!(text!("owned".to_owned()), "owned");
    }
}
