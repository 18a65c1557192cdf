//! What a device can do, and the one check of a bio against it.

use crate::{Bio, BioOp, Errno};

/// What a device can do and how it wants its bios. Does not change while the device is open.
///
/// Linux: `struct queue_limits`, include/linux/blkdev.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most bytes of one read or write. `max_sectors`.
    pub bytes_max: usize,
    /// Most vectors of one read or write. `max_segments`.
    pub segments_max: usize,
    /// What sector offsets, lengths, and each vector's offset and length are multiples of, in
    /// bytes: a power of two, 512 to 4096. `logical_block_size`.
    pub alignment: usize,
    /// Bios worth having in flight. More are taken, and wait.
    pub queue_depth: usize,
    /// It is known to work on `queue_depth` bios at once. If not, a cache finds out how many writes
    /// it works on, beginning with one.
    pub parallel: bool,
    /// A completed write may be lost with the power until a flush. `BLK_FEAT_WRITE_CACHE`.
    pub volatile_cache: bool,
    /// FUA writes are taken; without, they are refused, never done as plain writes. `BLK_FEAT_FUA`.
    pub fua: bool,
    /// Discards are taken.
    pub discard: bool,
    /// Write-zeroes are taken.
    pub write_zeroes: bool,
    /// Size in bytes. `None`: a regular file, which grows when it is written behind its end and
    /// there reads as zeros.
    pub capacity: Option<u64>,
}

impl Default for Limits {
    /// A small disk of unknown size: 1 MiB and 128 segments a bio, 512-byte sectors, nothing else.
    fn default() -> Limits {
        Limits {
            bytes_max: 1 << 20,
            segments_max: 128,
            alignment: 512,
            queue_depth: 64,
            parallel: false,
            volatile_cache: false,
            fua: false,
            discard: false,
            write_zeroes: false,
            capacity: None,
        }
    }
}

impl Limits {
    /// Whether a device with these limits takes `bio`: what every device asks first in `submit`.
    ///
    /// # Errors
    ///
    /// - `EOPNOTSUPP`: the device has no such operation or flag.
    /// - `EINVAL`: a read or write of nothing, one that is misaligned or too large, or a range
    ///   behind the capacity or behind what signed 64 bits count.
    /// - `ENOSPC`: a write, or zeros, behind the capacity.
    pub fn check(&self, bio: &Bio) -> Result<(), Errno> {
        let supported = match bio.op() {
            BioOp::Discard => self.discard,
            BioOp::WriteZeroes => self.write_zeroes,
            BioOp::Read | BioOp::Write | BioOp::Flush => true,
        };
        if !supported || (bio.flags().fua && !self.fua) {
            return Err(Errno::OPNOTSUPP);
        }
        if bio.op() == BioOp::Flush {
            return Ok(());
        }
        self.check_range(bio)?;
        self.check_shape(bio)
    }

    fn check_range(&self, bio: &Bio) -> Result<(), Errno> {
        let start = bio.sector().offset_bytes().ok_or(Errno::INVAL)?;
        let end = start.checked_add(bio.bytes()).ok_or(Errno::INVAL)?;
        if bio.is_empty() || !self.is_aligned(start) || !self.is_aligned(bio.bytes()) {
            return Err(Errno::INVAL);
        }
        if end > i64::MAX as u64 {
            return Err(Errno::INVAL);
        }
        match self.capacity {
            Some(capacity) if end > capacity => match bio.op() {
                BioOp::Write | BioOp::WriteZeroes => Err(Errno::NOSPC),
                BioOp::Read | BioOp::Discard | BioOp::Flush => Err(Errno::INVAL),
            },
            _ => Ok(()),
        }
    }

    fn check_shape(&self, bio: &Bio) -> Result<(), Errno> {
        if !matches!(bio.op(), BioOp::Read | BioOp::Write) {
            return Ok(());
        }
        if bio.bytes() > self.bytes_max as u64 || bio.vecs().len() > self.segments_max {
            return Err(Errno::INVAL);
        }
        let aligned = |vec: &crate::BioVec| {
            self.is_aligned(u64::from(vec.offset)) && self.is_aligned(u64::from(vec.len))
        };
        if bio.vecs().iter().all(aligned) { Ok(()) } else { Err(Errno::INVAL) }
    }

    fn is_aligned(&self, bytes: u64) -> bool {
        bytes.is_multiple_of(self.alignment as u64)
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
