//! Group descriptors: where a group's bitmaps and inodes are, and how much of them is free.
//!
//! Linux: Documentation/filesystems/ext4/group_descr.rst; `ext4_get_group_desc()`,
//! fs/ext4/balloc.c.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::crc16;
use crate::error::{Error, Result};
use crate::features::{GDT_CSUM, META_BG, SPARSE_SUPER, SPARSE_SUPER2};
use crate::superblock::Superblock;

/// Bytes of a descriptor without 64-bit numbers.
const SHORT: usize = 32;
/// Where its checksum is.
const CHECKSUM_AT: usize = 0x1e;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawGroup {
    block_bitmap_lo: U32,
    inode_bitmap_lo: U32,
    inode_table_lo: U32,
    free_blocks_count_lo: U16,
    free_inodes_count_lo: U16,
    used_dirs_count_lo: U16,
    flags: U16,
    exclude_bitmap_lo: U32,
    block_bitmap_csum_lo: U16,
    inode_bitmap_csum_lo: U16,
    itable_unused_lo: U16,
    checksum: U16,
    block_bitmap_hi: U32,
    inode_bitmap_hi: U32,
    inode_table_hi: U32,
    free_blocks_count_hi: U16,
    free_inodes_count_hi: U16,
    used_dirs_count_hi: U16,
    itable_unused_hi: U16,
    exclude_bitmap_hi: U32,
    block_bitmap_csum_hi: U16,
    inode_bitmap_csum_hi: U16,
    reserved: U32,
}

const WHOLE: usize = size_of::<RawGroup>();
const _: () = assert!(WHOLE == 64);

/// The group's inode bitmap and table were never written.
pub(crate) const INODES_UNUSED: u16 = 0x1;
/// Its block bitmap was never written.
pub(crate) const BLOCKS_UNUSED: u16 = 0x2;

/// A group's descriptor, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) number: u64,
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    /// The first block of its inodes.
    pub(crate) inode_table: u64,
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) directories: u32,
    /// Inodes at the end of its table that were never used.
    pub(crate) unused_inodes: u32,
    /// What of the group was never used.
    pub(crate) flags: u16,
    pub(crate) block_bitmap_checksum: u32,
    pub(crate) inode_bitmap_checksum: u32,
}

/// Where the descriptor of `group` is: its block, and the byte in it.
pub(crate) fn place(sb: &Superblock, group: u64) -> (u64, usize) {
    let in_block = sb.block_bytes / sb.descriptor_bytes as u64;
    let (number, index) = (group / in_block, group % in_block);
    let at = usize::try_from(index * sb.descriptor_bytes as u64).expect("inside a block");
    if !sb.features.incompat(META_BG) || number < sb.first_meta_group {
        return (sb.first_data_block + 1 + number, at);
    }
    // The first group of those that a block describes has it, behind its copy of the superblock.
    let first = number * in_block;
    (sb.first_block_of(first) + u64::from(has_superblock(sb, first)), at)
}

/// True when `group` begins with a copy of the superblock.
pub(crate) fn has_superblock(sb: &Superblock, group: u64) -> bool {
    if group == 0 {
        return true;
    }
    if sb.features.compat(SPARSE_SUPER2) {
        return sb.backup_groups.iter().any(|backup| u64::from(*backup) == group);
    }
    let is_power = |base: u64| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    !sb.features.ro_compat(SPARSE_SUPER) || group == 1 || [3, 5, 7].into_iter().any(is_power)
}

impl Group {
    /// Reads the descriptor of group `number` from its bytes.
    ///
    /// # Errors
    ///
    /// `Corrupt` when its checksum is wrong or a number leaves the image.
    pub(crate) fn of(sb: &Superblock, number: u64, bytes: &[u8]) -> Result<Group> {
        let mut whole = [0; WHOLE];
        let len = bytes.len().min(WHOLE);
        whole[..len].copy_from_slice(&bytes[..len]);
        if len < WHOLE {
            whole[SHORT..].fill(0);
        }
        let raw = RawGroup::read_from_bytes(&whole).expect("as long as it is");
        if right_checksum(sb, number, bytes).is_some_and(|right| right != raw.checksum.get()) {
            let detail = format!("the checksum of the descriptor of group {number} is wrong");
            return Err(Error::corrupt(detail));
        }
        let wide = |low: U32, high: U32| u64::from(low.get()) | u64::from(high.get()) << 32;
        let count = |low: U16, high: U16| u32::from(low.get()) | u32::from(high.get()) << 16;
        let group = Group {
            number,
            block_bitmap: wide(raw.block_bitmap_lo, raw.block_bitmap_hi),
            inode_bitmap: wide(raw.inode_bitmap_lo, raw.inode_bitmap_hi),
            inode_table: wide(raw.inode_table_lo, raw.inode_table_hi),
            free_blocks: count(raw.free_blocks_count_lo, raw.free_blocks_count_hi),
            free_inodes: count(raw.free_inodes_count_lo, raw.free_inodes_count_hi),
            directories: count(raw.used_dirs_count_lo, raw.used_dirs_count_hi),
            unused_inodes: count(raw.itable_unused_lo, raw.itable_unused_hi),
            flags: raw.flags.get(),
            block_bitmap_checksum: count(raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi),
            inode_bitmap_checksum: count(raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi),
        };
        group.check(sb)?;
        Ok(group)
    }

    /// Writes what changes of it into the descriptor in `bytes`, with its checksum.
    pub(crate) fn store(&self, sb: &Superblock, bytes: &mut [u8]) {
        let mut whole = [0; WHOLE];
        let len = bytes.len().min(WHOLE);
        whole[..len].copy_from_slice(&bytes[..len]);
        let raw = RawGroup::mut_from_bytes(&mut whole).expect("as long as it is");
        let (low, high) = halves(self.free_blocks);
        (raw.free_blocks_count_lo, raw.free_blocks_count_hi) = (low, high);
        let (low, high) = halves(self.free_inodes);
        (raw.free_inodes_count_lo, raw.free_inodes_count_hi) = (low, high);
        let (low, high) = halves(self.directories);
        (raw.used_dirs_count_lo, raw.used_dirs_count_hi) = (low, high);
        let (low, high) = halves(self.unused_inodes);
        (raw.itable_unused_lo, raw.itable_unused_hi) = (low, high);
        let (low, high) = halves(self.block_bitmap_checksum);
        (raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi) = (low, high);
        let (low, high) = halves(self.inode_bitmap_checksum);
        (raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi) = (low, high);
        raw.flags = self.flags.into();
        // A short descriptor has no upper halves.
        bytes[..len].copy_from_slice(&whole[..len]);
        if let Some(checksum) = right_checksum(sb, self.number, bytes) {
            bytes[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_le_bytes());
        }
    }

    fn check(&self, sb: &Superblock) -> Result<()> {
        let table =
            (u64::from(sb.inodes_per_group) * sb.inode_bytes as u64).div_ceil(sb.block_bytes);
        let parts = [(self.block_bitmap, 1), (self.inode_bitmap, 1), (self.inode_table, table)];
        let outside = parts.iter().find(|(first, count)| !sb.has_blocks(*first, *count));
        if let Some((first, _)) = outside {
            let detail = format!("group {} has block {first}, outside of the image", self.number);
            return Err(Error::corrupt(detail));
        }
        let counts = [
            (u64::from(self.free_blocks), sb.blocks_of(self.number)),
            (self.free_inodes.into(), sb.inodes_per_group.into()),
            (self.directories.into(), sb.inodes_per_group.into()),
            (self.unused_inodes.into(), sb.inodes_per_group.into()),
        ];
        if let Some((count, most)) = counts.iter().find(|(count, most)| count > most) {
            let detail = format!("group {} counts {count} of {most}", self.number);
            return Err(Error::corrupt(detail));
        }
        Ok(())
    }
}

/// The lower and the upper 16 bits of `count`.
fn halves(count: u32) -> (U16, U16) {
    (((count & 0xffff) as u16).into(), ((count >> 16) as u16).into())
}

/// The checksum that a descriptor has to have; `None` if the image has none.
fn right_checksum(sb: &Superblock, number: u64, bytes: &[u8]) -> Option<u16> {
    let number = u32::try_from(number).expect("groups have 32-bit numbers").to_le_bytes();
    let (head, rest) = bytes.split_at(CHECKSUM_AT);
    let tail = &rest[2..];
    if sb.has_checksums() {
        return Some(sb.checksum_seed.of(&number).of(head).of(&[0; 2]).of(tail).low());
    }
    let has = sb.features.ro_compat(GDT_CSUM);
    has.then(|| crc16(&[&sb.uuid, &number, head, tail]))
}
