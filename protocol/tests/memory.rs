//! A length prefix is not trusted with memory. In a program of its own, which counts what it
//! allocates.
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::frame::{Caps, MAX_HEADER, MAX_PAYLOAD, Reader};

/// The largest single allocation so far.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_claimed_length_costs_what_is_sent() {
    let mut bytes = [MAX_HEADER.to_le_bytes(), MAX_PAYLOAD.to_le_bytes()].concat();
    bytes.extend([0; 1000]);
    let mut reader = Reader::default();
    assert!(reader.read(&mut bytes.as_slice(), Caps::FULL).is_err());
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < 4 << 20, "{largest} bytes at once");
}
