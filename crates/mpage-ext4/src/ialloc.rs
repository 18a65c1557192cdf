//! Inodes: which are free, which to take, and taking and giving them back.
//!
//! 1. An inode number is taken only if its bit is clear and no transaction freed it that is not
//!    durable.
//! 2. Inodes at the end of a table that were never used may hold anything. Those that are no longer
//!    among them are zero.
//!
//! Linux: fs/ext4/ialloc.c, `__ext4_new_inode()`, `find_group_orlov()`.

use std::sync::Arc;

use mpage_block::Errno;

use crate::balloc::{bitmap_checksum, is_sum};
use crate::bitmap;
use crate::change::Change;
use crate::error::Error;
use crate::group::{Group, INODES_UNUSED};
use crate::inode::{FileKind, Inode, InodeNumber};
use crate::layers::{Attempt, Block};
use crate::view::View;

/// Groups that are compared to place a directory.
const GROUPS_COMPARED: u64 = 256;

impl View<'_> {
    /// The inode bitmap of `group`, checked, or computed if it was never written.
    fn inode_bitmap(&self, group: &Group) -> Attempt<Block> {
        let sb = self.sb;
        if sb.has_unused_marks() && group.flags & INODES_UNUSED != 0 {
            let bytes = usize::try_from(sb.block_bytes).expect("at most a page");
            let mut bitmap = vec![0; bytes];
            bitmap::fill(&mut bitmap, sb.inodes_per_group as usize..bytes * 8, true);
            return Ok(bitmap.into());
        }
        let name = || format!("the inode bitmap of group {}", group.number);
        let bytes = self.block(group.inode_bitmap, name)?;
        let sum = bitmap_checksum(sb, &bytes, sb.inodes_per_group.into());
        if !is_sum(sb, sum, group.inode_bitmap_checksum) {
            return Err(Error::corrupt(format!("the checksum of {} is wrong", name())).into());
        }
        Ok(bytes)
    }

    /// The group that has `inode`.
    pub(crate) fn group_of_inode(&self, inode: InodeNumber) -> u64 {
        u64::from((inode.0 - 1) / self.sb.inodes_per_group)
    }

    /// Where blocks of `inode` should be, if it has none yet.
    pub(crate) fn goal_of_inode(&self, inode: InodeNumber) -> u64 {
        self.sb.first_block_of(self.group_of_inode(inode))
    }
}

/// An inode that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) number: InodeNumber,
    /// Of the file that had it before.
    pub(crate) generation: u32,
}

/// Takes an inode for a new file in `parent`. All its bytes are zero.
///
/// # Errors
///
/// `ENOSPC`.
pub(crate) fn allocate(
    change: &mut Change<'_>,
    parent: InodeNumber,
    kind: FileKind,
) -> Attempt<Taken> {
    let first = match kind {
        FileKind::Directory => group_for_directory(change, parent)?,
        _ => change.group_of_inode(parent),
    };
    let groups = change.sb.groups();
    for step in 0..groups {
        let group = change.group((first + step) % groups)?;
        if group.free_inodes == 0 {
            continue;
        }
        if let Some(taken) = take_in(change, group, kind)? {
            return Ok(taken);
        }
    }
    Err(Error::errno(Errno::NOSPC, "all inodes are in use").into())
}

/// Directories of the root are spread over the image; others stay near their parent while there is
/// room.
fn group_for_directory(view: &View<'_>, parent: InodeNumber) -> Attempt<u64> {
    let near = view.group_of_inode(parent);
    let group = view.group(near)?;
    let roomy = group.free_inodes > view.sb.inodes_per_group / 8
        && u64::from(group.free_blocks) > view.sb.blocks_per_group / 8;
    if parent != InodeNumber::ROOT && roomy {
        return Ok(near);
    }
    let groups = view.sb.groups();
    let mut best = (0, near);
    for step in 0..groups.min(GROUPS_COMPARED) {
        let number = (near + step) % groups;
        let group = view.group(number)?;
        let worth = if group.free_inodes == 0 { 0 } else { group.free_blocks };
        let fewer = worth.saturating_sub(group.directories * 16);
        if fewer > best.0 {
            best = (fewer, number);
        }
    }
    Ok(best.1)
}

fn take_in(change: &mut Change<'_>, mut group: Group, kind: FileKind) -> Attempt<Option<Taken>> {
    let sb = change.sb;
    let per_group = sb.inodes_per_group as usize;
    let number = |bit: usize| {
        let bit = u32::try_from(bit).expect("inside a group");
        InodeNumber(
            u32::try_from(group.number).expect("inodes have 32 bits") * sb.inodes_per_group
                + bit
                + 1,
        )
    };
    let mut bitmap = change.inode_bitmap(&group)?;
    let mut bit = bitmap::find(&bitmap, 0..per_group, false);
    while bit < per_group && (number(bit).0 < sb.first_inode || change.has_freed_inode(number(bit)))
    {
        bit = bitmap::find(&bitmap, bit + 1..per_group, false);
    }
    if bit == per_group {
        return Ok(None);
    }
    let inode = number(bit);
    let bytes = Arc::make_mut(&mut bitmap);
    bitmap::fill(bytes, bit..bit + 1, true);
    group.inode_bitmap_checksum = bitmap_checksum(sb, bytes, sb.inodes_per_group.into());
    group.free_inodes -= 1;
    group.directories += u32::from(kind == FileKind::Directory);
    if sb.has_unused_marks() {
        group.flags &= !INODES_UNUSED;
        let used = per_group - group.unused_inodes as usize;
        for other in used..bit {
            change.clear_inode(number(other))?;
        }
        let unused = u32::try_from(per_group - (bit + 1).max(used)).expect("inside a group");
        group.unused_inodes = unused;
    }
    change.put(group.inode_bitmap, bitmap);
    change.put_group(&group)?;
    let generation = change.generation(inode)?;
    change.clear_inode(inode)?;
    change.note_used_inode();
    Ok(Some(Taken { number: inode, generation }))
}

/// Frees `inode`, which has no blocks and no names any more.
///
/// # Errors
///
/// `Corrupt` when it is free already.
pub(crate) fn free(change: &mut Change<'_>, inode: &Inode) -> Attempt<()> {
    let sb = change.sb;
    let mut group = change.group(change.group_of_inode(inode.number))?;
    let bit = ((inode.number.0 - 1) % sb.inodes_per_group) as usize;
    let mut bitmap = change.inode_bitmap(&group)?;
    if inode.number.0 < sb.first_inode || !bitmap::is_set(&bitmap, bit) {
        let detail = format!("inode {} is to be freed, and is not in use", inode.number);
        return Err(Error::corrupt(detail).into());
    }
    let bytes = Arc::make_mut(&mut bitmap);
    bitmap::fill(bytes, bit..bit + 1, false);
    group.inode_bitmap_checksum = bitmap_checksum(sb, bytes, sb.inodes_per_group.into());
    group.free_inodes += 1;
    if inode.kind == FileKind::Directory {
        group.directories = group.directories.saturating_sub(1);
    }
    change.put(group.inode_bitmap, bitmap);
    change.put_group(&group)?;
    change.note_freed_inode(inode.number);
    Ok(())
}

/// True when `inode` is in use.
pub(crate) fn is_used(view: &View<'_>, inode: InodeNumber) -> Attempt<bool> {
    if inode.0 > view.sb.inodes {
        return Ok(false);
    }
    let group = view.group(view.group_of_inode(inode))?;
    let bit = ((inode.0 - 1) % view.sb.inodes_per_group) as usize;
    Ok(bitmap::is_set(&view.inode_bitmap(&group)?, bit))
}

/// Inodes that are free, and blocks, as the groups count them.
pub(crate) fn count_free(view: &View<'_>) -> Attempt<(u64, u64)> {
    let mut counts = (0, 0);
    for number in 0..view.sb.groups() {
        let group = view.group(number)?;
        counts.0 += u64::from(group.free_inodes);
        counts.1 += u64::from(group.free_blocks);
    }
    Ok(counts)
}
