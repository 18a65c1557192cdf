//! The memory of an arena: a private anonymous mapping, aligned for huge pages.

use std::io;
use std::ptr::{self, NonNull};

use crate::copy;
use crate::frame::PAGE_SIZE;

/// Alignment of the mapping: the size of a huge page.
const HUGE_PAGE_SIZE: usize = 2 << 20;

/// Readable and writable zeroed memory that belongs to one owner.
///
/// # Invariants
///
/// 1. `start` begins a mapping of `len` readable and writable bytes, aligned to `HUGE_PAGE_SIZE`,
///    that stays until drop.
/// 2. No Rust reference into it is ever made.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread (invariant 1).
unsafe impl Send for Mapping {}
// SAFETY: a shared mapping gives out an address and nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `frames` frames, at least one, and asks for huge pages.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no room for that much.
    pub(crate) fn new(frames: usize) -> io::Result<Mapping> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = frames.checked_mul(PAGE_SIZE).ok_or_else(too_much)?;
        let padded = len.checked_add(HUGE_PAGE_SIZE).ok_or_else(too_much)?;
        // SAFETY: a new mapping at an address that the kernel chooses changes no memory in use.
        let whole = unsafe {
            libc::mmap(
                ptr::null_mut(),
                padded,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if whole == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(error.kind(), format!("cannot map {len} bytes: {error}")));
        }
        let whole = whole.cast::<u8>();
        let head = whole.align_offset(HUGE_PAGE_SIZE);
        let start = whole.wrapping_add(head);
        unmap(whole, head);
        unmap(start.wrapping_add(len), padded - head - len);
        let start = NonNull::new(start).expect("the kernel maps nothing at address zero");
        // INVARIANT: 1. The padding before and behind is unmapped, the rest is not.
        let mapping = Mapping { start, len };
        match mapping.advise(libc::MADV_HUGEPAGE) {
            // A kernel without huge pages does not know the advice; the memory serves as well.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
        Ok(mapping)
    }

    /// Makes the kernel back every page of the mapping with memory now.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short and it says so instead of killing the process.
    pub(crate) fn prefault(&self) -> io::Result<()> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            // Linux before 5.14 does not know the advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.touch();
                Ok(())
            }
            other => other,
        }
    }

    /// Gives the kernel advice about the whole mapping that keeps its bytes.
    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is this mapping (invariant 1), and its bytes stay.
        let advised = unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, advice) };
        if advised == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Writes to every page, which makes the kernel back it.
    fn touch(&self) {
        for at in (0..self.len).step_by(PAGE_SIZE) {
            // SAFETY: the byte is in the mapping, which is frame memory (invariants 1 and 2).
            unsafe { copy::zero(self.start.as_ptr().wrapping_add(at), 1) };
        }
    }

    /// Where the mapping begins.
    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.start.as_ptr(), self.len);
    }
}

/// Unmaps `len` bytes at `start`, which the caller owns and uses no more. May be nothing.
fn unmap(start: *mut u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the callers own the range and nothing refers to it (invariant 2).
    let unmapped = unsafe { libc::munmap(start.cast(), len) };
    assert!(unmapped == 0, "munmap of {len} bytes: {}", io::Error::last_os_error());
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_mapping_gives_its_addresses_back() {
        // More addresses than a process has: 4 GiB each.
        for _ in 0..40_000 {
            drop(Mapping::new(1 << 20).expect("addresses are free again"));
        }
    }

    #[test]
    fn touching_leaves_new_memory_zero() {
        let mapping = Mapping::new(3).expect("three frames");
        mapping.touch();
        let mut bytes = [1; 3 * PAGE_SIZE];
        for (at, bytes) in (0..3).zip(bytes.chunks_mut(PAGE_SIZE)) {
            // SAFETY: the frame is in the mapping.
            unsafe { copy::read(mapping.start().as_ptr().wrapping_add(at * PAGE_SIZE), bytes) };
        }
        assert_eq!(bytes, [0; 3 * PAGE_SIZE]);
    }
}
