//! Where the tables of a file system are, by its superblock and its descriptors, which may be
//! damaged.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::image::{CHUNK, Image};

/// Where the superblock is, and where it says how things are.
pub(crate) const SUPERBLOCK: usize = 1024;
const BLOCKS: usize = 0x4;
const FIRST_BLOCK: usize = 0x14;
const BLOCK_LOG: usize = 0x18;
const BLOCKS_PER_GROUP: usize = 0x20;
const INODES_PER_GROUP: usize = 0x28;
const INODE_BYTES: usize = 0x58;
const DESCRIPTOR_BYTES: usize = 0xfe;
/// Where a descriptor says where its bitmaps and its inodes are.
const BLOCK_BITMAP: usize = 0x0;
const INODE_BITMAP: usize = 0x4;
const INODE_TABLE: usize = 0x8;

/// Where the tables of a file system are. Each place is in the image.
pub(crate) struct Layout {
    pub(crate) inode_bytes: usize,
    pub(crate) inodes_per_group: usize,
    /// The descriptors.
    pub(crate) descriptors: Vec<Range<usize>>,
    /// The block bitmap, the inode bitmap and the inode table of each group.
    pub(crate) tables: Vec<[Range<usize>; 3]>,
}

impl Layout {
    /// What `image` says; `None` if it cannot be so.
    pub(crate) fn of(image: &Image) -> Option<Layout> {
        let said = |at: usize| number(image, SUPERBLOCK + at);
        let block_bytes = 1024usize.checked_shl(u32::try_from(said(BLOCK_LOG)).unwrap_or(64))?;
        let inode_bytes = said(INODE_BYTES) & 0xffff;
        let inodes_per_group = said(INODES_PER_GROUP);
        let descriptor_bytes = (said(DESCRIPTOR_BYTES) & 0xffff).max(32);
        let blocks = said(BLOCKS).checked_sub(said(FIRST_BLOCK))?;
        let groups = blocks.div_ceil(said(BLOCKS_PER_GROUP).max(1));
        let first = (said(FIRST_BLOCK) + 1).checked_mul(block_bytes)?;
        let inside = |start: usize, len: usize| {
            let end = start.checked_add(len)?;
            (end <= image.len()).then_some(start..end)
        };
        let all = inside(first, groups.checked_mul(descriptor_bytes)?)?;
        let descriptors = all.step_by(descriptor_bytes).map(|at| at..at + descriptor_bytes);
        let descriptors: Vec<Range<usize>> = descriptors.collect();
        let table_bytes = inodes_per_group.checked_mul(inode_bytes)?;
        let table_of = |descriptor: &Range<usize>, at: usize, len: usize| {
            inside(number(image, descriptor.start + at).checked_mul(block_bytes)?, len)
        };
        let tables = descriptors.iter().map(|descriptor| {
            Some([
                table_of(descriptor, BLOCK_BITMAP, block_bytes)?,
                table_of(descriptor, INODE_BITMAP, block_bytes)?,
                table_of(descriptor, INODE_TABLE, table_bytes)?,
            ])
        });
        let tables = tables.collect::<Option<Vec<_>>>()?;
        Some(Layout { inode_bytes, inodes_per_group, descriptors, tables })
    }

    /// Where inode number `index`, counted from 0, is.
    pub(crate) fn inode(&self, index: usize) -> Option<Range<usize>> {
        let [_, _, table] = self.tables.get(index / self.inodes_per_group)?;
        let start = table.start + index % self.inodes_per_group * self.inode_bytes;
        Some(start..start + self.inode_bytes)
    }

    /// The chunks that have something of the file system's own.
    pub(crate) fn zone(&self) -> BTreeSet<usize> {
        let superblock = SUPERBLOCK..SUPERBLOCK + CHUNK;
        let tables = self.tables.iter().flatten().chain(&self.descriptors);
        let all = tables.chain([&superblock]).filter(|range| !range.is_empty());
        let mut zone = BTreeSet::new();
        // Damaged, many of them may be in one place.
        all.for_each(|range| zone.extend(range.start / CHUNK..range.end.div_ceil(CHUNK)));
        zone
    }
}

fn number(image: &Image, at: usize) -> usize {
    usize::try_from(image.number::<4>(at)).expect("a number of 32 bits")
}
