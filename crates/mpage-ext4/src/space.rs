//! Free room of the image: who may have how much of it.
//!
//! 1. `free` counts the clear bits of the bitmaps, as the running transaction has them.
//! 2. Of these are spoken for: blocks *freed* by a transaction that is not durable; *held* by a
//!    change that is not applied yet; *claimed* for data on its way to the device; *reserved* for
//!    what is dirty, and for the maps it may need. Each block is counted once.
//! 3. What is left is for whoever asks first.
//!
//! See docs/ext4-transactions.md, "Data and its blocks".

use std::ops::Range;

use mpage_block::Errno;
use rangemap::RangeSet;

use crate::error::{Error, Result};

/// How many blocks are free, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Space {
    pub(crate) free: u64,
    pub(crate) freed: u64,
    pub(crate) held: u64,
    pub(crate) reserved: u64,
    claimed: RangeSet<u64>,
    claimed_count: u64,
    pub(crate) free_inodes: u64,
}

/// The answer when all is taken.
pub(crate) fn no_space() -> Error {
    Error::errno(Errno::NOSPC, "the image is full")
}

impl Space {
    /// Blocks that anybody may have.
    pub(crate) fn available(&self) -> u64 {
        self.unclaimed().saturating_sub(self.reserved)
    }

    /// Blocks that are in use by nothing, and set aside for nothing.
    pub(crate) fn unreserved(&self) -> u64 {
        self.free.saturating_sub(self.held + self.claimed_count + self.reserved)
    }

    /// Blocks that can be given away, those that are reserved included.
    fn unclaimed(&self) -> u64 {
        self.free.saturating_sub(self.freed + self.held + self.claimed_count)
    }

    /// Sets `count` more blocks aside.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<()> {
        if count > self.available() {
            return Err(no_space());
        }
        self.reserved += count;
        Ok(())
    }

    /// Holds `count` blocks for a change, which may take `allowance` of those that are reserved.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub(crate) fn hold(&mut self, count: u64, allowance: u64) -> Result<()> {
        let left = (self.available() + allowance).min(self.unclaimed());
        if count > left {
            return Err(no_space());
        }
        self.held += count;
        Ok(())
    }

    /// Claims `blocks`, which nobody has claimed.
    pub(crate) fn claim(&mut self, blocks: Range<u64>) {
        debug_assert!(self.claimed_in(&blocks).is_none(), "claimed twice: {blocks:?}");
        self.claimed_count += blocks.end - blocks.start;
        self.claimed.insert(blocks);
    }

    /// Gives up the claim of `blocks`.
    pub(crate) fn unclaim(&mut self, blocks: Range<u64>) {
        self.claimed_count -= blocks.end - blocks.start;
        self.claimed.remove(blocks);
    }

    /// The first run of `blocks` that is claimed.
    pub(crate) fn claimed_in(&self, blocks: &Range<u64>) -> Option<Range<u64>> {
        self.claimed.overlapping(blocks).next().cloned()
    }
}
