//! Model checking of the record: `loom` tries every order in which two processors may take and see its steps. A worker may
//! die after any step, so a coordinator that looks between any two steps sees what a dead worker would leave behind.

use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
use loom::sync::{Arc, Notify};
use loom::thread;

use super::Found;
use super::mail::{self, Mail};
use super::record::{ENTRIES, Memory, Record};
use crate::message::{CallEnd, Verdict};

/// The memory of a model: three entries, of one word each.
#[derive(Debug)]
struct Modelled;

impl Memory for Modelled {
    type Word = AtomicU64;
    const CALLS: usize = 3;

    fn load(word: &AtomicU64, order: Ordering) -> u64 {
        word.load(order)
    }

    fn store(word: &AtomicU64, value: u64, order: Ordering) {
        word.store(value, order);
    }

    fn exchange(word: &AtomicU64, from: u64, to: u64) -> Result<u64, u64> {
        word.compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire)
    }

    fn fence(order: Ordering) {
        fence(order);
    }

    fn copy(words: &[AtomicU64], len: usize, into: &mut Vec<u8>) {
        let bytes = words
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        into.extend(bytes.take(len));
    }
}

/// What worker and coordinator share.
struct Shared {
    words: Vec<AtomicU64>,
    /// Whether each call's output has been recorded, by the model's own account.
    written: [AtomicBool; 2],
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Shared {
            words: (0..ENTRIES + 6).map(|_| AtomicU64::new(0)).collect(),
            written: [AtomicBool::new(false), AtomicBool::new(false)],
        })
    }

    fn record(&self) -> Record<'_, Modelled> {
        Record(&self.words)
    }
}

/// A message between the two. A loop around the wait is needed: loom may wake it once without a cause.
struct Message(Notify, AtomicBool);

impl Message {
    fn new() -> Arc<Self> {
        Arc::new(Message(Notify::new(), AtomicBool::new(false)))
    }

    fn send(&self) {
        self.1.store(true, Ordering::Release);
        self.0.notify();
    }

    fn receive(&self) {
        while !self.1.load(Ordering::Acquire) {
            self.0.wait();
        }
    }
}

/// Tries all orders with a bounded number of switches between threads. More switches have found nothing new.
fn model(play: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(play);
}

/// The end of a call that has printed something.
fn end() -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::encode(&the_end(), &mut bytes).unwrap_or_default();
    bytes
}

fn the_end() -> CallEnd {
    CallEnd {
        stdout: 3,
        stderr: 4,
        verdict: Verdict::Value,
    }
}

/// The outputs of the two calls.
fn output(batch: u8, call: usize) -> [u8; 2] {
    [batch, call as u8]
}

/// Asserts that outputs found at any moment are right.
fn check(found: &Found, batch: u8, from: usize) {
    for (nth, output_found) in found.outputs.chunks(2).enumerate() {
        assert_eq!(output_found, output(batch, from + nth));
    }
    assert_eq!(found.outputs.len(), 2 * found.lens.len());
    // Only the second call of the first batch has one.
    let is_there = batch == 1 && from + found.lens.len() == 2;
    let ends = is_there.then(|| (1 - from as u32, the_end()));
    assert_eq!(found.ends, Vec::from_iter(ends));
}

#[test]
fn a_call_is_run_or_taken_back_never_both() {
    model(|| {
        let shared = Shared::new();
        shared.record().open(2);
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || (0..2).filter(|_| shared.record().start()).count()
        });
        let kept = shared.record().lower(1);
        // Look once more, as the coordinator does when it stops the running call.
        let later = shared.record().lower(0);
        let run = worker.join().unwrap_or_default();
        assert!(later <= kept && kept >= 1 && run as u32 == later);
        assert_eq!(shared.record().progress().started, later);
    });
}

#[test]
fn what_is_found_at_any_moment_is_right_and_charged_to_the_one_that_ran() {
    model(|| {
        let shared = Shared::new();
        shared.record().open(2);
        let worker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut recorder = shared.record().recorder();
                for call in 0..2 {
                    if shared.record().start() {
                        shared.written[call].store(true, Ordering::Relaxed);
                        match call {
                            0 => {
                                assert!(recorder.finish(&output(1, call), 1));
                                // The outputs have been sent over the link, so the box need not keep them.
                                recorder.sent(1);
                            }
                            _ => assert!(recorder.finish_with(&end(), &output(1, call), 1)),
                        }
                    }
                }
            }
        });
        let progress = shared.record().progress();
        assert!(progress.finished <= progress.started && progress.started <= 2);
        for call in 0..progress.finished as usize {
            assert!(shared.written[call].load(Ordering::Relaxed));
        }
        check(&shared.record().finished(0), 1, 0);
        check(&shared.record().finished(1), 1, 1);
        worker.join().unwrap_or_default();
    });
}

/// A worker may record that it has sent a batch's last outputs when the next batch is there already.
#[test]
fn what_is_left_of_a_batch_is_never_taken_for_the_next() {
    model(|| {
        let shared = Shared::new();
        let (said, given) = (Message::new(), Message::new());
        shared.record().open(1);
        let worker = thread::spawn({
            let (shared, said, given) =
                (Arc::clone(&shared), Arc::clone(&said), Arc::clone(&given));
            move || {
                let mut recorder = shared.record().recorder();
                assert!(shared.record().start() && recorder.finish(&output(1, 0), 1));
                said.send();
                recorder.sent(1);
                given.receive();
                let mut recorder = shared.record().recorder();
                assert!(shared.record().start());
                shared.written[0].store(true, Ordering::Relaxed);
                assert!(recorder.finish(&output(2, 0), 1));
            }
        });
        said.receive();
        shared.record().open(1);
        given.send();
        check(&shared.record().finished(0), 2, 0);
        if shared.record().progress().finished == 1 {
            assert!(shared.written[0].load(Ordering::Relaxed));
        }
        worker.join().unwrap_or_default();
    });
}

/// What a socket is to the mail: a byte that wakes the reader.
#[test]
fn mail_is_found_or_its_reader_is_nudged() {
    model(|| {
        let words: Arc<Vec<AtomicU64>> =
            Arc::new((0..mail::WORDS).map(|_| AtomicU64::new(0)).collect());
        let nudge = Message::new();
        let reads = |words: &[AtomicU64], received| {
            let mail = Mail::<Modelled>(words);
            let mut read = Vec::new();
            if mail.is_there(received) {
                mail.take(&mut read);
            }
            read
        };
        Mail::<Modelled>(&words).stay_awake();
        let sender = thread::spawn({
            let (words, nudge) = (Arc::clone(&words), Arc::clone(&nudge));
            move || {
                let posted = Mail::<Modelled>(&words).post(b"one", 0);
                if posted != Some(false) {
                    // By the socket if the reader slept already, or else the byte that wakes it.
                    nudge.send();
                }
                posted
            }
        });
        let mail = Mail::<Modelled>(&words);
        let mut read = reads(&words, 0);
        let mut was_nudged = false;
        if read.is_empty() {
            mail.fall_asleep();
            read = reads(&words, 0);
        }
        if read.is_empty() {
            nudge.receive();
            was_nudged = mail.received(0, 1);
            read = reads(&words, 0);
        }
        let posted = sender.join().unwrap_or_default();
        match posted {
            // It goes by the socket.
            None => assert!(read.is_empty() && !was_nudged),
            Some(_) => assert_eq!(read, b"one"),
        }
        if posted == Some(true) {
            // Whenever the byte is read, it is known for what it is.
            assert!(was_nudged || mail.received(0, 1));
        }
    });
}

/// One after another, each is read once and whole.
#[test]
fn mail_is_not_posted_over_mail() {
    model(|| {
        let words: Arc<Vec<AtomicU64>> =
            Arc::new((0..mail::WORDS).map(|_| AtomicU64::new(0)).collect());
        Mail::<Modelled>(&words).stay_awake();
        let sender = thread::spawn({
            let words = Arc::clone(&words);
            move || {
                let mail = Mail::<Modelled>(&words);
                let sent = [b"one......", b"two......"].map(|bytes| mail.post(bytes, 0));
                sent.into_iter().flatten().count()
            }
        });
        let mail = Mail::<Modelled>(&words);
        let mut read = Vec::new();
        for _ in 0..2 {
            if mail.is_there(0) {
                mail.take(&mut read);
            }
        }
        let sent = sender.join().unwrap_or_default();
        while mail.is_there(0) {
            mail.take(&mut read);
        }
        assert_eq!(read, &b"one......two......"[..9 * sent]);
    });
}
