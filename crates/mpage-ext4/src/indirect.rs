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
use crate::block_map::{Budget, check_place, uncount};
use crate::change::Change;
use crate::error::Error;
use crate::inode::{Inode, InodeNumber};
use crate::layers::{Attempt, Block};
use crate::superblock::Superblock;
use crate::view::View;

/// Blocks whose numbers are in the inode.
const DIRECT: u64 = 12;

/// The way to a block's number.
struct Branch {
    /// Which number in the inode leads there.
    index: usize,
    /// How many blocks of numbers are on the way.
    level: u32,
    /// The first block of the file to which that number leads.
    first: u64,
}

impl Branch {
    /// The way to `block`; `None` behind the end of every map.
    fn to(sb: &Superblock, block: u64) -> Option<Branch> {
        if block < DIRECT {
            let index = usize::try_from(block).expect("below twelve");
            return Some(Branch { index, level: 0, first: block });
        }
        Branch::tops(sb).into_iter().rev().find(|top| block >= top.first).filter(|top| {
            let count = (sb.block_bytes / 4).pow(top.level);
            block < top.first + count
        })
    }

    /// The three that lead to blocks of numbers.
    fn tops(sb: &Superblock) -> [Branch; 3] {
        let in_block = sb.block_bytes / 4;
        [
            Branch { index: 12, level: 1, first: DIRECT },
            Branch { index: 13, level: 2, first: DIRECT + in_block },
            Branch { index: 14, level: 3, first: DIRECT + in_block + in_block.pow(2) },
        ]
    }
}

/// The content of block of numbers `number` of `inode`.
fn read(view: &View<'_>, inode: &Inode, number: u32) -> Attempt<Block> {
    check_place(view, inode, number.into(), 1)?;
    view.block(number.into(), || format!("a block of numbers of inode {}", inode.number))
}

/// The run of `inode` that holds file block `block`, as long as one block of numbers tells.
pub(crate) fn find(view: &View<'_>, inode: &Inode, block: u64) -> Attempt<Extent> {
    let Some(Branch { index, level, mut first }) = Branch::to(view.sb, block) else {
        return Ok(Extent::hole(FileBlock(block), u64::MAX - block));
    };
    if level == 0 {
        return run(view, inode, &inode.block[index * 4..48], block);
    }
    let in_block = view.sb.block_bytes / 4;
    let mut number = number_at(&inode.block, index);
    for level in (0..level).rev() {
        let each = in_block.pow(level);
        if number == 0 {
            return Ok(Extent::hole(FileBlock(block), first + each * in_block - block));
        }
        let bytes = read(view, inode, number)?;
        let nth = (block - first) / each;
        let index = usize::try_from(nth).expect("inside the block");
        if level == 0 {
            return run(view, inode, &bytes[index * 4..], block);
        }
        number = number_at(&bytes, index);
        first += nth * each;
    }
    unreachable!("level 0 returns");
}

/// The run at the beginning of `numbers`, the first of which is file block `block`'s.
fn run(view: &View<'_>, inode: &Inode, numbers: &[u8], block: u64) -> Attempt<Extent> {
    let numbers = <[U32]>::ref_from_bytes(numbers).expect("whole numbers");
    let start = numbers[0].get();
    let follows = |(n, number): (u64, &U32)| match start {
        0 => *number == 0,
        _ => u64::from(number.get()) == u64::from(start) + n,
    };
    let count = (0..).zip(numbers).take_while(|each| follows(*each)).count() as u64;
    let start = u64::from(start);
    if start == 0 {
        return Ok(Extent::hole(FileBlock(block), count));
    }
    check_place(view, inode, start, count)?;
    Ok(Extent::mapped(FileBlock(block), DeviceBlock(start), count))
}

/// Unwritten blocks, which `inode` cannot have.
pub(crate) fn no_unwritten(inode: InodeNumber) -> Error {
    let detail = format!("inode {inode} has no extents, and no blocks that are unwritten");
    Error::errno(Errno::OPNOTSUPP, detail)
}

/// See [`block_map::nodes_for`](crate::block_map::nodes_for).
///
/// Of the blocks of numbers at a level, each of which leads to `n` of the next, `b` in a run take
/// `b / n + 2` at most, and no more than `b`; and these are a run again. There is one block at most
/// that leads to others that lead to others.
pub(crate) fn nodes_for(sb: &Superblock, runs: u64, blocks: u64) -> u64 {
    let in_block = sb.block_bytes / 4;
    let above = |below: u64| (2 * runs).min(below) + below / in_block;
    let first = above(blocks);
    let second = above(first);
    first + second + second.min(1)
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
    let Place::Mapped(to) = run.place else { return Err(no_unwritten(inode.number).into()) };
    let sectors = change.sb.block_bytes / 512;
    let mut done = 0;
    while done < run.count {
        let (block, to) = (run.first.0 + done, to.0 + done);
        let Some(branch) = Branch::to(change.sb, block) else {
            let detail = format!("inode {} cannot have block {block}", inode.number);
            return Err(Error::errno(Errno::FBIG, detail).into());
        };
        let left = run.count - done;
        let count = match branch.level {
            0 => {
                let count = left.min(DIRECT - block);
                put(&mut inode.block, branch.index, count, to, inode.number)?;
                count
            }
            _ => insert_below(change, inode, &branch, (block, to, left))?,
        };
        inode.sectors += count * sectors;
        done += count;
    }
    Ok(())
}

/// Puts the first of `count` blocks from `block` on, whose places are those from `to` on, into a
/// block of numbers at the end of `branch`; returns how many that has.
fn insert_below(
    change: &mut Change<'_>,
    inode: &mut Inode,
    branch: &Branch,
    (block, to, count): (u64, u64, u64),
) -> Attempt<u64> {
    let in_block = change.sb.block_bytes / 4;
    let mut number = number_at(&inode.block, branch.index);
    if number == 0 {
        number = new_block(change, inode, to)?;
        set_number(&mut inode.block, branch.index, number);
    }
    let mut rest = block - branch.first;
    for level in (1..branch.level).rev() {
        let each = in_block.pow(level);
        let index = usize::try_from(rest / each).expect("inside a block");
        let parent = number;
        number = number_at(&read(change, inode, parent)?, index);
        if number == 0 {
            number = new_block(change, inode, to)?;
            set_number(change.edit(parent.into())?, index, number);
        }
        rest %= each;
    }
    let _checked = read(change, inode, number)?;
    let count = count.min(in_block - rest);
    let index = usize::try_from(rest).expect("inside a block");
    put(change.edit(number.into())?, index, count, to, inode.number)?;
    Ok(count)
}

/// Puts `count` block numbers from `to` on into `bytes`, where there are none.
fn put(bytes: &mut [u8], index: usize, count: u64, to: u64, inode: InodeNumber) -> Attempt<()> {
    for (index, place) in (index..).zip(to..to + count) {
        if number_at(bytes, index) != 0 {
            let detail = format!("a block of inode {inode} is mapped already, not to {place}");
            return Err(Error::corrupt(detail).into());
        }
        set_number(bytes, index, narrow(place)?);
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

/// See [`block_map::remove`](crate::block_map::remove).
pub(crate) fn remove(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
) -> Attempt<Option<u64>> {
    let budget = Budget::new(change);
    let mut removal = Removal { change, inode, budget, blocks, freed: 0..0, stopped: false };
    for top in Branch::tops(removal.change.sb).into_iter().rev() {
        let number = number_at(&removal.inode.block, top.index);
        if number != 0 && removal.reaches(top.first) {
            let is_empty = removal.below(number, top.level, top.first)?;
            if is_empty {
                removal.free(number)?;
                set_number(&mut removal.inode.block, top.index, 0);
            }
        }
        if !removal.go_on(top.first) {
            return removal.finish();
        }
    }
    for block in (removal.blocks.start..removal.blocks.end).rev() {
        let index = usize::try_from(block).expect("below twelve");
        let number = number_at(&removal.inode.block, index);
        if number != 0 {
            removal.free(number)?;
            set_number(&mut removal.inode.block, index, 0);
        }
    }
    removal.finish()
}

/// Blocks on their way out of a map, from the end on.
struct Removal<'c, 'a> {
    change: &'c mut Change<'a>,
    inode: &'c mut Inode,
    budget: Budget,
    /// What is still to be removed.
    blocks: Range<u64>,
    /// A run that is out of the map, and whose bits are still set.
    freed: Range<u64>,
    /// The budget is used up, and `blocks` are left.
    stopped: bool,
}

impl Removal<'_, '_> {
    /// True when something at or behind file block `first` is to be removed.
    fn reaches(&self, first: u64) -> bool {
        self.blocks.start < self.blocks.end && first < self.blocks.end
    }

    /// Removes what lies below block of numbers `number`, `level` levels above the file's blocks,
    /// whose first file block is `first`; true when it has no numbers left. It ends where the
    /// budget does.
    fn below(&mut self, number: u32, level: u32, first: u64) -> Attempt<bool> {
        let in_block = self.change.sb.block_bytes / 4;
        let each = in_block.pow(level - 1);
        let bytes = read(self.change, self.inode, number)?;
        self.budget.note_node();
        let from = self.blocks.start.saturating_sub(first) / each;
        let to = (self.blocks.end - first).div_ceil(each).min(in_block);
        let mut gone = Vec::new();
        for nth in (from..to).rev() {
            let index = usize::try_from(nth).expect("inside a block");
            let start = first + nth * each;
            let below = number_at(&bytes, index);
            if below != 0 && (level == 1 || self.below(below, level - 1, start)?) {
                self.free(below)?;
                gone.push(index);
            }
            if !self.go_on(start) {
                break;
            }
        }
        if gone.is_empty() {
            return Ok(bytes.iter().all(|byte| *byte == 0));
        }
        let bytes = self.change.edit(number.into())?;
        for index in gone {
            set_number(bytes, index, 0);
        }
        Ok(bytes.iter().all(|byte| *byte == 0))
    }

    /// Notes that all from file block `first` on was removed, if it did not stop before; false when
    /// it stops.
    fn go_on(&mut self, first: u64) -> bool {
        if !self.stopped {
            self.blocks.end = self.blocks.end.min(first.max(self.blocks.start));
            let is_over = self.budget.is_over(self.change);
            self.stopped = is_over && self.blocks.start < self.blocks.end;
        }
        !self.stopped
    }

    /// Block `number` is out of the map.
    fn free(&mut self, number: u32) -> Attempt<()> {
        let block = u64::from(number);
        check_place(self.change, self.inode, block, 1)?;
        uncount(self.change.sb, self.inode, 1)?;
        if self.freed.start != block + 1 {
            self.clear()?;
            self.freed.end = block + 1;
        }
        self.freed.start = block;
        Ok(())
    }

    /// Clears the bits of the run that is out of the map.
    fn clear(&mut self) -> Attempt<()> {
        if !self.freed.is_empty() {
            balloc::free(self.change, std::mem::take(&mut self.freed))?;
            self.budget.note_run();
        }
        Ok(())
    }

    /// Returns the end of what is still to be removed.
    fn finish(mut self) -> Attempt<Option<u64>> {
        self.clear()?;
        Ok(self.stopped.then_some(self.blocks.end))
    }
}
