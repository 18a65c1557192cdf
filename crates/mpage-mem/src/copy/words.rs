//! Copies by relaxed atomic words: everywhere that has atomics, and in sight of every checker.
//!
//! Frame memory is only ever touched as whole aligned words, because atomics of different sizes must
//! not race with each other. The words at the ends of a range are shared with bytes outside of it:
//! a read takes the part it wants, a write exchanges the word and keeps the rest.

#![expect(clippy::disallowed_types, reason = "a schedule checker does not follow the bytes")]

use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// The part of a range that lies in one word.
struct Part<'a> {
    word: &'a AtomicU64,
    /// The first byte of the range in the word.
    skip: usize,
    /// Bytes of the range in the word.
    len: usize,
}

impl Part<'_> {
    fn load(&self, to: &mut [u8]) {
        let bytes = self.word.load(Ordering::Relaxed).to_ne_bytes();
        to.copy_from_slice(&bytes[self.skip..self.skip + self.len]);
    }

    fn store(&self, from: &[u8]) {
        if let Ok(bytes) = <[u8; WORD]>::try_from(from) {
            self.word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            return;
        }
        let merge = |word: u64| {
            let mut bytes = word.to_ne_bytes();
            bytes[self.skip..self.skip + self.len].copy_from_slice(from);
            Some(u64::from_ne_bytes(bytes))
        };
        let merged = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, merge);
        debug_assert!(merged.is_ok(), "merging never declines");
    }
}

/// The words of `len` bytes at `start`, in ascending order, each with where its part begins in the
/// range.
///
/// # Safety
///
/// As [`read`], for as long as the parts are used.
unsafe fn parts<'a>(start: *mut u8, len: usize) -> impl Iterator<Item = (usize, Part<'a>)> {
    let lead = start.addr() % WORD;
    (0..(lead + len).div_ceil(WORD)).map(move |number| {
        let word = start.wrapping_sub(lead).wrapping_add(number * WORD).cast::<u64>();
        // SAFETY: the word is aligned, overlaps the range, and so lies in the same words of frame
        // memory, which is only touched as atomic words (the caller's promise).
        let word = unsafe { AtomicU64::from_ptr(word) };
        let begin = (number * WORD).max(lead);
        let end = ((number + 1) * WORD).min(lead + len);
        (begin - lead, Part { word, skip: begin % WORD, len: end - begin })
    })
}

/// Copies the frame memory at `from` into `to`.
///
/// # Safety
///
/// The range lies in mapped frame memory, which begins and ends at word boundaries and which
/// nobody but this module and the kernel touches.
pub(crate) unsafe fn read(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller's promise.
    let parts = unsafe { parts(from.cast_mut(), to.len()) };
    for (at, part) in parts {
        part.load(&mut to[at..at + part.len]);
    }
}

/// Copies `from` to the frame memory at `to`.
///
/// # Safety
///
/// As [`read`].
pub(crate) unsafe fn write(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller's promise.
    let parts = unsafe { parts(to, from.len()) };
    for (at, part) in parts {
        part.store(&from[at..at + part.len]);
    }
}

/// Copies `len` bytes from one place in frame memory to another; places that overlap are equal.
///
/// # Safety
///
/// As [`read`], for both ranges.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    let parts = unsafe { parts(to, len) };
    for (at, part) in parts {
        let mut bytes = [0; WORD];
        let bytes = &mut bytes[..part.len];
        // SAFETY: the part lies in the range that the caller made a promise for.
        unsafe { read(from.wrapping_add(at), bytes) };
        part.store(bytes);
    }
}
