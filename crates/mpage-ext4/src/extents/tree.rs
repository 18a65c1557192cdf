//! The nodes of a tree of extents, as they are changed: read on the way down to a leaf, and written
//! back from there up.
//!
//! 1. An entry of an index has the first block of the first entry below it.
//! 2. No node is empty but the root of an empty tree, which is a leaf.
//! 3. A node that is full is split: what goes behind its last entry gets a node of its own, so that
//!    a file that grows fills its nodes; else both have a half.

use mpage::Place;
use mpage::units::{DeviceBlock, FileBlock};
use zerocopy::FromBytes;

use super::{
    DEPTH_MAX, ENTRY, MAGIC, Node, RawExtent, RawIndex, WRITTEN_MAX, check_sum, entries_max,
};
use crate::balloc;
use crate::change::Change;
use crate::error::Error;
use crate::inode::Inode;
use crate::layers::Attempt;

/// Entries of the root.
const ROOT_MAX: usize = 4;

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
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    /// The part of it from `first` up to `end`.
    pub(super) fn part(&self, first: u64, end: u64) -> Entry {
        Entry { first, count: end - first, to: self.to + (first - self.first), ..*self }
    }
}

/// A node on the way to a leaf.
pub(super) struct Step {
    /// The block that it fills; `None` for the root.
    block: Option<u64>,
    pub(super) entries: Vec<Entry>,
    /// Which entry leads on, in an index.
    taken: usize,
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
        // Checks all that lies on the way, and that it ends.
        let _run = super::find(change, inode, block)?;
        let name = format!("the map of inode {}", inode.number);
        let root = Node::of(&inode.block, name.clone())?;
        let mut depth = root.depth.min(DEPTH_MAX);
        let mut steps = vec![Step::of(None, &root, block)?];
        while depth > 0 {
            depth -= 1;
            let last = steps.last().expect("there is a root");
            let Some(entry) = last.entries.get(last.taken) else {
                return Err(Error::corrupt(format!("{name} has an index without entries")).into());
            };
            let number = entry.to;
            let bytes = change.block(number, || format!("{name}, block {number}"))?;
            check_sum(change, inode, &bytes, number)?;
            let node = Node::of(&bytes, format!("{name}, block {number}"))?;
            if node.depth != depth {
                let detail = format!("{name}, block {number} is at another level");
                return Err(Error::corrupt(detail).into());
            }
            steps.push(Step::of(Some(number), &node, block)?);
        }
        Ok(Path { change, inode, steps })
    }

    /// The entries of the leaf.
    pub(super) fn leaf(&mut self) -> &mut Vec<Entry> {
        &mut self.steps.last_mut().expect("there is a root").entries
    }

    /// True when no leaf lies before this one.
    pub(super) fn is_first(&self) -> bool {
        let (_, indexes) = self.steps.split_last().expect("there is a root");
        indexes.iter().all(|step| step.taken == 0)
    }

    /// The first block behind those that belong into this leaf; `None` if it is the last.
    pub(super) fn end(&self) -> Option<u64> {
        let (_, indexes) = self.steps.split_last().expect("there is a root");
        let next = |step: &Step| step.entries.get(step.taken + 1).map(|entry| entry.first);
        indexes.iter().rev().find_map(next)
    }

    /// Where this leaf begins, as the index says.
    pub(super) fn start(&self) -> u64 {
        let (_, indexes) = self.steps.split_last().expect("there is a root");
        indexes.last().map_or(0, |step| step.entries[step.taken].first)
    }

    /// Writes the leaf back, and what changes above it. `at_end` says that what was put in lies
    /// behind all that the leaf had.
    pub(super) fn store(mut self, at_end: bool) -> Attempt<()> {
        let levels = self.steps.len();
        for level in (0..levels).rev() {
            let depth = levels - 1 - level;
            let step = &self.steps[level];
            let is_empty = step.entries.is_empty();
            if level == 0 {
                return self.store_root(depth);
            }
            let block = step.block.expect("it is not the root");
            if is_empty {
                balloc::free(self.change, block..block + 1)?;
                self.inode.sectors -= self.change.sb.block_bytes / 512;
                let above = &mut self.steps[level - 1];
                let _gone = above.entries.remove(above.taken);
                continue;
            }
            let mut nodes = self.split(level, at_end).into_iter();
            let left = nodes.next().expect("it is not empty");
            self.write(block, depth, &left)?;
            let above = &mut self.steps[level - 1];
            above.entries[above.taken].first = left[0].first;
            for (nth, right) in (1..).zip(nodes) {
                let place = self.allocate(block)?;
                self.write(place, depth, &right)?;
                let index = Entry { first: right[0].first, count: 0, to: place, written: true };
                let above = &mut self.steps[level - 1];
                above.entries.insert(above.taken + nth, index);
            }
        }
        Ok(())
    }

    /// The entries at `level`, as many together as a node has room for.
    fn split(&mut self, level: usize, at_end: bool) -> Vec<Vec<Entry>> {
        let max = entries_max(self.change.sb);
        let entries = std::mem::take(&mut self.steps[level].entries);
        let nodes = entries.len().div_ceil(max);
        let each = if at_end { max } else { entries.len().div_ceil(nodes) };
        entries.chunks(each).map(<[Entry]>::to_vec).collect()
    }

    /// Writes the root, whose entries are `depth` levels above the leaves. What it has no room for
    /// goes into a node below it.
    fn store_root(&mut self, depth: usize) -> Attempt<()> {
        let entries = std::mem::take(&mut self.steps[0].entries);
        if entries.is_empty() || entries.len() <= ROOT_MAX {
            let depth = if entries.is_empty() { 0 } else { depth };
            encode(&mut self.inode.block, ROOT_MAX, depth, &entries);
            return Ok(());
        }
        if depth >= usize::from(DEPTH_MAX) {
            return Err(Error::errno(mpage_block::Errno::FBIG, "the map has no more levels").into());
        }
        let goal = entries.iter().find(|_| depth == 0).map(|run| run.to);
        let goal = goal.unwrap_or_else(|| self.change.goal_of_inode(self.inode.number));
        let block = self.allocate(goal)?;
        self.write(block, depth, &entries)?;
        let index = Entry { first: entries[0].first, count: 0, to: block, written: true };
        encode(&mut self.inode.block, ROOT_MAX, depth + 1, &[index]);
        Ok(())
    }

    fn allocate(&mut self, near: u64) -> Attempt<u64> {
        let block = balloc::allocate(self.change, near)?;
        self.inode.sectors += self.change.sb.block_bytes / 512;
        Ok(block)
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
    fn of(block: Option<u64>, node: &Node<'_>, wanted: u64) -> Attempt<Step> {
        let entries: Vec<Entry> = match node.depth {
            0 => {
                let raw = <[RawExtent]>::ref_from_bytes(node.entries).expect("whole entries");
                raw.iter().map(RawExtent::entry).collect()
            }
            _ => {
                let raw = <[RawIndex]>::ref_from_bytes(node.entries).expect("whole entries");
                raw.iter().map(RawIndex::entry).collect()
            }
        };
        let behind = entries.partition_point(|entry| entry.first <= wanted);
        Ok(Step { block, entries, taken: behind.saturating_sub(1) })
    }
}

impl RawExtent {
    fn entry(&self) -> Entry {
        let len = self.len.get();
        let written = len <= WRITTEN_MAX;
        let count = if written { len } else { len - WRITTEN_MAX };
        let to = u64::from(self.start_lo.get()) | u64::from(self.start_hi.get()) << 32;
        Entry { first: self.first.get().into(), count: count.into(), to, written }
    }
}

impl RawIndex {
    fn entry(&self) -> Entry {
        let to = u64::from(self.leaf_lo.get()) | u64::from(self.leaf_hi.get()) << 32;
        Entry { first: self.first.get().into(), count: 0, to, written: true }
    }
}

impl Entry {
    /// The entry of a leaf for `run`.
    pub(super) fn of(run: &mpage::Extent) -> Option<Entry> {
        let FileBlock(first) = run.first;
        let (DeviceBlock(to), written) = match run.place {
            Place::Mapped(to) => (to, true),
            Place::Unwritten(to) => (to, false),
            Place::Hole => return None,
        };
        Some(Entry { first, count: run.count, to, written })
    }
}
