//! The nodes of a tree of extents, as they are changed: read on the way down to a leaf, and written
//! back from there up.
//!
//! 1. An entry of an index has the first block of the first entry below it.
//! 2. No node is empty but the root of an empty tree, which is a leaf.
//! 3. A node that is full is split. What goes behind the last entry of the last node gets a node of
//!    its own, so that a file that grows fills its nodes; else both have a half.
//! 4. What is read was checked, whatever of it is used: entries are in order, and lie where the
//!    index above says.

use std::ops::Range;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{Extent, Place};
use mpage_block::Errno;
use zerocopy::FromBytes;

use super::{
    DEPTH_MAX, ENTRY, FILE_BLOCKS, MAGIC, Node, RawExtent, RawIndex, WRITTEN_MAX, entries_max,
    name, name_at, read,
};
use crate::balloc;
use crate::block_map::uncount;
use crate::change::Change;
use crate::error::{Error, Result};
use crate::inode::Inode;
use crate::layers::Attempt;
use crate::superblock::Superblock;
use crate::view::View;

/// Entries of the root.
pub(super) const ROOT_MAX: usize = 4;

/// An entry of a leaf, or of an index, which has no count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) first: u64,
    pub(super) count: u64,
    /// The first block of the run, or the node below.
    pub(super) to: u64,
    pub(super) written: bool,
}

impl Entry {
    /// The entry of a leaf for `run`; `None` for a hole.
    pub(super) fn of(run: &Extent) -> Option<Entry> {
        let FileBlock(first) = run.first;
        let (DeviceBlock(to), written) = match run.place {
            Place::Mapped(to) => (to, true),
            Place::Unwritten(to) => (to, false),
            Place::Hole => return None,
        };
        Some(Entry { first, count: run.count, to, written })
    }

    /// The entry of an index for the node in `block`, whose first entry is of file block `first`.
    fn index(first: u64, block: u64) -> Entry {
        Entry { first, count: 0, to: block, written: true }
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    /// The part of it from `first` up to `end`.
    pub(super) fn part(&self, first: u64, end: u64) -> Entry {
        Entry { first, count: end - first, to: self.to + (first - self.first), ..*self }
    }
}

/// A node on the way to a leaf.
struct Step {
    /// The block that it fills; `None` for the root.
    block: Option<u64>,
    entries: Vec<Entry>,
    /// The file blocks that belong into the leaf, or below the entry of an index that is taken.
    blocks: Range<u64>,
    /// Which entry leads on, in an index.
    taken: usize,
    changed: bool,
}

/// A tree that is being changed, at one of its leaves.
pub(super) struct Path<'c, 'a> {
    pub(super) change: &'c mut Change<'a>,
    pub(super) inode: &'c mut Inode,
    /// From the root to the leaf.
    steps: Vec<Step>,
}

impl<'c, 'a> Path<'c, 'a> {
    /// The way to the leaf that `block` is or would be in.
    pub(super) fn to(
        change: &'c mut Change<'a>,
        inode: &'c mut Inode,
        block: u64,
    ) -> Attempt<Path<'c, 'a>> {
        let root = Node::root(inode)?;
        let mut steps = vec![Step::of(change.sb, &name(inode), &root, 0..FILE_BLOCKS, block)?];
        for depth in (0..root.depth).rev() {
            let last = steps.last().expect("there is a root");
            steps.push(last.below(change, inode, depth, block)?);
        }
        Ok(Path { change, inode, steps })
    }

    /// The entries of the leaf.
    pub(super) fn leaf(&mut self) -> &mut Vec<Entry> {
        &mut self.steps.last_mut().expect("there is a root").entries
    }

    /// The file blocks that belong into the leaf.
    pub(super) fn blocks(&self) -> Range<u64> {
        self.steps.last().expect("there is a root").blocks.clone()
    }

    /// Writes the leaf back, and what changes above it. `at_end` says that what was put in lies
    /// behind all that the leaf had.
    pub(super) fn store(mut self, at_end: bool) -> Attempt<()> {
        self.steps.last_mut().expect("there is a root").changed = true;
        let is_last = self.blocks().end == FILE_BLOCKS;
        let levels = self.steps.len();
        for level in (1..levels).rev() {
            if !self.steps[level].changed {
                return Ok(());
            }
            // An index gets its new entry behind the one that was taken.
            let fills = is_last && (at_end || level + 1 < levels);
            self.store_below_root(level, levels - 1 - level, fills)?;
        }
        if self.steps[0].changed { self.store_root(levels - 1) } else { Ok(()) }
    }

    /// Writes the node at `level` of the path, `depth` levels above the leaves, and says so above;
    /// `fills` says that it stays full when it is split.
    fn store_below_root(&mut self, level: usize, depth: usize, fills: bool) -> Attempt<()> {
        let block = self.steps[level].block.expect("it is not the root");
        let entries = std::mem::take(&mut self.steps[level].entries);
        let taken = self.steps[level - 1].taken;
        if entries.is_empty() {
            self.free(block)?;
            let above = &mut self.steps[level - 1];
            let _gone = above.entries.remove(taken);
            above.changed = true;
            return Ok(());
        }
        let max = entries_max(self.change.sb);
        let nodes = entries.len().div_ceil(max);
        let each = if fills { max } else { entries.len().div_ceil(nodes) };
        let mut nodes = entries.chunks(each);
        let left = nodes.next().expect("it is not empty");
        self.write(block, depth, left)?;
        let above = &mut self.steps[level - 1];
        if above.entries[taken].first != left[0].first {
            above.entries[taken].first = left[0].first;
            above.changed = true;
        }
        for (nth, right) in (1..).zip(nodes) {
            let place = self.allocate(block)?;
            self.write(place, depth, right)?;
            let above = &mut self.steps[level - 1];
            above.entries.insert(taken + nth, Entry::index(right[0].first, place));
            above.changed = true;
        }
        Ok(())
    }

    /// Writes the root, whose entries are `depth` levels above the leaves. If it has no room for
    /// them, they go into a node below it.
    fn store_root(&mut self, depth: usize) -> Attempt<()> {
        let entries = std::mem::take(&mut self.steps[0].entries);
        if entries.len() <= ROOT_MAX {
            let depth = if entries.is_empty() { 0 } else { depth };
            encode(&mut self.inode.block, ROOT_MAX, depth, &entries);
            return Ok(());
        }
        if depth >= usize::from(DEPTH_MAX) {
            let detail = format!("{} has no more levels", name(self.inode));
            return Err(Error::errno(Errno::FBIG, detail).into());
        }
        let max = entries_max(self.change.sb);
        let nodes = entries.len().div_ceil(max);
        let mut indexes = Vec::with_capacity(nodes);
        for node in entries.chunks(entries.len().div_ceil(nodes)) {
            let block = self.allocate(node[0].to)?;
            self.write(block, depth, node)?;
            indexes.push(Entry::index(node[0].first, block));
        }
        encode(&mut self.inode.block, ROOT_MAX, depth + 1, &indexes);
        Ok(())
    }

    fn allocate(&mut self, near: u64) -> Attempt<u64> {
        let block = balloc::allocate(self.change, near)?;
        self.inode.sectors += self.change.sb.block_bytes / 512;
        Ok(block)
    }

    fn free(&mut self, block: u64) -> Attempt<()> {
        balloc::free(self.change, block..block + 1)?;
        Ok(uncount(self.change.sb, self.inode, 1)?)
    }

    /// Writes a node that fills `block`.
    fn write(&mut self, block: u64, depth: usize, entries: &[Entry]) -> Attempt<()> {
        let sb = self.change.sb;
        let max = entries_max(sb);
        let mut bytes = vec![0; usize::try_from(sb.block_bytes).expect("at most a page")];
        encode(&mut bytes, max, depth, entries);
        if sb.has_checksums() {
            let end = ENTRY * (1 + max);
            let sum = self.inode.checksum_seed.of(&bytes[..end]);
            bytes[end..end + 4].copy_from_slice(&sum.0.to_le_bytes());
        }
        self.change.fill(block, bytes);
        Ok(())
    }
}

/// Takes the node below the root into it, as often as that is the only one and has no more entries
/// than the root has room for. Linux: `ext4_ext_try_to_merge_up()`.
pub(super) fn shrink(change: &mut Change<'_>, inode: &mut Inode) -> Attempt<()> {
    loop {
        let root = Node::root(inode)?;
        let step = Step::of(change.sb, &name(inode), &root, 0..FILE_BLOCKS, 0)?;
        let (1.., [only]) = (root.depth, &step.entries[..]) else { return Ok(()) };
        let (block, depth) = (only.to, root.depth - 1);
        let below = step.below(change, inode, depth, 0)?;
        if below.entries.is_empty() || below.entries.len() > ROOT_MAX {
            return Ok(());
        }
        encode(&mut inode.block, ROOT_MAX, depth.into(), &below.entries);
        balloc::free(change, block..block + 1)?;
        uncount(change.sb, inode, 1)?;
    }
}

/// Writes a header and `entries`; the rest of `bytes` stays.
fn encode(bytes: &mut [u8], max: usize, depth: usize, entries: &[Entry]) {
    let half = |number: usize| u16::try_from(number).expect("in a block").to_le_bytes();
    bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[2..4].copy_from_slice(&half(entries.len()));
    bytes[4..6].copy_from_slice(&half(max));
    bytes[6..8].copy_from_slice(&half(depth));
    for (entry, bytes) in entries.iter().zip(bytes[ENTRY..].chunks_exact_mut(ENTRY)) {
        let first = u32::try_from(entry.first).expect("blocks have 32 bits").to_le_bytes();
        let to = entry.to.to_le_bytes();
        bytes[..4].copy_from_slice(&first);
        if depth == 0 {
            let count = u16::try_from(entry.count).expect("no longer than a run");
            let count = if entry.written { count } else { count + WRITTEN_MAX };
            bytes[4..6].copy_from_slice(&count.to_le_bytes());
            bytes[6..8].copy_from_slice(&to[4..6]);
            bytes[8..].copy_from_slice(&to[..4]);
        } else {
            bytes[4..8].copy_from_slice(&to[..4]);
            bytes[8..10].copy_from_slice(&to[4..6]);
            bytes[10..].fill(0);
        }
    }
}

impl Step {
    /// The root, or `node`, to which `blocks` belong, on the way to `wanted`.
    fn of(
        sb: &Superblock,
        name: &str,
        node: &Node<'_>,
        mut blocks: Range<u64>,
        wanted: u64,
    ) -> Result<Step> {
        let is_leaf = node.depth == 0;
        let entries = node.entries();
        // An index may begin before its first entry.
        let mut end = if is_leaf { blocks.start } else { 0 };
        for entry in &entries {
            let is_good = match is_leaf {
                true => sb.has_blocks(entry.to, entry.count) && entry.count > 0,
                false => entry.first >= blocks.start || end == 0,
            };
            if !is_good || entry.first < end || entry.first + entry.count > blocks.end {
                let detail = format!("{name} has {entry:?}, and should have some of {blocks:?}");
                return Err(Error::corrupt(detail));
            }
            end = entry.first + if is_leaf { entry.count } else { 1 };
        }
        if !is_leaf && (entries.is_empty() || end > blocks.end) {
            return Err(Error::corrupt(format!("{name} has no index of {blocks:?}")));
        }
        let behind = entries.partition_point(|entry| entry.first <= wanted);
        let taken = behind.saturating_sub(1);
        if !is_leaf {
            if behind > 0 {
                blocks.start = blocks.start.max(entries[taken].first);
            }
            blocks.end = entries.get(taken + 1).map_or(blocks.end, |next| next.first);
        }
        Ok(Step { block: None, entries, blocks, taken, changed: false })
    }

    /// The node that this one leads to.
    fn below(&self, view: &View<'_>, inode: &Inode, depth: u16, wanted: u64) -> Attempt<Step> {
        let number = self.entries[self.taken].to;
        let bytes = read(view, inode, number)?;
        let name = name_at(inode, number);
        let node = Node::at(&bytes, &name, depth)?;
        let step = Step::of(view.sb, &name, &node, self.blocks.clone(), wanted)?;
        Ok(Step { block: Some(number), ..step })
    }
}

impl Node<'_> {
    fn entries(&self) -> Vec<Entry> {
        if self.depth > 0 {
            let raw = <[RawIndex]>::ref_from_bytes(self.entries).expect("whole entries");
            let of = |index: &RawIndex| Entry::index(index.first.get().into(), index.leaf());
            return raw.iter().map(of).collect();
        }
        let of = |extent: &RawExtent| {
            let (count, written) = extent.count();
            Entry { first: extent.first.get().into(), count, to: extent.start(), written }
        };
        let raw = <[RawExtent]>::ref_from_bytes(self.entries).expect("whole entries");
        raw.iter().map(of).collect()
    }
}
