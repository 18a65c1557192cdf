//! Copies to, from and within frame memory, which others may copy to at the same time.
//!
//! Two threads that touch the same bytes at once, one of them writing, have a data race unless all
//! of them use atomics: undefined behaviour, whatever the bytes are used for. So no `&[u8]` into
//! frame memory is ever made, and `ptr::copy` never sees it. What is left was measured on a Zen 5,
//! with random frames of arenas of 64 MiB and of 1 GiB, against `memcpy`:
//!
//! | | |
//! |---|---|
//! | relaxed atomic words | twice as slow or worse: the compiler makes no vectors of them |
//! | vectors of 16 bytes | equal for a cache line; long copies take up to twice as long |
//! | vectors of 32 bytes | equal; writes of whole frames take half as long again |
//! | vectors of 64 bytes | as those of 32 bytes |
//! | `rep movsb` | slow to start; equal for whole frames |
//!
//! So `x86_64` copies up to 128 bytes by vectors of 16 bytes, without a call; less than 2 KiB by
//! vectors of 32 bytes, where the processor has them; more by `rep movsb`, where it is fast and
//! keeps words whole. The figures are printed by
//!
//! ```text
//! cargo run --release -p mpage-mem --example copies
//! ```
//!
//! Other processors, and builds for a checker that does not see into assembly, use `words`. Under
//! `mpage_shuttle` a copy also gives other threads a turn in its middle, so that there are torn
//! copies among the schedules.
//!
//! Invariants:
//! 1. A copy is made of accesses that may race with any other copy.
//! 2. An aligned word of frame memory is copied whole when the place and the length are multiples
//!    of a word.

#[cfg(any(test, word_copies))]
mod words;
#[cfg(not(word_copies))]
mod x86_64;

#[cfg(word_copies)]
use words as backend;
#[cfg(not(word_copies))]
use x86_64 as backend;

use crate::frame::PAGE_SIZE;

const WORD: usize = size_of::<u64>();

#[repr(align(64))]
struct Zeros([u8; PAGE_SIZE + WORD]);

static ZEROS: Zeros = Zeros([0; PAGE_SIZE + WORD]);

/// Copies the frame memory at `from` into `to`.
///
/// # Safety
///
/// The range lies in one frame of a mapping that stays, and that nobody but this module and the
/// kernel touches.
#[inline]
pub(crate) unsafe fn read(from: *const u8, to: &mut [u8]) {
    let (first, second) = to.split_at_mut(middle(from, to.len()));
    if !first.is_empty() {
        // SAFETY: the caller's promise.
        unsafe { backend::read(from, first) };
    }
    turn();
    // SAFETY: the caller's promise.
    unsafe { backend::read(from.wrapping_add(first.len()), second) };
}

/// Copies `from` to the frame memory at `to`.
///
/// # Safety
///
/// As [`read`].
#[inline]
pub(crate) unsafe fn write(to: *mut u8, from: &[u8]) {
    let (first, second) = from.split_at(middle(to, from.len()));
    if !first.is_empty() {
        // SAFETY: the caller's promise.
        unsafe { backend::write(to, first) };
    }
    turn();
    // SAFETY: the caller's promise.
    unsafe { backend::write(to.wrapping_add(first.len()), second) };
}

/// Makes `len` bytes of the frame memory at `to` zero.
///
/// # Safety
///
/// As [`read`].
#[inline]
pub(crate) unsafe fn zero(to: *mut u8, len: usize) {
    // Zeros that lie alike in their words are copied fastest.
    let zeros = &ZEROS.0[to.addr() % WORD..][..len];
    // SAFETY: the caller's promise.
    unsafe { write(to, zeros) };
}

/// Copies `len` bytes from one place in frame memory to another, equal or apart from it.
///
/// # Safety
///
/// As [`read`], for both ranges.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    let first = middle(to, len);
    if first > 0 {
        // SAFETY: the caller's promise.
        unsafe { backend::copy(from, to, first) };
    }
    turn();
    // SAFETY: the caller's promise.
    unsafe { backend::copy(from.wrapping_add(first), to.wrapping_add(first), len - first) };
}

/// Where a copy is cut in two: in its middle, between words, under a checker of schedules, else at
/// its beginning.
#[inline]
fn middle(start: *const u8, len: usize) -> usize {
    if cfg!(mpage_shuttle) { (len / 2).saturating_sub((start.addr() + len / 2) % WORD) } else { 0 }
}

/// Lets other threads run between the two parts of a copy, under a checker of schedules.
#[inline]
fn turn() {
    #[cfg(mpage_shuttle)]
    mpage_locks::thread::interrupt();
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests {
    use super::*;

    /// Frame memory for one test, aligned as frames are.
    #[repr(align(64))]
    struct Memory([u8; 512]);

    type Write = unsafe fn(*mut u8, &[u8]);
    type Read = unsafe fn(*const u8, &mut [u8]);
    type Copy = unsafe fn(*const u8, *mut u8, usize);

    /// Each length class and each way to lie in words, at both ends, against plain slices.
    fn moves_exactly_the_range(write: Write, read: Read, copy: Copy) {
        let pattern: Vec<u8> = (1..=255).cycle().take(512).collect();
        for len in (0..=140).chain([191, 192, 255, 256, 300, 400]) {
            for offset in 0..9 {
                for skip in 0..9 {
                    let source = &pattern[skip..skip + len];
                    let mut expected = [0xaa; 512];
                    expected[offset..offset + len].copy_from_slice(source);

                    let mut memory = Memory([0xaa; 512]);
                    let start = memory.0.as_mut_ptr();
                    // SAFETY: the range is in the memory of this test.
                    unsafe { write(start.wrapping_add(offset), source) };
                    assert_eq!(memory.0, expected, "write of {len} at {offset} from {skip}");

                    let mut back = [0xaa; 512];
                    // SAFETY: as above.
                    unsafe {
                        read(memory.0.as_ptr().wrapping_add(offset), &mut back[skip..][..len])
                    };
                    let mut wanted = [0xaa; 512];
                    wanted[skip..skip + len].copy_from_slice(source);
                    assert_eq!(back, wanted, "read of {len} at {offset} to {skip}");
                }
                let from = Memory(std::array::from_fn(|at| pattern[at]));
                let mut to = Memory([0xaa; 512]);
                let place = to.0.as_mut_ptr().wrapping_add(offset);
                // SAFETY: both ranges are in the memory of this test.
                unsafe { copy(from.0.as_ptr().wrapping_add(offset), place, len) };
                let mut wanted = [0xaa; 512];
                wanted[offset..offset + len].copy_from_slice(&pattern[offset..offset + len]);
                assert_eq!(to.0, wanted, "copy of {len} at {offset}");
            }
        }
    }

    #[test]
    fn words_move_exactly_the_range() {
        moves_exactly_the_range(words::write, words::read, words::copy);
    }

    #[cfg(not(word_copies))]
    #[test]
    fn assembly_moves_exactly_the_range() {
        moves_exactly_the_range(x86_64::write, x86_64::read, x86_64::copy);
        for copy in [x86_64::copy_sse2, x86_64::copy_rep] {
            moves_exactly_the_range_when_long(copy);
        }
        if is_x86_feature_detected!("avx2") {
            moves_exactly_the_range_when_long(x86_64::copy_avx2);
        }
    }

    /// The loops, which take no short range, and of which one processor chooses few.
    #[cfg(not(word_copies))]
    fn moves_exactly_the_range_when_long(copy: Copy) {
        let pattern: Vec<u8> = (0..8192).map(|at: usize| at.to_le_bytes()[0] ^ 0x5a).collect();
        for len in (128..300).chain([2047, 2048, 4095, 4096]) {
            for (offset, skip) in [(0, 0), (1, 0), (0, 7), (8, 3), (64, 64)] {
                let mut to = vec![0xaa; 8192];
                let from = pattern[skip..].as_ptr();
                // SAFETY: both ranges are in the memory of this test.
                unsafe { copy(from, to.as_mut_ptr().wrapping_add(offset), len) };
                let mut wanted = vec![0xaa; 8192];
                wanted[offset..offset + len].copy_from_slice(&pattern[skip..skip + len]);
                assert!(to == wanted, "copy of {len} from {skip} to {offset}");
            }
        }
    }
}
