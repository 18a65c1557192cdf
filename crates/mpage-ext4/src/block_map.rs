//! The block map of a file: what the cache asks where the file's blocks are.

use std::ops::Range;

use mpage::Extent;

use crate::change::Change;
use crate::inode::Inode;
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
        false => Err(indirect::no_unwritten(inode).into()),
    }
}

/// The most blocks that the map of `inode` may need for itself to take in `blocks` blocks of the
/// file, which are in `runs` runs, wherever their places are.
pub(crate) fn nodes_for(sb: &Superblock, inode: &Inode, runs: u64, blocks: u64) -> u64 {
    match inode.has_extents() {
        true => extents::nodes_for(sb, inode, runs, blocks),
        false => indirect::nodes_for(sb, runs, blocks),
    }
}
