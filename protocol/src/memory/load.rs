//! Copying out of memory that another process may be writing to at the same moment. The copy may then hold any bytes;
//! nothing worse can happen.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The least number of bytes that one `rep movsb` copies. The instruction takes a while to start, so fewer bytes are
/// copied word by word.
const MANY: usize = 4 << 10;

/// Appends the bytes of the words in `range`, as far as there are that many.
pub(crate) fn load_range(words: &[AtomicU64], range: Range<usize>, buffer: &mut Vec<u8>) {
    let (first, within) = (range.start / 8, range.start % 8);
    let mut words = words.get(first..).unwrap_or_default().iter();
    let mut len = range.len();
    if within > 0
        && let Some(word) = words.next()
    {
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        let some = &bytes[within..][..len.min(8 - within)];
        buffer.extend_from_slice(some);
        len -= some.len();
    }
    load(words.as_slice(), len, buffer);
}

/// Appends `len` bytes from words, or fewer if the words hold fewer.
#[inline]
#[expect(unsafe_code, reason = "room need not be cleared before it is filled")]
pub(crate) fn load(words: &[AtomicU64], len: usize, buffer: &mut Vec<u8>) {
    let len = len.min(words.len() * 8);
    buffer.reserve(len);
    let room = &mut buffer.spare_capacity_mut()[..len];
    if len < MANY || !load_many(words, room) {
        load_words(words, room);
    }
    // SAFETY: the words hold at least `len` bytes, so the code above has initialized all of them.
    unsafe { buffer.set_len(buffer.len() + len) };
}

/// Fills the room word by word.
#[inline]
fn load_words(words: &[AtomicU64], room: &mut [MaybeUninit<u8>]) {
    let (whole, rest) = room.as_chunks_mut();
    let mut words = words.iter().map(|word| {
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        bytes.map(MaybeUninit::new)
    });
    for (bytes, word) in whole.iter_mut().zip(words.by_ref()) {
        *bytes = word;
    }
    if !rest.is_empty()
        && let Some(word) = words.next()
    {
        rest.copy_from_slice(&word[..rest.len()]);
    }
}

/// Fills the room with one instruction, on processors that have one for it. Into memory that no cache holds, as with
/// outputs that are kept, this takes half of the time. On other processors it returns `false` and does nothing.
///
/// It has to be assembly: Rust's own functions must not read memory that another process writes, except as atomic words.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "memory that two processes share")]
fn load_many(words: &[AtomicU64], room: &mut [MaybeUninit<u8>]) -> bool {
    if room.len() > size_of_val(words) || !std::is_x86_feature_detected!("ermsb") {
        return false;
    }
    // SAFETY: `len` bytes can be read at the source and written at the destination. The direction flag is clear, as it
    // has to be before any assembly.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") room.len() => _,
            inout("rsi") words.as_ptr() => _,
            inout("rdi") room.as_mut_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
    true
}

#[cfg(not(target_arch = "x86_64"))]
fn load_many(_: &[AtomicU64], _: &mut [MaybeUninit<u8>]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of copying give the same bytes, for any source and destination.
    #[test]
    fn what_is_loaded_is_what_stands_there() {
        let bytes: Vec<u8> = (0..6 * MANY).map(|at| (at * at / 7) as u8).collect();
        let words = bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word));
        let words: Vec<AtomicU64> = words.map(AtomicU64::new).collect();
        let ends = [
            0,
            1,
            7,
            8,
            9,
            100,
            MANY,
            MANY + 1,
            2 * MANY + 5,
            bytes.len(),
        ];
        for (start, end) in ends.iter().flat_map(|a| ends.map(|b| (*a, b))) {
            if start <= end {
                let mut loaded = vec![9; 3];
                load_range(&words, start..end, &mut loaded);
                assert!(loaded[3..] == bytes[start..end], "{start}..{end}");
            }
        }
        // Bytes beyond the end are not copied.
        let mut loaded = Vec::new();
        load(&words[1..], bytes.len(), &mut loaded);
        assert!(loaded == bytes[8..]);
    }
}
