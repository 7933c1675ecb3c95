//! Mail: a few bytes that go from one side to the other by memory, while the reader is awake.
//!
//! To send something by a socket, and to receive it, takes two system calls; that is most of what a short call costs. So a
//! reader that stays awake looks here first. Before it falls asleep it declares that, and looks once more. A sender that finds
//! it asleep after it has posted something writes a byte to the socket, which means nothing but that: a nudge. Either the
//! reader's last look finds the mail, or the sender sees that it sleeps: `model` tries all orders.
//!
//! All words begin as zeros, so each worker has memory of its own.
//!
//! Mail and what comes by the socket are one stream of bytes. A sender posts mail only if the reader has received all that was
//! sent by the socket before. Mail says how many bytes that were: if more have come when the reader finds it, they follow it.

use std::sync::atomic::Ordering;

use super::record::{Memory, store};

// Words that the sender writes.
const POSTED: usize = 0;
const LEN: usize = 1;
const AFTER: usize = 2;
const NUDGED: usize = 3;
// Words that the reader writes, in a cache line of their own.
const TAKEN: usize = 8;
const AWAKE: usize = 9;
const RECEIVED: usize = 10;
const DATA: usize = 16;
/// The most bytes of one mail.
pub(crate) const MOST: usize = 4 << 10;
/// The words of one direction.
pub(super) const WORDS: usize = DATA + MOST / 8;

/// The mail of one direction.
#[derive(Debug)]
pub(crate) struct Mail<'b, M: Memory>(pub(super) &'b [M::Word]);

impl<M: Memory> Mail<'_, M> {
    #[inline]
    fn load(&self, word: usize, order: Ordering) -> u64 {
        M::load(&self.0[word], order)
    }

    #[inline]
    fn store(&self, word: usize, value: u64, order: Ordering) {
        M::store(&self.0[word], value, order);
    }

    // ---- The sender's side -----------------------------------------------------------------

    /// Posts bytes, [`MOST`] of them at most, if the reader is awake and has received all that was sent so far: so many
    /// bytes by the socket. Returns whether it has to be nudged; `None` if the bytes have to go by the socket.
    pub(crate) fn post(&self, bytes: &[u8], sent: u64) -> Option<bool> {
        let posted = self.load(POSTED, Ordering::Relaxed);
        if self.load(AWAKE, Ordering::Relaxed) == 0
            || self.load(TAKEN, Ordering::Acquire) != posted
            || self.load(RECEIVED, Ordering::Acquire) != sent
        {
            return None;
        }
        store::<M>(&self.0[DATA..], bytes);
        self.store(LEN, bytes.len() as u64, Ordering::Relaxed);
        self.store(AFTER, sent, Ordering::Relaxed);
        self.store(POSTED, posted.wrapping_add(1), Ordering::Release);
        // Either this side sees that the reader sleeps, or the reader's last look sees the mail.
        M::fence(Ordering::SeqCst);
        let is_asleep = self.load(AWAKE, Ordering::Relaxed) == 0;
        if is_asleep {
            // Before the byte itself, so that the reader knows it for what it is.
            self.store(NUDGED, sent.wrapping_add(1), Ordering::Release);
        }
        Some(is_asleep)
    }

    // ---- The reader's side -----------------------------------------------------------------

    /// Whether there is mail. So many bytes have been received by the socket, and perhaps more since.
    #[inline]
    pub(crate) fn is_there(&self, received: u64) -> bool {
        self.load(POSTED, Ordering::Acquire) != self.load(TAKEN, Ordering::Relaxed)
            && self.load(AFTER, Ordering::Relaxed) == received
    }

    /// Appends the mail, which is there, to a buffer.
    pub(crate) fn take(&self, buffer: &mut Vec<u8>) {
        let posted = self.load(POSTED, Ordering::Acquire);
        let len = self.load(LEN, Ordering::Relaxed).min(MOST as u64) as usize;
        M::copy(&self.0[DATA..][..len.div_ceil(8)], len, buffer);
        self.store(TAKEN, posted, Ordering::Release);
    }

    /// The reader looks here before it falls asleep.
    pub(crate) fn stay_awake(&self) {
        self.store(AWAKE, 1, Ordering::Relaxed);
    }

    /// The reader falls asleep, unless there is mail when it looks now.
    pub(crate) fn fall_asleep(&self) {
        self.store(AWAKE, 0, Ordering::Relaxed);
        M::fence(Ordering::SeqCst);
    }

    /// Notes that so many bytes have been received by the socket. Returns whether the byte that came behind the first
    /// `before` of them is a nudge.
    pub(crate) fn received(&self, before: u64, received: u64) -> bool {
        // In this order: a sender that knows of these bytes may nudge anew.
        let is_nudge = self.load(NUDGED, Ordering::Acquire) == before.wrapping_add(1);
        self.store(RECEIVED, received, Ordering::Release);
        is_nudge
    }
}
