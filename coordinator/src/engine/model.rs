//! Waiting and waking in every order in which threads may take their steps, by `loom`: it fails if all of them sleep.

/// What the condition is made of here.
mod sync {
    pub(crate) use loom::sync::atomic::AtomicUsize;
    pub(crate) use loom::sync::{Condvar, MutexGuard};
}

#[expect(clippy::duplicate_mod, reason = "the same steps, of other parts")]
#[path = "condition.rs"]
mod condition;

use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;

use condition::Condition;

/// Calls that wait, and slots that take them: one waits at each condition, or all wait at one.
#[derive(Default)]
struct Shared {
    calls: Mutex<u32>,
    changed: Condition,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, u32> {
        self.calls
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take(&self) {
        let mut calls = self.lock();
        while *calls == 0 {
            calls = self.changed.wait(calls, None);
        }
        *calls -= 1;
    }

    fn add(&self, wake: impl Fn(&Condition)) {
        *self.lock() += 1;
        wake(&self.changed);
    }
}

/// Lets some threads take a call each, and as many calls come one by one.
fn model(takers: u32, wake: impl Fn(&Condition) + Copy + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new(Shared::default());
        let slots: Vec<_> = (0..takers)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.take())
            })
            .collect();
        (0..takers).for_each(|_| shared.add(wake));
        slots.into_iter().for_each(|slot| _ = slot.join());
        assert_eq!(*shared.lock(), 0);
    });
}

#[test]
fn nobody_sleeps_on_while_there_is_a_call() {
    model(1, Condition::notify_one);
    model(2, Condition::notify_one);
    model(2, Condition::notify_all);
}
