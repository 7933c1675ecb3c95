//! A shared value whose destructor runs what a test wants.
#![allow(missing_docs)]

use std::sync::{Mutex, PoisonError};

use coordinator::Shared;
use serde::{Deserialize, Serialize};
use worker::task;

type Hook = Box<dyn FnOnce() + Send>;

static ON_DROP: Mutex<Option<Hook>> = Mutex::new(None);

/// What the next destructor of a [`Token`] is to run.
pub fn on_drop(hook: impl FnOnce() + Send + 'static) {
    *ON_DROP.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Drop for Token {
    fn drop(&mut self) {
        let hook = ON_DROP
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

#[task]
pub fn read_token(token: Shared<Token>) -> u64 {
    token.0
}
