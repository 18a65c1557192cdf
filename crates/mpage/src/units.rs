//! Units: pages, blocks and sectors are different numbers, so they are different types.

use std::ops::Range;

pub use mpage_block::{SECTOR_SIZE, Sector};
pub use mpage_mem::PAGE_SIZE;

/// Bytes of a page, as a file offset counts them.
pub const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// Sectors of a page: one uptodate and one dirty bit each.
pub const SECTORS_PER_PAGE: usize = PAGE_SIZE / SECTOR_SIZE;

/// The largest file offset, in bytes: that of Linux's `loff_t`, rounded down to a page.
pub const FILE_SIZE_MAX: u64 = (i64::MAX as u64) & !(PAGE_BYTES - 1);

/// The place of a page in its file: its byte offset divided by [`PAGE_SIZE`]. Linux: `pgoff_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

impl PageIndex {
    /// The last index a file of [`FILE_SIZE_MAX`] bytes has.
    pub const MAX: PageIndex = PageIndex(FILE_SIZE_MAX / PAGE_BYTES - 1);

    /// The page that holds the byte at `offset`.
    #[inline]
    pub fn of(offset: u64) -> PageIndex {
        PageIndex(offset / PAGE_BYTES)
    }

    /// The offset of the page's first byte.
    #[inline]
    pub fn start(self) -> u64 {
        self.0 * PAGE_BYTES
    }

    /// The offset after the page's last byte.
    #[inline]
    pub fn end(self) -> u64 {
        self.start() + PAGE_BYTES
    }
}

/// A block of a file: its byte offset divided by the mapping's block size. Linux: `sector_t
/// iblock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileBlock(pub u64);

/// A block of the device, of the mapping's block size. Linux: `b_blocknr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceBlock(pub u64);

/// The size of a file system's block: 512, 1024, 2048 or 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    shift: u32,
}

impl BlockSize {
    /// Makes a block size; `None` unless `bytes` is a power of two from a sector to a page.
    pub fn new(bytes: usize) -> Option<BlockSize> {
        let fits = bytes.is_power_of_two() && (SECTOR_SIZE..=PAGE_SIZE).contains(&bytes);
        fits.then(|| BlockSize { shift: bytes.trailing_zeros() })
    }

    /// The size in bytes.
    #[inline]
    pub fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The block that holds the byte at `offset`.
    #[inline]
    pub fn block_of(self, offset: u64) -> FileBlock {
        FileBlock(offset >> self.shift)
    }

    /// The offset of a block's first byte.
    #[inline]
    pub fn start_of(self, block: FileBlock) -> u64 {
        block.0 << self.shift
    }

    /// The first sector of a block of the device.
    #[inline]
    pub fn sector_of(self, block: DeviceBlock) -> Sector {
        Sector(block.0 << (self.shift - SECTOR_SIZE.trailing_zeros()))
    }

    /// The first block that begins at or after `offset`.
    #[inline]
    pub fn block_after(self, offset: u64) -> FileBlock {
        FileBlock((offset + self.bytes() - 1) >> self.shift)
    }

    /// Bytes `range` of a page, widened to whole blocks, as a mask of sectors.
    #[inline]
    pub fn sectors_touched(self, range: Range<usize>) -> SectorMask {
        let size = 1usize << self.shift;
        let start = range.start & !(size - 1);
        let end = (range.end + size - 1) & !(size - 1);
        SectorMask::of_bytes(start..end)
    }

    /// The sectors of the whole blocks that lie inside bytes `range` of a page.
    #[inline]
    pub fn sectors_covered(self, range: Range<usize>) -> SectorMask {
        let size = 1usize << self.shift;
        let start = (range.start + size - 1) & !(size - 1);
        let end = range.end & !(size - 1);
        if start < end { SectorMask::of_bytes(start..end) } else { SectorMask::NONE }
    }
}

/// Some of the eight sectors of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SectorMask(pub u8);

impl SectorMask {
    /// No sector.
    pub const NONE: SectorMask = SectorMask(0);
    /// Every sector of the page.
    pub const ALL: SectorMask = SectorMask(u8::MAX);

    /// The sectors of bytes `range` of a page; both ends lie on sectors.
    #[inline]
    pub fn of_bytes(range: Range<usize>) -> SectorMask {
        debug_assert!(range.start.is_multiple_of(SECTOR_SIZE));
        debug_assert!(range.end.is_multiple_of(SECTOR_SIZE));
        debug_assert!(range.start <= range.end && range.end <= PAGE_SIZE);
        let below = |byte: usize| (1u16 << (byte / SECTOR_SIZE)) - 1;
        SectorMask((below(range.end) & !below(range.start)).to_le_bytes()[0])
    }

    /// True when no sector is in the mask.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when every sector of `other` is in this mask.
    #[inline]
    pub fn contains(self, other: SectorMask) -> bool {
        self.0 & other.0 == other.0
    }

    /// The sectors in both.
    #[inline]
    pub fn and(self, other: SectorMask) -> SectorMask {
        SectorMask(self.0 & other.0)
    }

    /// The sectors in either.
    #[inline]
    pub fn or(self, other: SectorMask) -> SectorMask {
        SectorMask(self.0 | other.0)
    }

    /// The sectors in this mask and not in `other`.
    #[inline]
    pub fn without(self, other: SectorMask) -> SectorMask {
        SectorMask(self.0 & !other.0)
    }

    /// The runs of neighbouring sectors, in ascending order, as byte ranges of the page.
    pub fn runs(self) -> impl Iterator<Item = Range<usize>> {
        let mut rest = u32::from(self.0);
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let start = rest.trailing_zeros();
            let length = (rest >> start).trailing_ones();
            rest &= !(((1 << length) - 1) << start);
            let sector = |n: u32| n as usize * SECTOR_SIZE;
            Some(sector(start)..sector(start + length))
        })
    }
}

/// The indices of the pages that bytes `range` touches; empty for an empty range.
#[inline]
pub fn pages_touched(range: &Range<u64>) -> Range<u64> {
    if range.start >= range.end {
        return 0..0;
    }
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

/// The part of bytes `range` of a file that lies in page `index`, as bytes of the page.
#[inline]
pub fn part_in_page(range: &Range<u64>, index: PageIndex) -> Range<usize> {
    let start = range.start.clamp(index.start(), index.end()) - index.start();
    let end = range.end.clamp(index.start(), index.end()) - index.start();
    let bytes = |n: u64| usize::try_from(n).expect("a page's bytes fit a usize");
    bytes(start)..bytes(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_mask_in_ascending_order() {
        for bits in 0..=u8::MAX {
            let mut seen = SectorMask::NONE;
            let mut last_end = None;
            for run in SectorMask(bits).runs() {
                assert!(last_end.is_none_or(|end| run.start > end));
                last_end = Some(run.end);
                seen = seen.or(SectorMask::of_bytes(run));
            }
            assert_eq!(seen.0, bits);
        }
    }

    #[test]
    fn touched_and_covered_sectors_follow_the_block_size() {
        let block = BlockSize::new(1024).unwrap();
        assert_eq!(block.sectors_touched(1000..1100).0, 0b1111);
        assert_eq!(block.sectors_covered(1000..3100).0, 0b0011_1100);
        assert!(block.sectors_covered(1000..2000).is_empty());
        assert_eq!(BlockSize::new(4096).unwrap().sectors_touched(1..2), SectorMask::ALL);
    }

    #[test]
    fn block_sizes_outside_a_sector_and_a_page_are_refused() {
        for bytes in [0, 1, 256, 511, 513, 3072, 8192, usize::MAX] {
            assert!(BlockSize::new(bytes).is_none(), "{bytes}");
        }
    }

    #[test]
    fn part_in_page_is_exact_at_both_ends() {
        assert_eq!(part_in_page(&(100..5000), PageIndex(0)), 100..4096);
        assert_eq!(part_in_page(&(100..5000), PageIndex(1)), 0..904);
        assert_eq!(part_in_page(&(100..5000), PageIndex(2)), 0..0);
    }
}
