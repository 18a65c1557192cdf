//! Copies by relaxed atomic words: everywhere that has atomics, and in sight of every checker.
//!
//! Frame memory is only ever touched as whole aligned words, because atomics of different sizes
//! must not race with each other. The words at the ends of a range are shared with bytes outside of
//! it: a read takes the part it wants, a write exchanges the word and keeps the rest.
//!
//! The atomics are those of `std` in every build: a schedule checker does not follow the bytes.

use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// The part of a range that lies in one word and does not fill it.
struct Part<'a> {
    word: &'a AtomicU64,
    /// The first byte of the range in the word.
    skip: usize,
    /// Bytes of the range in the word.
    len: usize,
}

impl Part<'_> {
    /// # Safety
    ///
    /// `word` is a word of frame memory, as for [`read`], for as long as the part is used.
    unsafe fn of<'a>(word: *mut u8, skip: usize, len: usize) -> Part<'a> {
        // SAFETY: an aligned word that is only touched as an atomic (the caller's promise).
        let word = unsafe { AtomicU64::from_ptr(word.cast()) };
        Part { word, skip, len }
    }

    fn load(&self, to: &mut [u8]) {
        let bytes = self.word.load(Ordering::Relaxed).to_ne_bytes();
        to.copy_from_slice(&bytes[self.skip..self.skip + self.len]);
    }

    fn store(&self, from: &[u8]) {
        let merge = |word: u64| {
            let mut bytes = word.to_ne_bytes();
            bytes[self.skip..self.skip + self.len].copy_from_slice(from);
            Some(u64::from_ne_bytes(bytes))
        };
        let merged = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, merge);
        debug_assert!(merged.is_ok(), "merging never declines");
    }
}

/// The words that a range lies in.
struct Words<'a> {
    head: Option<Part<'a>>,
    whole: &'a [AtomicU64],
    tail: Option<Part<'a>>,
}

impl Words<'_> {
    /// The words of `len` bytes at `start`.
    ///
    /// # Safety
    ///
    /// As [`read`], for as long as the words are used.
    unsafe fn of<'a>(start: *mut u8, len: usize) -> Words<'a> {
        let skip = start.addr() % WORD;
        let head_len = if skip == 0 { 0 } else { len.min(WORD - skip) };
        let tail_len = (len - head_len) % WORD;
        let end = start.wrapping_add(len);
        // SAFETY: a range that begins inside of a word has that word.
        let head =
            (head_len > 0).then(|| unsafe { Part::of(start.wrapping_sub(skip), skip, head_len) });
        // SAFETY: a range that ends inside of a word has that word.
        let tail =
            (tail_len > 0).then(|| unsafe { Part::of(end.wrapping_sub(tail_len), 0, tail_len) });
        let first = start.wrapping_add(head_len).cast::<AtomicU64>();
        let whole = match (len - head_len) / WORD {
            0 => &[],
            // SAFETY: what is between the two parts is aligned words of the range, which are only
            // touched as atomics (the caller's promise).
            count => unsafe { slice::from_raw_parts(first, count) },
        };
        Words { head, whole, tail }
    }

    fn head_len(&self) -> usize {
        self.head.as_ref().map_or(0, |head| head.len)
    }

    fn tail_len(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.len)
    }
}

/// Copies the frame memory at `from` into `to`.
///
/// # Safety
///
/// The range lies in mapped frame memory, which begins and ends at word boundaries and which
/// nobody but this module and the kernel touches.
pub(crate) unsafe fn read(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller's promise.
    let words = unsafe { Words::of(from.cast_mut(), to.len()) };
    let (head, rest) = to.split_at_mut(words.head_len());
    let (whole, tail) = rest.split_at_mut(rest.len() - words.tail_len());
    if let Some(part) = words.head {
        part.load(head);
    }
    for (word, to) in words.whole.iter().zip(whole.as_chunks_mut::<WORD>().0) {
        *to = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    if let Some(part) = words.tail {
        part.load(tail);
    }
}

/// Copies `from` to the frame memory at `to`.
///
/// # Safety
///
/// As [`read`].
pub(crate) unsafe fn write(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller's promise.
    let words = unsafe { Words::of(to, from.len()) };
    let (head, rest) = from.split_at(words.head_len());
    let (whole, tail) = rest.split_at(rest.len() - words.tail_len());
    if let Some(part) = words.head {
        part.store(head);
    }
    for (word, from) in words.whole.iter().zip(whole.as_chunks::<WORD>().0) {
        word.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
    }
    if let Some(part) = words.tail {
        part.store(tail);
    }
}

/// Copies `len` bytes from one place in frame memory to another, which lies alike in its words and
/// is equal or apart.
///
/// # Safety
///
/// As [`read`], for both ranges.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    assert!(from.addr() % WORD == to.addr() % WORD, "a copy between frames keeps the offset");
    // SAFETY: the caller's promise.
    let from = unsafe { Words::of(from.cast_mut(), len) };
    // SAFETY: the caller's promise.
    let to = unsafe { Words::of(to, len) };
    for (from, to) in from.head.iter().chain(&from.tail).zip(to.head.iter().chain(&to.tail)) {
        let bytes = &mut [0; WORD][..from.len];
        from.load(bytes);
        to.store(bytes);
    }
    for (from, to) in from.whole.iter().zip(to.whole) {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
