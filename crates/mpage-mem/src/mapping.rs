//! The memory of an arena: a private anonymous mapping, aligned for huge pages.

use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

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
            mmap_anonymous(
                ptr::null_mut(),
                padded,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let head = whole.align_offset(HUGE_PAGE_SIZE);
        let start = whole.wrapping_byte_add(head);
        unmap(whole, head);
        unmap(start.wrapping_byte_add(len), padded - head - len);
        // SAFETY: the range is what is left of the mapping made above; the advice keeps its bytes.
        let advised = unsafe { madvise(start, len, Advice::LinuxHugepage) };
        match advised {
            // A kernel without huge pages refuses the advice; the memory serves as well.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => {
                unmap(start, len);
                return Err(error.into());
            }
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero");
        // INVARIANT: 1. The padding before and behind is unmapped, the rest is not.
        Ok(Mapping { start, len })
    }

    /// Makes the kernel back every page of the mapping with memory now.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short and it says so instead of killing the process.
    pub(crate) fn prefault(&self) -> io::Result<()> {
        // SAFETY: the range is this mapping (invariant 1); populating keeps its bytes.
        let populated =
            unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxPopulateWrite) };
        match populated {
            // Linux before 5.14 does not know the advice.
            Err(rustix::io::Errno::INVAL) => {
                self.touch();
                Ok(())
            }
            other => Ok(other?),
        }
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
        unmap(self.start.as_ptr().cast(), self.len);
    }
}

/// Unmaps `len` bytes at `start`, which the caller owns and uses no more. May be nothing.
fn unmap(start: *mut core::ffi::c_void, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the callers own the range and nothing refers to it (invariant 2).
    let unmapped = unsafe { munmap(start, len) };
    unmapped.expect("a mapping can be unmapped by its owner");
}
