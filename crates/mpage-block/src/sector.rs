//! The unit in which devices are addressed.

use std::fmt;

/// Bytes of a [`Sector`], on every device. Linux: `SECTOR_SIZE`, include/linux/blk_types.h.
pub const SECTOR_SIZE: usize = 512;

/// A place on a device, or a length, in units of 512 bytes, whatever the device's own block size.
///
/// Linux: `sector_t`, include/linux/types.h.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Sector(pub u64);

impl Sector {
    /// The sector that begins `offset_bytes` into the device; `None` inside of a sector.
    #[inline]
    pub const fn at_bytes(offset_bytes: u64) -> Option<Sector> {
        if offset_bytes.is_multiple_of(SECTOR_SIZE as u64) {
            Some(Sector(offset_bytes / SECTOR_SIZE as u64))
        } else {
            None
        }
    }

    /// Where the sector begins, in bytes. `None` when 64 bits do not count that far.
    #[inline]
    pub const fn offset_bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR_SIZE as u64)
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
