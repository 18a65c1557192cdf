//! What one attempt at an operation sees of the metadata.

use std::collections::BTreeMap;

use mpage_block::Errno;

use crate::balloc::Zone;
use crate::error::Error;
use crate::group::{self, Group};
use crate::inode::{self, Inode, InodeNumber};
use crate::layers::{Attempt, Block, Layers};
use crate::superblock::{self, RawSuperblock, Superblock};
use crate::transaction::Transactions;

/// The metadata of an image, as one attempt at an operation sees it: the newest layer of each
/// block.
pub(crate) struct View<'a> {
    pub(crate) sb: &'a Superblock,
    pub(crate) transactions: &'a Transactions,
    /// What belongs to the file system for ever.
    pub(crate) zone: &'a Zone,
    layers: &'a Layers,
    /// What the operation itself has changed.
    pub(crate) own: BTreeMap<u64, Block>,
}

/// Where an inode is on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InodePlace {
    pub(crate) block: u64,
    /// The byte of the block at which it begins.
    pub(crate) at: usize,
}

impl<'a> View<'a> {
    /// The metadata in `layers` and `transactions`.
    pub(crate) fn new(
        sb: &'a Superblock,
        zone: &'a Zone,
        layers: &'a Layers,
        transactions: &'a Transactions,
    ) -> View<'a> {
        View { sb, zone, transactions, layers, own: BTreeMap::new() }
    }
}

impl View<'_> {
    /// The content of block `number`, which `what` names as its own.
    pub(crate) fn block(&self, number: u64, what: impl FnOnce() -> String) -> Attempt<Block> {
        if !self.sb.has_blocks(number, 1) {
            let detail = format!("{} is block {number}, outside of the image", what());
            return Err(Error::corrupt(detail).into());
        }
        self.look(number)
    }

    /// As [`block`](Self::block), of a block of the image.
    pub(crate) fn look(&self, number: u64) -> Attempt<Block> {
        match self.own.get(&number).or_else(|| self.transactions.look(number)) {
            Some(block) => Ok(Block::clone(block)),
            None => self.layers.look(number),
        }
    }

    /// True when block `number` was changed and is not on the device yet: its checksum is right.
    pub(crate) fn is_changed(&self, number: u64) -> bool {
        self.own.contains_key(&number) || self.transactions.look(number).is_some()
    }

    /// The descriptor of `number`, a group of the image.
    pub(crate) fn group(&self, number: u64) -> Attempt<Group> {
        let (block, at) = group::place(self.sb, number);
        let bytes = self.block(block, || format!("the descriptor of group {number}"))?;
        Ok(Group::of(self.sb, number, &bytes[at..at + self.sb.descriptor_bytes])?)
    }

    /// The superblock.
    pub(crate) fn superblock(&self) -> Attempt<RawSuperblock> {
        let (block, at) = superblock::place(self.sb);
        Ok(RawSuperblock::of(&self.look(block)?[at..at + superblock::LEN])?)
    }

    /// Where inode `number` is.
    ///
    /// # Errors
    ///
    /// `ENOENT` when the image has no such inode: its own names of inodes were checked, and this is
    /// a caller's.
    pub(crate) fn inode_place(&self, number: InodeNumber) -> Attempt<InodePlace> {
        if number.0 == 0 || number.0 > self.sb.inodes {
            let detail = format!("the image has no inode {number}");
            return Err(Error::errno(Errno::NOENT, detail).into());
        }
        let index = number.0 - 1;
        let group = self.group((index / self.sb.inodes_per_group).into())?;
        let offset = u64::from(index % self.sb.inodes_per_group) * self.sb.inode_bytes as u64;
        let block = group.inode_table + offset / self.sb.block_bytes;
        let at = usize::try_from(offset % self.sb.block_bytes).expect("inside a block");
        Ok(InodePlace { block, at })
    }

    /// The generation of inode `number`, whatever else that holds.
    pub(crate) fn generation(&self, number: InodeNumber) -> Attempt<u32> {
        let InodePlace { block, at } = self.inode_place(number)?;
        let bytes = self.block(block, || format!("the table of inode {number}"))?;
        Ok(inode::generation(&bytes[at..at + self.sb.inode_bytes]))
    }

    /// Inode `number`.
    pub(crate) fn inode(&self, number: InodeNumber) -> Attempt<Inode> {
        let InodePlace { block, at } = self.inode_place(number)?;
        let bytes = self.block(block, || format!("the table of inode {number}"))?;
        Ok(Inode::of(self.sb, number, &bytes[at..at + self.sb.inode_bytes])?)
    }
}
