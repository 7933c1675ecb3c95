//! Memory for large values.
#![expect(unsafe_code, reason = "the kernel is told what memory is for")]

use std::collections::TryReserveError;

use rustix::mm::Advice;

/// From how many bytes on a value's memory may come in huge pages.
const LARGE: usize = 4 << 20;
/// The largest of the usual pages, in bytes.
const PAGE: usize = 64 << 10;

/// Makes room for more bytes. The kernel may use huge pages for a large room: new memory then costs a tenth, because it comes by
/// 2 MiB and not by 4 KiB.
pub(crate) fn reserve(buffer: &mut Vec<u8>, more: usize) -> Result<(), TryReserveError> {
    if buffer.capacity() - buffer.len() >= more {
        return Ok(());
    }
    if buffer.len() + more < LARGE {
        return buffer.try_reserve(more);
    }
    buffer.try_reserve_exact(more)?;
    let room = buffer.spare_capacity_mut();
    advise(room.as_mut_ptr().cast(), room.len());
    Ok(())
}

/// Tells the kernel that this memory, which was just allocated, is for a large value.
pub(crate) fn advise(start: *mut u8, len: usize) {
    if len < LARGE {
        return;
    }
    // Only whole pages, so that nothing of the neighbours is meant.
    let before = start.addr().wrapping_neg() % PAGE;
    let len = (len - before) / PAGE * PAGE;
    // SAFETY: the memory belongs to the caller. The advice changes no content, only how the kernel provides pages that are
    // not there yet. If the kernel does not know it, nothing happens.
    let _ = unsafe {
        rustix::mm::madvise(
            start.wrapping_add(before).cast(),
            len,
            Advice::LinuxHugepage,
        )
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use super::*;

    #[test]
    fn a_room_keeps_what_is_in_it() {
        for (len, more) in [
            (0, 0),
            (3, 10),
            (0, LARGE),
            (5, LARGE - 5),
            (LARGE + 7, 3 * LARGE),
        ] {
            let mut buffer: Vec<u8> = (0..len).map(|at| at as u8).collect();
            reserve(&mut buffer, more).unwrap();
            assert!(buffer.capacity() >= len + more);
            assert!(buffer.iter().copied().eq((0..len).map(|at| at as u8)));
            buffer.resize(len + more, 1);
        }
        let mut buffer = vec![1];
        assert!(reserve(&mut buffer, usize::MAX / 2).is_err());
    }
}
