//! The block map of a file: what the cache asks where the file's blocks are.

use std::ops::Range;

use mpage::Extent;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::inode::{Inode, InodeNumber};
use crate::layers::Attempt;
use crate::superblock::Superblock;
use crate::view::View;
use crate::{extents, indirect};

/// The run of `inode` that holds file block `block`.
pub(crate) fn find(view: &View<'_>, inode: &Inode, block: u64) -> Attempt<Extent> {
    match inode.has_extents() {
        true => extents::find(view, inode, block),
        false => indirect::find(view, inode, block),
    }
}

/// Puts `run` into the map of `inode`, whose blocks there are holes, or unwritten at the same
/// place: what was unwritten and is mapped now is converted. Blocks that the map needs for itself
/// are taken with [`balloc::allocate`](crate::balloc::allocate) and counted in `inode.sectors`;
/// those of `run` are too, where there was a hole, and their bits are the caller's to set, as
/// `inode` is to write.
///
/// # Errors
///
/// `ENOSPC`; `EFBIG` behind what the map can hold; `Corrupt`.
pub(crate) fn insert(change: &mut Change<'_>, inode: &mut Inode, run: &Extent) -> Attempt<()> {
    match inode.has_extents() {
        true => extents::insert(change, inode, run),
        false => indirect::insert(change, inode, run),
    }
}

/// Takes `blocks` out of the map of `inode` and frees what they had, from their end on, with blocks
/// of the map that are empty then. `inode.sectors` follows; `inode` is the caller's to write. What
/// touches too much for one change is left: returns the end of what is still to be removed; `None`
/// when all is done.
///
/// # Errors
///
/// `ENOSPC` when the map has to be split and there is no room for that; `Corrupt`.
pub(crate) fn remove(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
) -> Attempt<Option<u64>> {
    match inode.has_extents() {
        true => extents::remove(change, inode, blocks),
        false => indirect::remove(change, inode, blocks),
    }
}

/// Makes what is mapped among `blocks` unwritten; what touches too much for one change is left, as
/// by [`remove`].
///
/// # Errors
///
/// `EOPNOTSUPP` of a file without extents; `ENOSPC` when the map has to be split and there is no
/// room for that; `Corrupt`.
pub(crate) fn unwrite(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
) -> Attempt<Option<u64>> {
    match inode.has_extents() {
        true => extents::unwrite(change, inode, blocks),
        false => Err(indirect::no_unwritten(inode.number).into()),
    }
}

/// Blocks that one call may have written, about, before it leaves the rest to the next.
const BLOCKS_MAX: usize = 64;
/// Runs that one call frees.
const RUNS_MAX: usize = 1024;
/// Nodes of a map that it looks at.
const NODES_MAX: usize = 64;

/// How much one call may still do.
pub(crate) struct Budget {
    /// What the change may have written then.
    written: usize,
    runs: usize,
    nodes: usize,
}

impl Budget {
    pub(crate) fn new(change: &Change<'_>) -> Budget {
        let written = change.written() + BLOCKS_MAX;
        Budget { written, runs: RUNS_MAX, nodes: NODES_MAX }
    }

    /// A run was freed.
    pub(crate) fn note_run(&mut self) {
        self.runs = self.runs.saturating_sub(1);
    }

    /// A node was looked at.
    pub(crate) fn note_node(&mut self) {
        self.nodes = self.nodes.saturating_sub(1);
    }

    /// True when the rest is for the next change.
    pub(crate) fn is_over(&self, change: &Change<'_>) -> bool {
        self.runs == 0 || self.nodes == 0 || change.written() >= self.written
    }
}

/// Checks that `count` blocks from `start` on can be those of `inode`: they are in the image, and
/// not the file system's own. The inodes that are, the resize inode's among them, have such. Linux:
/// `ext4_inode_block_valid()`, fs/ext4/block_validity.c.
pub(crate) fn check_place(view: &View<'_>, inode: &Inode, start: u64, count: u64) -> Result<()> {
    let number = inode.number;
    if count == 0 || !view.sb.has_blocks(start, count) {
        let detail =
            format!("inode {number} has {count} blocks at block {start}, outside of the image");
        return Err(Error::corrupt(detail));
    }
    let reserved = number.0 < view.sb.first_inode && number != InodeNumber::ROOT;
    if !reserved && view.zone.overlaps(&(start..start + count)) {
        let detail = format!(
            "inode {number} has {count} blocks at block {start}, which are the file system's"
        );
        return Err(Error::corrupt(detail));
    }
    Ok(())
}

/// Counts `blocks` less in `inode`.
pub(crate) fn uncount(sb: &Superblock, inode: &mut Inode, blocks: u64) -> Result<()> {
    let left = inode.sectors.checked_sub(blocks * (sb.block_bytes / 512));
    let number = inode.number;
    let short = || Error::corrupt(format!("inode {number} has more blocks than it counts"));
    inode.sectors = left.ok_or_else(short)?;
    Ok(())
}

/// The most blocks that the map of `inode` may need for itself to take in `blocks` blocks of the
/// file, which are in `runs` runs, wherever their places are.
pub(crate) fn nodes_for(sb: &Superblock, inode: &Inode, runs: u64, blocks: u64) -> u64 {
    match inode.has_extents() {
        true => extents::nodes_for(sb, inode, runs, blocks),
        false => indirect::nodes_for(sb, runs, blocks),
    }
}

#[cfg(test)]
mod tests;
