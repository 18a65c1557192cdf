//! What one attempt at an operation sees of the metadata.

use crate::error::Error;
use crate::group::{self, Group};
use crate::inode::{Inode, InodeNumber};
use crate::layers::{Attempt, Block, Fetched, Layers};
use crate::superblock::Superblock;

/// The metadata of an image, as one attempt at an operation sees it.
pub(crate) struct View<'a> {
    pub(crate) sb: &'a Superblock,
    layers: &'a Layers,
    fetched: &'a Fetched,
}

impl<'a> View<'a> {
    /// The metadata in `layers`, with what was `fetched` for the attempts before.
    pub(crate) fn new(sb: &'a Superblock, layers: &'a Layers, fetched: &'a Fetched) -> View<'a> {
        View { sb, layers, fetched }
    }
}

impl View<'_> {
    /// The content of block `number`, which `what` names as its own.
    pub(crate) fn block(&self, number: u64, what: impl FnOnce() -> String) -> Attempt<Block> {
        if !self.sb.has_blocks(number, 1) {
            let detail = format!("{} is block {number}, outside of the image", what());
            return Err(Error::corrupt(detail).into());
        }
        self.layers.look(number, self.fetched)
    }

    /// The descriptor of `number`, a group of the image.
    pub(crate) fn group(&self, number: u64) -> Attempt<Group> {
        let (block, at) = group::place(self.sb, number);
        let bytes = self.block(block, || format!("the descriptor of group {number}"))?;
        Ok(Group::of(self.sb, number, &bytes[at..at + self.sb.descriptor_bytes])?)
    }

    /// Inode `number`.
    pub(crate) fn inode(&self, number: InodeNumber) -> Attempt<Inode> {
        if number.0 == 0 || number.0 > self.sb.inodes {
            return Err(Error::corrupt(format!("there is no inode {number}")).into());
        }
        let index = number.0 - 1;
        let group = self.group((index / self.sb.inodes_per_group).into())?;
        let offset = u64::from(index % self.sb.inodes_per_group) * self.sb.inode_bytes as u64;
        let block = group.inode_table + offset / self.sb.block_bytes;
        let bytes = self.block(block, || format!("the table of inode {number}"))?;
        let at = usize::try_from(offset % self.sb.block_bytes).expect("inside a block");
        Ok(Inode::of(self.sb, number, &bytes[at..at + self.sb.inode_bytes])?)
    }
}
