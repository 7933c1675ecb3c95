//! How inputs and outputs become bytes and back.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use protocol::board::InputSheet;
use protocol::message::Encoding;
use worker::Task;

use crate::payload::{Encoded, Job, Place};

/// Knows a task's types, or that nobody knows them.
pub trait Codec {
    /// What a call takes.
    type Input;
    /// What it returns.
    type Output;
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn job(&self) -> Job;
    #[doc(hidden)]
    fn encode(&self, input: Self::Input, to: &mut InputSheet<'_>) -> Result<(), String>;
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn decode(output: Encoded<'_>) -> Result<Self::Output, String>;
}

/// Calls of a task that this program knows.
pub struct Typed<T>(PhantomData<fn() -> T>);

impl<T: Task> Typed<T> {
    pub(crate) fn new() -> Self {
        Typed(PhantomData)
    }
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed")
    }
}

impl<T: Task> Codec for Typed<T> {
    type Input = T::Input;
    type Output = T::Output;

    #[allow(private_interfaces)]
    fn job(&self) -> Job {
        Job {
            task: worker::private::name_of::<T>().into(),
            types: Some(T::TYPES.to_owned()),
            encoding: Encoding::Postcard,
            place: Place::default(),
        }
    }

    #[inline]
    fn encode(&self, input: T::Input, to: &mut InputSheet<'_>) -> Result<(), String> {
        to.encode(&input)
            .map_err(|why| format!("the input of `{}` could not be encoded: {why}", T::NAME))
    }

    #[inline]
    #[allow(private_interfaces)]
    fn decode(output: Encoded<'_>) -> Result<T::Output, String> {
        let decoded = match output {
            Encoded::Bytes(bytes) => protocol::decode(bytes),
            Encoded::Apart(apart) => apart.decode(),
        };
        decoded.map_err(|what| format!("the output of `{}` could not be decoded: {what}", T::NAME))
    }
}

/// Calls of a task that this program knows only by name: inputs are what a person types (JSON of
/// the task's input type, or else a plain string), and outputs are JSON, empty for a unit.
#[derive(Debug, Clone)]
pub struct Text {
    task: Arc<str>,
    encoding: Encoding,
}

impl Text {
    /// Runs the task.
    pub(crate) fn of(task: &str) -> Self {
        Text {
            task: task.into(),
            encoding: Encoding::Text,
        }
    }

    /// Only looks whether it could be run.
    pub(crate) fn check(task: &str) -> Self {
        Text {
            encoding: Encoding::Check,
            ..Self::of(task)
        }
    }
}

impl Codec for Text {
    type Input = Vec<u8>;
    type Output = Vec<u8>;

    #[allow(private_interfaces)]
    fn job(&self) -> Job {
        Job {
            task: Arc::clone(&self.task),
            types: None,
            encoding: self.encoding,
            place: Place::default(),
        }
    }

    fn encode(&self, input: Vec<u8>, to: &mut InputSheet<'_>) -> Result<(), String> {
        to.write(&input);
        Ok(())
    }

    #[allow(private_interfaces)]
    fn decode(output: Encoded<'_>) -> Result<Vec<u8>, String> {
        Ok(match output {
            Encoded::Bytes(bytes) => bytes.to_vec(),
            Encoded::Apart(apart) => apart.join(),
        })
    }
}
