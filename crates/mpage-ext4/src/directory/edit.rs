//! Changes of a directory: names that come, go, or name another inode, and blocks for them.
//!
//! A directory never gets smaller. One without an index that has several blocks never gets one:
//! the order of its entries is that of their places, which is another than that of hashes.
//!
//! Linux: `ext4_add_entry()`, `ext4_delete_entry()`, `ext4_init_new_dir()`, fs/ext4/namei.c.

use mpage::Extent;
use mpage::units::{DeviceBlock, FileBlock};

use super::{Leaf, Name, Part, blocks, find, is_hashed, place};
use crate::change::Change;
use crate::features::DIR_INDEX;
use crate::inode::{FileKind, INDEX_FLAG, Inode, InodeNumber};
use crate::layers::Attempt;
use crate::view::View;
use crate::{balloc, block_map, htree};

/// Puts `new` into `directory`, which does not have that name. `directory` is the caller's to
/// write.
///
/// # Errors
///
/// `ENOSPC`; `Corrupt`.
pub(crate) fn insert(
    change: &mut Change<'_>,
    directory: &mut Inode,
    new: &Name<'_>,
) -> Attempt<()> {
    let sb = change.sb;
    change.named_in = Some(directory.number);
    if is_hashed(sb, directory) {
        return htree::insert(change, directory, new);
    }
    let blocks = blocks(sb, directory);
    // Without the feature an index is not kept up, and its blocks take names.
    directory.flags &= !INDEX_FLAG;
    for block in 0..blocks {
        let mut leaf = Leaf::read(change, directory, block)?;
        if leaf.insert(sb, new)? {
            leaf.put(change, directory);
            return Ok(());
        }
    }
    if blocks == 1 && sb.features.compat(DIR_INDEX) {
        htree::make(change, directory)?;
        return htree::insert(change, directory, new);
    }
    let mut leaf = append(change, directory)?;
    let _fits = leaf.insert(sb, new)?;
    leaf.put(change, directory);
    Ok(())
}

/// Takes `name` out of `directory`.
///
/// # Errors
///
/// `Corrupt`, also when it does not have that name.
pub(crate) fn remove(change: &mut Change<'_>, directory: &Inode, name: &[u8]) -> Attempt<()> {
    let mut leaf = leaf_of(change, directory, name)?;
    let _found = leaf.remove(change.sb, name)?;
    leaf.put(change, directory);
    Ok(())
}

/// Makes the name of `new`, which `directory` has, name another inode.
///
/// # Errors
///
/// `Corrupt`, also when it does not have that name.
pub(crate) fn set(change: &mut Change<'_>, directory: &Inode, new: &Name<'_>) -> Attempt<()> {
    let mut leaf = leaf_of(change, directory, new.name)?;
    let _found = leaf.set(change.sb, new)?;
    leaf.put(change, directory);
    Ok(())
}

fn leaf_of(view: &View<'_>, directory: &Inode, name: &[u8]) -> Attempt<Leaf> {
    let part = Part { directory: directory.number, block: 0 };
    let found = find(view, directory, name)?;
    let none = || part.corrupt(format!("{} is gone", name.escape_ascii()));
    Ok(found.ok_or_else(none)?.leaf)
}

/// The directory that has `directory`.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn parent(view: &View<'_>, directory: &Inode) -> Attempt<InodeNumber> {
    let part = Part { directory: directory.number, block: 0 };
    let found = match is_hashed(view.sb, directory) {
        true => Leaf::dots(view, directory)?,
        false => Leaf::read(view, directory, 0)?,
    };
    Ok(found.find(view.sb, b"..")?.ok_or_else(|| part.corrupt("there is no '..'"))?)
}

/// Makes `..` of `directory` be `parent`.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn set_parent(
    change: &mut Change<'_>,
    directory: &Inode,
    parent: InodeNumber,
) -> Attempt<()> {
    if is_hashed(change.sb, directory) {
        return htree::set_parent(change, directory, parent);
    }
    let name = Name { name: b"..", inode: parent, kind: Some(FileKind::Directory) };
    set(change, directory, &name)
}

/// Gives new `directory` its first block, with `.` and `..`.
///
/// # Errors
///
/// `ENOSPC`.
pub(crate) fn make(
    change: &mut Change<'_>,
    directory: &mut Inode,
    parent: InodeNumber,
) -> Attempt<()> {
    let mut leaf = append(change, directory)?;
    let kind = Some(FileKind::Directory);
    for (name, inode) in [(&b"."[..], directory.number), (b"..", parent)] {
        let _fits = leaf.insert(change.sb, &Name { name, inode, kind })?;
    }
    leaf.put(change, directory);
    Ok(())
}

/// Adds a block to the end of `directory`, which is the caller's to write, as that block is.
///
/// # Errors
///
/// `ENOSPC`.
pub(crate) fn append(change: &mut Change<'_>, directory: &mut Inode) -> Attempt<Leaf> {
    let block = blocks(change.sb, directory);
    let goal = match block.checked_sub(1) {
        Some(last) => place(change, directory, last)? + 1,
        None => change.goal_of_inode(directory.number),
    };
    let place = balloc::allocate(change, goal)?;
    let run = Extent::mapped(FileBlock(block), DeviceBlock(place), 1);
    block_map::insert(change, directory, &run)?;
    directory.size += change.sb.block_bytes;
    let part = Part { directory: directory.number, block };
    Ok(Leaf::empty(change.sb, part, place))
}
