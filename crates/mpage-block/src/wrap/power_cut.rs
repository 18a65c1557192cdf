//! A device that knows what may be left after the power failed.
//!
//! # What a device promises
//!
//! 1. What had completed when a flush was submitted is on the medium when that flush completes.
//! 2. A FUA write is on the medium when it completes.
//! 3. Of anything else each block is on the medium in its old state, or in that of any write to it
//!    since; writes are not kept in order. A block of the device's alignment is never torn.
//! 4. A write that failed may be on the medium or not, until one that came after it is. So may all
//!    that had completed when a flush failed and was not certain: no later flush covers it.
//!
//! [`PowerCut`] keeps the image of what is certain, and beside it every write that is not. A cut
//! chooses, by a seed, among the images that these promises allow.

use std::sync::Arc;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::{Bio, BioOp, BlockDevice, Errno, Limits, Span, SubmitError};

mod changes;

pub use changes::{Medium, What};

/// A device that can say what the device inside may hold after a power cut.
///
/// Reads, writes and everything else go to the device inside, so reads see the newest. Of each
/// write a copy is kept in memory until a flush covers it: for images of the size of tests.
pub struct PowerCut {
    device: Arc<dyn BlockDevice>,
    medium: Arc<Mutex<Medium>>,
    /// The last number given to a change or a flush.
    numbered: AtomicU64,
}

impl PowerCut {
    /// A device around `device`, which holds exactly `contents`, durably.
    pub fn new(device: Arc<dyn BlockDevice>, contents: Vec<u8>) -> PowerCut {
        let medium = Medium::new(contents, device.limits().alignment);
        PowerCut { device, medium: Arc::new(Mutex::new(medium)), numbered: AtomicU64::new(0) }
    }

    /// An image that the device may hold if the power fails now.
    ///
    /// Each change that is not certain is kept, lost, or torn between blocks, whatever becomes of
    /// those before it: by `seed`, the same one always giving the same. Changes nothing: any number
    /// of cuts may be looked at.
    pub fn cut(&self, seed: u64) -> Vec<u8> {
        self.medium.lock().cut(seed)
    }

    /// The image with every change lost that is not certain.
    pub fn durable(&self) -> Vec<u8> {
        self.medium.lock().durable().to_vec()
    }

    /// How many changes are not certain.
    pub fn uncertain(&self) -> usize {
        self.medium.lock().uncertain()
    }

    /// Records `bio` as in flight; its number, if it changes anything or is a flush.
    fn record(&self, bio: &Bio) -> Option<u64> {
        let start = bio.sector().offset_bytes().expect("a checked bio");
        let number = self.number();
        let mut medium = self.medium.lock();
        match bio.op() {
            BioOp::Read => return None,
            BioOp::Flush => medium.begin_flush(number),
            BioOp::Write | BioOp::Discard | BioOp::WriteZeroes => {
                let mut data = vec![0; usize::try_from(bio.bytes()).expect("an image in memory")];
                if bio.op() == BioOp::Write {
                    bio.copy_out(0, &mut data);
                }
                let grows = bio.op() != BioOp::Discard;
                let what = What::Write { start, data, grows };
                medium.begin(number, what, bio.flags().fua);
            }
        }
        Some(number)
    }

    fn number(&self) -> u64 {
        self.numbered.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl BlockDevice for PowerCut {
    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let mut bio = SubmitError::unless_allowed(bio, &self.device.limits())?;
        let Some(number) = self.record(&bio) else { return self.device.submit(bio) };
        let medium = Arc::clone(&self.medium);
        bio.intercept(move |result| {
            medium.lock().end(number, result.is_ok());
            result
        });
        self.device.submit(bio).map_err(|mut refused| {
            refused.bio.cancel_interceptor();
            self.medium.lock().forget(number);
            refused
        })
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.device.span_at(offset)
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        let number = self.number();
        self.medium.lock().begin(number, What::SetLen(bytes), false);
        let result = self.device.set_len(bytes);
        let mut medium = self.medium.lock();
        match result {
            Err(Errno::OPNOTSUPP | Errno::INVAL) => medium.forget(number),
            _ => medium.end(number, result.is_ok()),
        }
        result
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
