//! Tests of the whole box in real memory. `model` tests its single steps, in every order.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::atomic::AtomicBool;

use super::record::{DONE, SENT, word};
use super::*;
use crate::message::Verdict;

fn new() -> BlackBox {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE as u64).unwrap();
    BlackBox::map(&file).unwrap()
}

#[test]
fn what_was_not_started_can_be_taken_back() {
    let shared = new();
    shared.open(5);
    assert!(shared.start(1) && shared.start(2));
    assert_eq!(shared.lower(0), 2);
    assert!(!shared.start(3));
    let progress = shared.progress();
    assert_eq!((progress.started, progress.allowed), (2, 2));
    // The number allowed is never raised.
    assert_eq!(shared.lower(9), 2);
}

#[test]
fn tickets_are_exact_whoever_is_faster() {
    let shared = new();
    for _ in 0..200 {
        shared.open(1000);
        let (taken, left) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| (0..2000).filter(|_| shared.start(0)).count());
            let lowered = (0..10).rev().map(|to| shared.lower(to * 100));
            let left = lowered.fold(0, |_, left| left);
            (worker.join().unwrap(), left)
        });
        assert_eq!(taken, left as usize);
    }
}

#[test]
fn what_was_finished_and_not_sent_is_found() {
    let shared = new();
    shared.open(10);
    let mut recorder = shared.recorder();
    let outputs: [&[u8]; 4] = [b"", b"1", b"12345678", b"1234567890"];
    for (number, output) in outputs.iter().enumerate() {
        assert!(shared.start(0) && recorder.finish(output, number as u32));
    }
    let found = shared.finished(1);
    assert_eq!(found.outputs, b"1123456781234567890");
    assert_eq!((found.lens, found.nanos), (vec![1, 8, 10], vec![1, 2, 3]));
    recorder.sent(4);
    assert_eq!(shared.finished(4), Found::default());
    assert!(shared.start(0) && recorder.finish(b"x", 7));
    assert_eq!(shared.finished(4).outputs, b"x");
    // Outputs that have been sent are not looked for.
    assert_eq!(shared.finished(5), Found::default());
    assert_eq!(shared.finished(3), Found::default());
    let progress = shared.progress();
    assert_eq!((progress.started, progress.finished), (5, 5));
}

/// What stands in the box of a call that failed and printed something.
fn end(text: &str) -> (CallEnd, Vec<u8>) {
    let end = CallEnd {
        stdout: 1,
        stderr: 1 << 40,
        verdict: Verdict::Failed(text.to_owned()),
    };
    let mut bytes = Vec::new();
    crate::encode(&end, &mut bytes).unwrap();
    (end, bytes)
}

#[test]
fn how_calls_ended_is_found() {
    let shared = new();
    shared.open(10);
    let mut recorder = shared.recorder();
    let (end, bytes) = end("no");
    for call in 0..4 {
        assert!(shared.start(0));
        assert!(match call % 2 {
            0 => recorder.finish(b"a", 1),
            _ => recorder.finish_with(&bytes, b"bc", 2),
        });
    }
    let found = shared.finished(0);
    assert_eq!(found.outputs, b"abcabc");
    assert_eq!(
        (found.lens, found.nanos),
        (vec![1, 2, 1, 2], vec![1, 2, 1, 2])
    );
    assert_eq!(found.ends, [(1, end.clone()), (3, end.clone())]);
    assert_eq!(shared.finished(3).ends, [(0, end)]);
}

#[test]
fn an_end_without_room_for_its_output_leaves_nothing() {
    let shared = new();
    shared.open(u32::MAX);
    let mut recorder = shared.recorder();
    let (_, long) = end(&"x".repeat(OUTPUT_WORDS * 8 - 100));
    assert!(shared.start(0) && !recorder.finish_with(&long, &[7; 200], 1));
    assert_eq!(shared.finished(0), Found::default());
    assert!(recorder.finish(&[7; 200], 1));
    assert_eq!(shared.finished(0).outputs, [7; 200]);
    // Nor without room for a second entry.
    let (_, short) = end("no");
    (2..CALLS).for_each(|_| assert!(shared.start(0) && recorder.finish(b"", 1)));
    assert!(shared.start(0) && !recorder.finish_with(&short, b"", 1));
    assert!(recorder.finish(b"", 1) && shared.start(0) && !recorder.finish(b"", 1));
    assert_eq!(shared.finished(0).lens.len(), CALLS);
}

#[test]
fn ends_that_make_no_sense_are_not_found() {
    let shared = new();
    let (_, bytes) = end("no");
    for nonsense in [&b""[..], b"\xff", &[bytes.as_slice(), b"x"].concat()] {
        shared.open(2);
        let mut recorder = shared.recorder();
        assert!(shared.start(0) && recorder.finish_with(nonsense, b"", 1));
        assert_eq!(shared.finished(0), Found::default());
    }
}

#[test]
fn what_is_found_while_it_is_written_is_right_or_nothing() {
    let shared = new();
    shared.open(u32::MAX);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut recorder = shared.recorder();
            let calls = (0..u32::MAX).take_while(|_| !stop.load(Ordering::Relaxed));
            for call in calls {
                assert!(shared.start(0));
                let output = [&call.to_le_bytes()[..], &[7; 8]].concat();
                let _ = recorder.finish(&output[..4 + call as usize % 9], call);
                if call % 5 > 2 {
                    recorder.sent(call + 1);
                }
            }
        });
        // Nonsense in the box must not break this either.
        let _stop = Stop(&stop);
        let mut times = 0;
        while times < 10_000 {
            let from = shared.progress().finished.saturating_sub(2);
            let found = shared.finished(from);
            times += u32::from(!found.lens.is_empty());
            let mut rest = &*found.outputs;
            for (call, (len, nanos)) in (from..).zip(found.lens.iter().zip(&found.nanos)) {
                let (output, behind) = rest.split_at(*len as usize);
                rest = behind;
                assert_eq!((*len, *nanos), (4 + call % 9, call));
                assert_eq!(output[..4], call.to_le_bytes());
                assert!(output[4..].iter().all(|byte| *byte == 7));
            }
            assert!(rest.is_empty());
        }
    });
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_full_box_says_so() {
    let shared = new();
    shared.open(3);
    let mut recorder = shared.recorder();
    assert!(shared.start(1));
    assert!(!recorder.finish(&vec![0; OUTPUT_WORDS * 8 + 1], 0));
    assert!(recorder.finish(&vec![7; OUTPUT_WORDS * 8], 0));
    assert!(!recorder.finish(b"1", 0));
    assert_eq!(shared.finished(0).outputs.len(), OUTPUT_WORDS * 8);
    recorder.sent(1);
    for _ in 0..CALLS {
        assert!(recorder.finish(b"", 0));
    }
    assert!(!recorder.finish(b"", 0));
}

/// A worker may record that it has sent its last reply when the next batch is there already.
#[test]
fn what_is_left_of_a_batch_is_never_taken_for_the_next_one() {
    let shared = new();
    shared.open(2);
    let mut recorder = shared.recorder();
    assert!(shared.start(1) && recorder.finish(b"old", 1));
    assert!(shared.start(2) && recorder.finish(b"old", 1));
    shared.open(2);
    // This is the moment between the two steps with which a recorder begins.
    shared.word(SENT).store(word(9, 0), Ordering::Relaxed);
    shared.word(DONE).store(2, Ordering::Release);
    assert!(shared.finished(0).lens.is_empty());
    let mut recorder = shared.recorder();
    assert!(shared.start(3) && recorder.finish(b"new", 1));
    assert_eq!(shared.finished(0).outputs, b"new");
}

#[test]
fn nonsense_is_read_as_nothing_worse() {
    let shared = new();
    for seed in 0..200_u64 {
        for (index, word) in shared.words().iter().enumerate().take(OUTPUTS) {
            let noise = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ index as u64);
            word.store(
                if seed % 2 == 0 { noise } else { noise % 32 },
                Ordering::Relaxed,
            );
        }
        let progress = shared.progress();
        assert!(progress.finished <= progress.started);
        let found = shared.finished((seed % 8) as u32);
        assert_eq!(found.lens.len(), found.nanos.len());
        let total: usize = found.lens.iter().map(|len| *len as usize).sum();
        assert_eq!(found.outputs.len(), total);
    }
}

#[test]
fn the_call_of_a_worker_that_does_not_see_the_box_has_begun() {
    let shared = new();
    shared.open_begun(7);
    let progress = shared.progress();
    let numbers = (progress.started, progress.allowed, progress.finished);
    assert_eq!((numbers, shared.began()), ((1, 1, 0), 7));
    // A started call can't be taken back.
    assert_eq!(shared.lower(0), 1);
    assert_eq!(shared.finished(0), Found::default());
}

#[test]
fn a_call_learns_that_it_is_being_stopped_and_the_next_one_does_not() {
    let shared = new();
    shared.open(1);
    assert!(!shared.is_doomed());
    shared.doom();
    assert!(shared.is_doomed());
    shared.open(1);
    assert!(!shared.is_doomed());
}

#[test]
fn what_a_panic_said_is_kept_as_far_as_there_is_room() {
    const MOST: usize = (PANIC_WORDS - 1) * 8;
    let shared = new();
    assert_eq!(shared.panic(), None);
    let long: Vec<u8> = (0..MOST + 9).map(|at| at as u8).collect();
    for len in [1, 7, 8, 9, MOST - 1, MOST, MOST + 9] {
        shared.note_panic(&long[..len]);
        assert_eq!(shared.panic().unwrap(), long[..len.min(MOST)], "{len}");
    }
    // The word of a worker that lies is not believed beyond the room, and the lane behind it is not touched.
    shared.word(PANIC).store(u64::MAX, Ordering::Release);
    assert!(shared.panic().is_none_or(|said| said.len() <= MOST));
    assert!(
        shared
            .lane()
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    );
    shared.note_panic(b"");
    assert_eq!(shared.panic(), None);
}
