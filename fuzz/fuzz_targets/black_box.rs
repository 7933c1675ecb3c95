//! What a coordinator reads in the black box of a worker that writes there what it likes, where the
//! lengths that it finds need not be right.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use protocol::black_box::{BlackBox, SIZE};

static SHARED: LazyLock<(File, BlackBox)> = LazyLock::new(|| {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE as u64).unwrap();
    let black_box = BlackBox::map(&file).unwrap();
    (file, black_box)
});

fuzz_target!(|data: &[u8]| {
    let (file, black_box) = &*SHARED;
    let Some((from, words)) = data.split_first() else {
        return;
    };
    file.write_all_at(&words[..words.len().min(SIZE)], 0)
        .unwrap();
    let progress = black_box.progress();
    assert!(progress.finished <= progress.started);
    let found = black_box.finished(u32::from(*from));
    assert_eq!(found.lens.len(), found.nanos.len());
    let total: usize = found.lens.iter().map(|len| *len as usize).sum();
    assert_eq!(found.outputs.len(), total);
    assert!(total <= SIZE);
    assert!(found.ends.is_sorted_by(|one, next| one.0 < next.0));
    let last = found.ends.last().map(|(place, _)| *place as usize);
    assert!(last.is_none_or(|last| last < found.lens.len()));
    // It takes back no more than was not started, and never gives anything.
    let left = black_box.lower(u32::from(*from));
    let after = black_box.progress();
    assert_eq!((after.started, after.allowed), (progress.started, left));
    assert!(left <= progress.allowed);
    // What is found depends on nothing but the input. The ticket has been written, too.
    file.write_all_at(&vec![0; words.len().clamp(8, SIZE)], 0)
        .unwrap();
});
