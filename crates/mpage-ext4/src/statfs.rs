//! How much room an image has.
//!
//! Linux: `ext4_statfs()`, `ext4_calculate_overhead()`, fs/ext4/super.c.

use crate::balloc::{self, Zone};
use crate::error::Result;
use crate::features::HAS_JOURNAL;
use crate::file_system::FileSystem;
use crate::inode::InodeNumber;

use crate::{directory, ialloc};

/// How much room an image has, and how much of it is free: what `statfs(2)` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks, without those that are the file system's own for ever.
    pub blocks: u64,
    /// Blocks that are free.
    pub free: u64,
    /// Blocks that are free, without those that are kept for the superuser.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes that are free.
    pub free_files: u64,
    /// Bytes of a name at most.
    pub name_bytes_max: usize,
}

impl FileSystem {
    /// How much room there is now. Room set aside for data that has no place yet is not free.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's.
    pub fn statfs(&self) -> Result<Room> {
        let sb = self.metadata.superblock();
        let journal = match sb.journal_inode {
            inode if inode == 0 || !sb.features.compat(HAS_JOURNAL) => 0,
            inode => self.metadata.read(|view| view.inode(InodeNumber(inode)))?.size,
        };
        if self.metadata.zone().is_none() {
            self.metadata.set_zone(self.metadata.read(balloc::zone)?);
        }
        let zone: u64 = self
            .metadata
            .zone()
            .into_iter()
            .flat_map(Zone::iter)
            .map(|part| part.end - part.start)
            .sum();
        let overhead = sb.first_data_block + zone + journal / sb.block_bytes;
        let (free, free_files) = match self.metadata.read_only() {
            None => {
                let space = self.metadata.space.lock();
                (space.unreserved(), space.free_inodes)
            }
            Some(_) => {
                let (inodes, blocks) = self.metadata.read(ialloc::count_free)?;
                (blocks, inodes)
            }
        };
        Ok(Room {
            block_bytes: sb.block_bytes,
            blocks: sb.blocks.saturating_sub(overhead),
            free,
            available: free.saturating_sub(sb.reserved_blocks),
            files: sb.inodes.into(),
            free_files,
            name_bytes_max: directory::NAME_MAX,
        })
    }
}
