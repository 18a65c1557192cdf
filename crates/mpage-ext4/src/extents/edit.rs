//! Changes of a tree of extents: runs put in, converted, taken out.
//!
//! Linux: `ext4_ext_insert_extent()`, `ext4_ext_convert_to_initialized()`,
//! `ext4_ext_remove_space()`, fs/ext4/extents.c.

use std::ops::Range;

use mpage::Extent;
use mpage_block::Errno;

use super::tree::{Entry, Path, ROOT_MAX, shrink};
use super::{FILE_BLOCKS, WRITTEN_MAX, entries_max};
use crate::balloc;
use crate::block_map::{Budget, uncount};
use crate::change::Change;
use crate::error::Error;
use crate::inode::Inode;
use crate::layers::Attempt;
use crate::superblock::Superblock;

/// The longest run that an entry can have.
fn count_max(written: bool) -> u64 {
    u64::from(WRITTEN_MAX) - u64::from(!written)
}

/// See [`block_map::insert`](crate::block_map::insert).
pub(crate) fn insert(change: &mut Change<'_>, inode: &mut Inode, run: &Extent) -> Attempt<()> {
    let Some(whole) = Entry::of(run) else { return Ok(()) };
    if whole.end() >= FILE_BLOCKS {
        let detail = format!("inode {} cannot have block {}", inode.number, whole.end() - 1);
        return Err(Error::errno(Errno::FBIG, detail).into());
    }
    let mut first = whole.first;
    while first < whole.end() {
        let mut path = Path::to(change, inode, first)?;
        // What belongs into another leaf gets its turn.
        let end = whole.end().min(first + count_max(whole.written)).min(path.blocks().end);
        let run = whole.part(first, end);
        let at_end = path.leaf().last().is_none_or(|last| last.first < first);
        let new = place(path.leaf(), run).ok_or_else(|| {
            let number = path.inode.number;
            Error::corrupt(format!("blocks {run:?} of inode {number} are mapped elsewhere"))
        })?;
        path.inode.sectors += new * (path.change.sb.block_bytes / 512);
        path.store(at_end)?;
        first = end;
    }
    Ok(())
}

/// Puts `run` among `entries`, in place of what is unwritten there; returns how many blocks were
/// holes. `None` if anything else is there.
fn place(entries: &mut Vec<Entry>, run: Entry) -> Option<u64> {
    let start = entries.partition_point(|entry| entry.end() <= run.first);
    let end = entries.partition_point(|entry| entry.first < run.end());
    let mut pieces = Vec::with_capacity(4);
    let mut holes = run.count;
    for old in &entries[start..end] {
        let overlap = old.first.max(run.first)..old.end().min(run.end());
        let same =
            old.part(overlap.start, overlap.end).to == run.part(overlap.start, overlap.end).to;
        if old.written || !same {
            return None;
        }
        holes -= overlap.end - overlap.start;
        if old.first < run.first {
            pieces.push(old.part(old.first, run.first));
        }
        if old.end() > run.end() {
            pieces.push(old.part(run.end(), old.end()));
        }
    }
    let at = pieces.partition_point(|piece| piece.first < run.first);
    pieces.insert(at, run);
    // Neighbours may be one with what is new.
    let start = start.saturating_sub(1);
    let end = (end + 1).min(entries.len());
    let before = entries[start..end].iter().filter(|old| old.end() <= run.first);
    let behind = entries[start..end].iter().filter(|old| old.first >= run.end());
    let all = before.chain(&pieces).chain(behind).copied().collect::<Vec<_>>();
    drop(entries.splice(start..end, joined(&all)));
    Some(holes)
}

/// `entries`, with those joined that can be one.
fn joined(entries: &[Entry]) -> Vec<Entry> {
    let mut joined: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match joined.last_mut() {
            Some(last)
                if last.written == entry.written
                    && last.end() == entry.first
                    && last.to + last.count == entry.to
                    && last.count + entry.count <= count_max(entry.written) =>
            {
                last.count += entry.count;
            }
            _ => joined.push(*entry),
        }
    }
    joined
}

/// See [`block_map::remove`](crate::block_map::remove).
pub(crate) fn remove(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
) -> Attempt<Option<u64>> {
    let left = each_leaf(change, inode, blocks, |path, blocks, budget| {
        let mut end = blocks.end;
        loop {
            let entries = path.leaf();
            let at = entries.partition_point(|entry| entry.first < end);
            let Some(at) = at.checked_sub(1).filter(|at| entries[*at].end() > blocks.start) else {
                return Ok(blocks.start);
            };
            let old = entries[at];
            let gone = old.part(old.first.max(blocks.start), old.end().min(end));
            let left = [(old.first, gone.first), (gone.end(), old.end())];
            let left = left.into_iter().filter(|(first, end)| first < end);
            let left: Vec<Entry> = left.map(|(first, end)| old.part(first, end)).collect();
            drop(entries.splice(at..=at, left));
            balloc::free(path.change, gone.to..gone.to + gone.count)?;
            uncount(path.change.sb, path.inode, gone.count)?;
            budget.note_run();
            end = gone.first;
            if budget.is_over(path.change) {
                return Ok(end);
            }
        }
    })?;
    shrink(change, inode)?;
    Ok(left)
}

/// See [`block_map::unwrite`](crate::block_map::unwrite).
pub(crate) fn unwrite(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
) -> Attempt<Option<u64>> {
    each_leaf(change, inode, blocks, |path, blocks, _| {
        let entries: Vec<Entry> =
            path.leaf().iter().flat_map(|entry| unwritten(entry, &blocks)).collect();
        *path.leaf() = joined(&entries);
        Ok(blocks.start)
    })
}

/// What becomes of `entry` when its part of `blocks` is not written any more.
fn unwritten(entry: &Entry, blocks: &Range<u64>) -> Vec<Entry> {
    let middle = entry.first.max(blocks.start)..entry.end().min(blocks.end);
    if !entry.written || middle.start >= middle.end {
        return vec![*entry];
    }
    let most = middle.end.min(middle.start + count_max(false));
    let bounds = [entry.first, middle.start, most, middle.end, entry.end()];
    let parts = bounds.windows(2).filter(|bound| bound[0] < bound[1]);
    let part = |bound: &[u64]| {
        let written = !middle.contains(&bound[0]);
        Entry { written, ..entry.part(bound[0], bound[1]) }
    };
    parts.map(part).collect()
}

/// Lets `edit` change each leaf that may have some of `blocks`, the last first. It gets what of
/// them is the leaf's, and returns from where on it is done. Returns what is left for the next
/// change.
fn each_leaf(
    change: &mut Change<'_>,
    inode: &mut Inode,
    blocks: Range<u64>,
    edit: impl Fn(&mut Path<'_, '_>, Range<u64>, &mut Budget) -> Attempt<u64>,
) -> Attempt<Option<u64>> {
    let mut budget = Budget::new(change);
    let mut end = blocks.end.min(FILE_BLOCKS);
    while blocks.start < end {
        if budget.is_over(change) {
            return Ok(Some(end));
        }
        budget.note_node();
        let mut path = Path::to(change, inode, end - 1)?;
        let start = path.blocks().start.max(blocks.start);
        let before = path.leaf().clone();
        let done = edit(&mut path, start..end, &mut budget)?;
        if *path.leaf() != before {
            path.store(false)?;
        }
        end = done;
    }
    Ok(None)
}

/// See [`block_map::nodes_for`](crate::block_map::nodes_for).
///
/// Each block adds an entry at most, and what is unwritten one more a run: where every other block
/// of it is converted, there is a border on both sides of each. So it is
/// `added = blocks + runs` entries at most, one or two at a time, which is one new node at a time.
///
/// How many nodes that makes: let a node have room for `max` entries, and let one with `e` entries
/// be worth `2 e / (max - 1)`, if it is the last of its level, and else as much as `e` exceeds a
/// half of `max + 2`, in parts of a half of `max`. Then an entry more makes a node worth
/// `2 / (max - 1)` more at most, and a split, whether it leaves one node full or two with a half,
/// costs a worth of one at least. At the beginning a node is worth less than one, the last one less
/// than three.
///
/// A run of holes lies in one leaf. One of unwritten blocks begins in one and ends in another; a
/// leaf all of which it has is worth no more than its blocks are counted for. So
/// `2 runs + 1 + 2 (added + 1) / (max - 1)` nodes come at a level; and as many entries at the one
/// above. No more of its nodes than there are new ones below, or twice the runs, are touched.
///
/// What the root has no room for becomes a node, which is the last of its level, and alone.
pub(crate) fn nodes_for(sb: &Superblock, inode: &Inode, runs: u64, blocks: u64) -> u64 {
    if blocks == 0 {
        return 0;
    }
    let (entries, depth) = (u64::from(inode.block[2]), u64::from(inode.block[6]));
    let max = entries_max(sb) as u64;
    let mut added = blocks + runs;
    let mut nodes = 0;
    for _ in 0..depth {
        added = added.min(2 * runs + 1 + 2 * (added + 1) / (max - 1));
        nodes += added;
    }
    let mut of_root = entries + added;
    while of_root > ROOT_MAX as u64 {
        of_root = 1 + 2 * of_root / (max - 1);
        nodes += of_root;
    }
    nodes
}
