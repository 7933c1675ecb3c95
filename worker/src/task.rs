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
/// * A `Result` under another name is refused, because its errors would be taken for values. If that is what you want,
///   wrap it in a type of your own.
/// * Parameters, 16 at most, are owned values that serde can carry: `String` and not `&str`. `serde_json::Value` and
///   types with some of serde's attributes travel in [`Described`](crate::Described).
/// * A task is a free function. A method in an `impl` can't be a task, but a task can call it. In its own body a task's
///   name is the function; to map itself, a task writes `pool.map(name {}, inputs)`.
/// * The name is the function's, or another by `#[task(name = "images.resize")]`. A crate can't
///   have two tasks of one name. Two crates can: on the command line the crate then stands before it, `images::resize`.
/// * Where the task is in scope no variable can have its name: `let square = square(7)` does not
///   compile, because a unit struct's name is a pattern.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "this is not a task",
    note = "a task is a function with the attribute `#[task]`; pass its name, as in `pool.map(square, inputs)`",
    note = "within the task's own body its name is the function; there write `pool.map(square {{}}, inputs)`"
)]
pub trait Task: Copy + Send + Sync + 'static {
    /// The input of one call.
    type Input: Serialize + DeserializeOwned;
    /// The value that a successful call returns.
    type Output: Serialize + DeserializeOwned + 'static;

    /// The name by which the coordinator asks for it. If a program has tasks of this name in several crates, the coordinator
    /// puts the crate before it: `images::resize`.
    const NAME: &'static str;
    /// The crate that defines the task.
    const CRATE: &'static str = "";
    /// The signature as it stands in the source: `fn square(x: i64) -> i64`.
    const SIGNATURE: &'static str;
    /// The types alone, as in `(i64) -> i64`. Coordinator and worker compare them, because two builds with different types
    /// would misread each other.
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

/// The crate of a module's path.
#[must_use]
pub const fn crate_of(module: &'static str) -> &'static str {
    let bytes = module.as_bytes();
    let mut end = 0;
    while end < bytes.len() && bytes[end] != b':' {
        end += 1;
    }
    module.split_at(end).0
}

/// A return type that can be an error: some `Result`, under whatever alias.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is called `Result` but is none",
    label = "a task that returns some `Result` has its error reach the coordinator as text",
    note = "return `Result<T, E>` with an `E` that implements `Display`, or name the type differently"
)]
pub trait Fallible {
    /// The type of the value.
    type Value;
    /// The type of the error.
    type Error;
    /// The value as a `Result`.
    ///
    /// # Errors
    ///
    /// The error that the value holds.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E: Display> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;
    fn into_result(self) -> Result<T, E> {
        self
    }
}

/// Tells whether a return type that is not written as `Result` is one all the same: `Returned::<T>::IS_RESULT`, with
/// [`NoResult`] in scope.
#[derive(Debug)]
pub struct Returned<T>(PhantomData<T>);

impl<T, E> Returned<Result<T, E>> {
    /// Hides [`NoResult::IS_RESULT`]: the compiler prefers a type's own items to those of a trait.
    pub const IS_RESULT: bool = true;
}

/// Holds for all other types.
pub trait NoResult {
    /// Whether the type is a `Result`.
    const IS_RESULT: bool = false;
}

impl<T> NoResult for Returned<T> {}

/// An error that will become text, with all its causes if it is an [`Error`].
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

/// The text of an error that has only `Display`, with the causes that `{:#}` shows.
pub trait DisplayText {
    /// The text.
    fn as_text(&self) -> String;
}

impl<E: Display> DisplayText for &Told<'_, E> {
    fn as_text(&self) -> String {
        format!("{:#}", self.0)
    }
}

/// No text. This implementation avoids a second compiler error, because [`Fallible`] has already reported what is
/// missing.
pub trait NoText {
    /// Nothing.
    fn as_text(&self) -> String;
}

impl<E> NoText for Told<'_, E> {
    fn as_text(&self) -> String {
        String::new()
    }
}

/// Appends the causes that the text does not contain yet.
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
        // A cause that the text ends with is not repeated.
        let io = io::Error::other(outer());
        assert_eq!(text!(io), told);
        assert_eq!(text!("no more than text"), "no more than text");
        assert_eq!(text!("owned".to_owned()), "owned");
    }
}
