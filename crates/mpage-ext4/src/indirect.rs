//! Indirect maps: twelve blocks in the inode, then blocks of block numbers, of blocks of such, and
//! of blocks of those.
//!
//! Linux: Documentation/filesystems/ext4/blockmap.rst; `ext4_get_branch()`, fs/ext4/indirect.c.

use std::ops::Range;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{Extent, Place};
use mpage_block::Errno;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::balloc;
use crate::change::Change;
use crate::error::Error;
use crate::inode::{Inode, InodeNumber};
use crate::layers::Attempt;
use crate::superblock::Superblock;
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

/// Unwritten blocks, which `inode` cannot have.
pub(crate) fn no_unwritten(inode: &Inode) -> Error {
    let detail = format!("inode {} has no extents, and no blocks that are unwritten", inode.number);
    Error::errno(Errno::OPNOTSUPP, detail)
}

/// See [`block_map::nodes_for`](crate::block_map::nodes_for). A run may begin a block of numbers at
/// each level, and goes on into others.
pub(crate) fn nodes_for(sb: &Superblock, runs: u64, blocks: u64) -> u64 {
    let in_block = sb.block_bytes / 4;
    let mut nodes = 0;
    let mut level = blocks;
    for _ in 0..LEVELS {
        level = (2 * runs).min(level) + level / in_block;
        nodes += level;
    }
    nodes
}

/// Where a block's number is: the number in the inode that leads there, how many levels lie below
/// it, and the first block below it.
fn branch(sb: &Superblock, block: u64) -> Option<(usize, u32, u64)> {
    if block < DIRECT {
        return Some((usize::try_from(block).expect("below twelve"), 0, block));
    }
    let in_block = sb.block_bytes / 4;
    let mut first = DIRECT;
    for level in 1..=LEVELS {
        let count = in_block.pow(level);
        if block < first + count {
            return Some((
                usize::try_from(DIRECT).expect("twelve") + level as usize - 1,
                level,
                first,
            ));
        }
        first += count;
    }
    None
}

fn number_at(bytes: &[u8], index: usize) -> u32 {
    let at = index * 4;
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn set_number(bytes: &mut [u8], index: usize, number: u32) {
    let at = index * 4;
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// A block's number in 32 bits.
fn narrow(block: u64) -> Attempt<u32> {
    u32::try_from(block).map_err(|_| {
        let detail = format!("block {block} has no place in an indirect map");
        Error::errno(Errno::FBIG, detail).into()
    })
}

/// See [`block_map::insert`](crate::block_map::insert).
pub(crate) fn insert(change: &mut Change<'_>, inode: &mut Inode, run: &Extent) -> Attempt<()> {
    let Place::Mapped(to) = run.place else { return Err(no_unwritten(inode).into()) };
    let in_block = change.sb.block_bytes / 4;
    let sectors = change.sb.block_bytes / 512;
    let _fits = narrow(to.0 + run.count)?;
    let mut done = 0;
    while done < run.count {
        let (first, to) = (run.first.0 + done, to.0 + done);
        let Some((index, level, base)) = branch(change.sb, first) else {
            let detail = format!("inode {} cannot have block {first}", inode.number);
            return Err(Error::errno(Errno::FBIG, detail).into());
        };
        if level == 0 {
            put(&mut inode.block, index, 1, to, inode.number)?;
            done += 1;
            inode.sectors += sectors;
            continue;
        }
        let mut below = number_at(&inode.block, index);
        if below == 0 {
            below = new_block(change, inode, to)?;
            set_number(&mut inode.block, index, below);
        }
        let mut rest = first - base;
        for level in (1..level).rev() {
            let each = in_block.pow(level);
            let index = usize::try_from(rest / each).expect("inside a block");
            let parent = u64::from(below);
            let bytes =
                change.block(parent, || format!("a block of numbers of inode {}", inode.number))?;
            below = number_at(&bytes, index);
            if below == 0 {
                below = new_block(change, inode, to)?;
                set_number(change.edit(parent)?, index, below);
            }
            rest %= each;
        }
        let count = (run.count - done).min(in_block - rest);
        let _inside = change
            .block(below.into(), || format!("a block of numbers of inode {}", inode.number))?;
        let (index, number) = (usize::try_from(rest).expect("inside a block"), inode.number);
        put(change.edit(below.into())?, index, count, to, number)?;
        done += count;
        inode.sectors += count * sectors;
    }
    Ok(())
}

/// Puts `count` block numbers from `to` on into `bytes`, where there are none.
fn put(bytes: &mut [u8], index: usize, count: u64, to: u64, inode: InodeNumber) -> Attempt<()> {
    for n in 0..count {
        let at = index + usize::try_from(n).expect("inside a block");
        if number_at(bytes, at) != 0 {
            return Err(
                Error::corrupt(format!("a block of inode {inode} is mapped already")).into()
            );
        }
        set_number(bytes, at, narrow(to + n)?);
    }
    Ok(())
}

/// A new block of numbers, all zero.
fn new_block(change: &mut Change<'_>, inode: &mut Inode, near: u64) -> Attempt<u32> {
    let block = balloc::allocate(change, near)?;
    change.fill(block, vec![0; usize::try_from(change.sb.block_bytes).expect("at most a page")]);
    inode.sectors += change.sb.block_bytes / 512;
    narrow(block)
}

/// Blocks that a step may have written before it leaves the rest to the next one.
const BLOCKS_MAX: usize = 64;

/// See [`block_map::remove`](crate::block_map::remove).
pub(crate) fn remove(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
) -> Attempt<Option<u64>> {
    let in_block = change.sb.block_bytes / 4;
    let mut first = DIRECT + (1..=LEVELS).map(|level| in_block.pow(level)).sum::<u64>();
    let mut removal =
        Removal { end: blocks.end.min(first), start: blocks.start, freed: Vec::new() };
    for level in (1..=LEVELS).rev() {
        first -= in_block.pow(level);
        let index = usize::try_from(DIRECT).expect("twelve") + level as usize - 1;
        let number = number_at(&inode.block, index);
        if number != 0 && removal.end > first && removal.start < removal.end {
            let is_empty = removal.below(change, inode, (number, level), first)?;
            if is_empty {
                removal.free(change, inode, number)?;
                set_number(&mut inode.block, index, 0);
            }
            if removal.is_over(change) && removal.end > removal.start.max(first) {
                return removal.finish(change).map(Some);
            }
        }
        removal.end = removal.end.min(first.max(removal.start));
    }
    for block in (removal.start..removal.end.min(DIRECT)).rev() {
        let index = usize::try_from(block).expect("below twelve");
        let number = number_at(&inode.block, index);
        if number != 0 {
            removal.free(change, inode, number)?;
            set_number(&mut inode.block, index, 0);
        }
    }
    let _end = removal.finish(change)?;
    Ok(None)
}

/// Blocks on their way out of a map, from the end on.
struct Removal {
    start: u64,
    /// What lies behind is removed.
    end: u64,
    /// Runs that are free, each before the one in front of it.
    freed: Vec<Range<u64>>,
}

impl Removal {
    /// Removes what lies below block of numbers `number`, `level` levels above the blocks, whose
    /// first file block is `first`; true when it has no numbers left.
    fn below(
        &mut self,
        change: &mut Change<'_>,
        inode: &mut Inode,
        (number, level): (u32, u32),
        first: u64,
    ) -> Attempt<bool> {
        let in_block = change.sb.block_bytes / 4;
        let each = in_block.pow(level - 1);
        let name = || format!("a block of numbers of inode {}", inode.number);
        let bytes = change.block(number.into(), name)?;
        let from = self.start.saturating_sub(first) / each;
        let to = (self.end - first).div_ceil(each).min(in_block);
        for index in (from..to).rev() {
            let at = usize::try_from(index).expect("inside a block");
            let child = number_at(&bytes, at);
            let start = first + index * each;
            if child != 0 {
                let is_empty = match level {
                    1 => true,
                    _ => self.below(change, inode, (child, level - 1), start)?,
                };
                if is_empty {
                    self.free(change, inode, child)?;
                    set_number(change.edit(number.into())?, at, 0);
                }
                if level > 1 && self.is_over(change) && self.end > start.max(self.start) {
                    return Ok(false);
                }
            }
            self.end = self.end.min(start.max(self.start));
            if self.is_over(change) && self.end > self.start {
                return self.is_empty(change, number);
            }
        }
        self.is_empty(change, number)
    }

    fn is_empty(&self, change: &Change<'_>, number: u32) -> Attempt<bool> {
        Ok(change.look(number.into())?.iter().all(|byte| *byte == 0))
    }

    /// True when the rest is for the next change.
    fn is_over(&self, change: &Change<'_>) -> bool {
        change.written() + 3 * self.freed.len() >= BLOCKS_MAX
    }

    /// Notes that a block is free.
    fn free(&mut self, change: &Change<'_>, inode: &mut Inode, number: u32) -> Attempt<()> {
        let block = u64::from(number);
        if !change.sb.has_blocks(block, 1) {
            let detail = format!("inode {} has block {block}, outside of the image", inode.number);
            return Err(Error::corrupt(detail).into());
        }
        let less = change.sb.block_bytes / 512;
        let short = || Error::corrupt(format!("inode {} counts too few blocks", inode.number));
        inode.sectors = inode.sectors.checked_sub(less).ok_or_else(short)?;
        match self.freed.last_mut() {
            Some(run) if run.start == block + 1 => run.start = block,
            _ => self.freed.push(block..block + 1),
        }
        Ok(())
    }

    /// Clears the bits of what is free; returns from where on all was removed.
    fn finish(self, change: &mut Change<'_>) -> Attempt<u64> {
        for run in self.freed {
            balloc::free(change, run)?;
        }
        Ok(self.end)
    }
}
