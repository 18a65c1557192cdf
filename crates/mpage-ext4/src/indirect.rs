//! Indirect maps: twelve blocks in the inode, then blocks of block numbers, of blocks of such, and
//! of blocks of those.
//!
//! Linux: Documentation/filesystems/ext4/blockmap.rst; `ext4_get_branch()`, fs/ext4/indirect.c.

use std::ops::Range;

use mpage::Extent;
use mpage::units::{DeviceBlock, FileBlock};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::change::Change;
use crate::error::Error;
use crate::inode::Inode;
use crate::layers::Attempt;
use crate::view::View;

/// Blocks whose numbers are in the inode.
const DIRECT: u64 = 12;
/// Block numbers in the inode that lead to others, and how many levels there are below each.
const LEVELS: u32 = 3;

/// The run of `inode` that holds file block `block`, as long as one block of numbers tells.
pub(crate) fn find(view: &View<'_>, inode: &Inode, block: u64) -> Attempt<Extent> {
    let numbers = <[U32]>::ref_from_bytes(&inode.block).expect("whole numbers");
    if block < DIRECT {
        return run(view, inode, &numbers[..12], block, block);
    }
    let in_block = view.sb.block_bytes / 4;
    let mut first = DIRECT;
    for level in 1..=LEVELS {
        let count = in_block.pow(level);
        if block < first + count {
            let at = usize::try_from(DIRECT).expect("twelve") + level as usize - 1;
            return below(view, inode, (numbers[at].get(), level), first, block);
        }
        first += count;
    }
    Ok(Extent::hole(FileBlock(block), u64::MAX - block))
}

/// The run that holds `block` below a block of numbers, `level` levels above the file's blocks,
/// whose first file block is `first`.
fn below(
    view: &View<'_>,
    inode: &Inode,
    (mut number, level): (u32, u32),
    mut first: u64,
    block: u64,
) -> Attempt<Extent> {
    let in_block = view.sb.block_bytes / 4;
    for level in (0..level).rev() {
        let each = in_block.pow(level);
        if number == 0 {
            return Ok(Extent::hole(FileBlock(block), first + each * in_block - block));
        }
        let name = || format!("a block of numbers of inode {}", inode.number);
        let bytes = view.block(number.into(), name)?;
        let numbers = <[U32]>::ref_from_bytes(&bytes).expect("whole numbers");
        let index = (block - first) / each;
        if level == 0 {
            return run(view, inode, numbers, index, block);
        }
        number = numbers[usize::try_from(index).expect("inside the block")].get();
        first += index * each;
    }
    unreachable!("level 0 returns");
}

/// The run in `numbers` from `index` on, which is of file block `block`.
fn run(view: &View<'_>, inode: &Inode, numbers: &[U32], index: u64, block: u64) -> Attempt<Extent> {
    let rest = &numbers[usize::try_from(index).expect("inside the block")..];
    let start = rest[0].get();
    let follows = |(n, number): (u64, &U32)| match start {
        0 => *number == 0,
        _ => u64::from(number.get()) == u64::from(start) + n,
    };
    let count = (0..).zip(rest).take_while(|each| follows(*each)).count() as u64;
    let start = u64::from(start);
    if start == 0 {
        return Ok(Extent::hole(FileBlock(block), count));
    }
    if !view.sb.has_blocks(start, count) {
        let detail = format!(
            "inode {} has {count} blocks at block {start}, outside of the image",
            inode.number
        );
        return Err(Error::corrupt(detail).into());
    }
    Ok(Extent::mapped(FileBlock(block), DeviceBlock(start), count))
}

/// See [`block_map::insert`](crate::block_map::insert).
pub(crate) fn insert(_: &mut Change<'_>, _: &mut Inode, _: &Extent) -> Attempt<()> {
    unimplemented!()
}

/// See [`block_map::remove`](crate::block_map::remove).
pub(crate) fn remove(_: &mut Change<'_>, _: &mut Inode, _: Range<u64>) -> Attempt<Option<u64>> {
    unimplemented!()
}
