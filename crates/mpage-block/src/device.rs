//! The trait of everything that takes bios.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use mpage_locks::{Condvar, Mutex};

use crate::{Bio, Errno, Limits};

/// A run of bytes of a device or a file that is all data, or all hole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The bytes; not empty.
    pub bytes: Range<u64>,
    /// They read as zeros, and have no room of their own.
    pub hole: bool,
}

/// Something that reads and writes sectors.
///
/// A device owns the bio it took until it calls [`Bio::complete`]. It may work on bios in any
/// order and on several at once: of two that overlap and are in flight together, either may win.
/// A flush makes durable what had completed when it was submitted, and nothing else.
///
/// Linux: `struct block_device_operations`, include/linux/blkdev.h.
pub trait BlockDevice: Send + Sync {
    /// What the device can do. The same answer every time.
    fn limits(&self) -> Limits;

    /// Takes the bio and returns.
    ///
    /// The bio's completion runs exactly once, on any thread, maybe before this returns. Never
    /// waits for the completion of another bio of the same caller.
    ///
    /// # Errors
    ///
    /// The bio comes back and its completion has not run. What [`Limits::check`] gives, or that the
    /// device can take no more, ever.
    fn submit(&self, bio: Bio) -> Result<(), SubmitError>;

    /// Sets the exact size, in bytes, of a device that is a regular file.
    ///
    /// Blocks until it is done; it is not durable before the next flush. No I/O to what is cut off
    /// may be in flight.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` from a device that has a fixed size; else the file system's.
    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        let _fixed = bytes;
        Err(Errno::OPNOTSUPP)
    }

    /// What lies at byte `offset`, and how far: data or a hole. One that cannot tell says data.
    ///
    /// Blocks as long as the file system takes to look it up. Linux: `SEEK_DATA` and `SEEK_HOLE`
    /// of `lseek(2)`.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        let end = self.limits().capacity.unwrap_or(u64::MAX);
        Ok(Span { bytes: offset..end.max(offset.saturating_add(1)), hole: false })
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for Arc<D> {
    fn limits(&self) -> Limits {
        (**self).limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        (**self).submit(bio)
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        (**self).set_len(bytes)
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        (**self).span_at(offset)
    }
}

/// A bio that the device did not take, and why.
#[derive(Debug, thiserror::Error)]
#[error("the device refused a bio: {error}")]
pub struct SubmitError {
    /// The bio, as it was given; its completion has not run. Dropping it ends it with `EIO`.
    pub bio: Bio,
    /// Why.
    pub error: Errno,
}

impl SubmitError {
    /// For a device: checks `bio` against `limits` and gives it back when it breaks them.
    ///
    /// # Errors
    ///
    /// What [`Limits::check`] gives.
    pub fn unless_allowed(bio: Bio, limits: &Limits) -> Result<Bio, SubmitError> {
        match limits.check(&bio) {
            Ok(()) => Ok(bio),
            Err(error) => Err(SubmitError { bio, error }),
        }
    }
}

/// Gives `bio` to `device` and waits until it is done.
///
/// Replaces the bio's completion with its own: one that was set before does not run.
///
/// # Errors
///
/// The device's, at submission or at completion.
pub fn submit_and_wait(device: &dyn BlockDevice, mut bio: Bio) -> Result<(), Errno> {
    let done = Arc::new(Done { result: Mutex::new(None), changed: Condvar::new() });
    let told = Arc::clone(&done);
    bio.on_completion(move |result| {
        *told.result.lock() = Some(result);
        told.changed.notify_all();
    });
    device.submit(bio).map_err(|refused| refused.error)?;
    let mut result = done.result.lock();
    loop {
        match *result {
            Some(result) => return result,
            None => result = done.changed.wait(result),
        }
    }
}

/// Where a completion leaves the result for the thread that waits.
struct Done {
    result: Mutex<Option<Result<(), Errno>>>,
    changed: Condvar,
}

impl fmt::Debug for dyn BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockDevice").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
