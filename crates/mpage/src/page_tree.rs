//! The pages of one mapping by index, with marks: a radix tree of 64 slots a node.
//!
//! Lookup takes no lock: nodes are type-stable, links are 32-bit numbers in atomics, and a reader
//! that walked into a recycled node comes to a page whose mapping and index are not those it looked
//! for. Everything else happens under the mapping lock, which is why the tree is a value inside it.
//!
//! Invariants:
//! 1. A mark's bit in a node is set exactly when a page below it has the mark.
//! 2. `Present` is the mark of every page; a node without it is free.
//!
//! Linux: `struct xarray`, lib/xarray.c, and its marks.

use std::ops::{BitOr, Range};
use std::sync::Arc;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::page::PageId;
use crate::units::PageIndex;

/// A checker of schedules follows each slot: it gets small nodes, and taller trees.
const BITS: u32 = if cfg!(any(mpage_loom, mpage_shuttle)) { 2 } else { 6 };
const SLOTS: usize = 1 << BITS;
/// Levels that 64-bit indices can need.
const LEVELS_MAX: usize = u64::BITS.div_ceil(BITS) as usize;
const MARKS: usize = 5;

/// What a page of the tree can be marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// In the tree.
    Present = 0,
    /// Has bytes the device does not have. Linux: `PAGECACHE_TAG_DIRTY`.
    Dirty = 1,
    /// In the io set of a cleaning caller. Linux: `PAGECACHE_TAG_TOWRITE`.
    ToWrite = 2,
    /// In the io set of an integrity caller.
    ToSync = 3,
    /// A write of it is in flight. Linux: `PAGECACHE_TAG_WRITEBACK`.
    Writeback = 4,
}

/// Several marks: a page has the set when it has one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks(u8);

impl Marks {
    /// The io set: pages some caller's snapshot holds.
    pub(crate) const IO: Marks = Marks(1 << Mark::ToWrite as u8 | 1 << Mark::ToSync as u8);

    /// One mark.
    pub(crate) const fn only(mark: Mark) -> Marks {
        Marks(1 << mark as u8)
    }
}

impl From<Mark> for Marks {
    fn from(mark: Mark) -> Marks {
        Marks::only(mark)
    }
}

impl BitOr for Marks {
    type Output = Marks;
    fn bitor(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }
}

/// The pool has no free node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoNodes;

#[derive(Debug)]
struct Node {
    slots: [AtomicU32; SLOTS],
    marks: [AtomicU64; MARKS],
}

impl Node {
    fn new() -> Node {
        Node {
            slots: std::array::from_fn(|_| AtomicU32::new(0)),
            marks: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn marked(&self, marks: Marks) -> u64 {
        let bit = |m: usize| {
            if marks.0 & (1 << m) == 0 { 0 } else { self.marks[m].load(Ordering::Relaxed) }
        };
        (0..MARKS).map(bit).fold(0, BitOr::bitor)
    }

    fn child(&self, slot: usize) -> Option<u32> {
        self.slots[slot].load(Ordering::Acquire).checked_sub(1)
    }
}

/// The nodes of all trees of one cache: as many as the memory bound has room for.
pub(crate) struct NodePool {
    nodes: Box<[Node]>,
    free: Mutex<Vec<u32>>,
}

/// Bytes of a node, for the memory bound.
pub(crate) const NODE_BYTES: usize = size_of::<Node>() + size_of::<u32>();

impl NodePool {
    /// A pool of `count` nodes.
    pub(crate) fn new(count: u32) -> NodePool {
        NodePool {
            nodes: (0..count).map(|_| Node::new()).collect(),
            free: Mutex::new((0..count).rev().collect()),
        }
    }

    #[inline]
    fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    fn take(&self, count: usize) -> Result<Vec<u32>, NoNodes> {
        let mut free = self.free.lock();
        let keep = free.len().checked_sub(count).ok_or(NoNodes)?;
        Ok(free.split_off(keep))
    }

    fn give_back(&self, id: u32) {
        self.free.lock().push(id);
    }
}

/// The lock-free side of a tree.
#[derive(Clone)]
pub(crate) struct TreeReader {
    nodes: Arc<NodePool>,
    /// Zero when empty; else the levels in the upper half and the root's number plus one in the
    /// lower.
    root: Arc<AtomicU64>,
}

impl TreeReader {
    /// The page at `index`, as of some moment during the call: the caller compares its identity.
    #[inline]
    pub(crate) fn lookup(&self, index: PageIndex) -> Option<PageId> {
        let (mut at, levels) = split(self.root.load(Ordering::Acquire))?;
        if !fits(index.0, levels) {
            return None;
        }
        for level in (0..levels).rev() {
            at = self.nodes.nodes.get(at as usize)?.child(slot(index.0, level))?;
        }
        Some(PageId(at))
    }
}

fn split(root: u64) -> Option<(u32, u32)> {
    let low = u32::try_from(root & u64::from(u32::MAX)).expect("masked");
    let high = u32::try_from(root >> 32).expect("shifted");
    Some((low.checked_sub(1)?, high))
}

fn join(node: u32, levels: u32) -> u64 {
    (u64::from(levels) << 32) | (u64::from(node) + 1)
}

#[inline]
fn slot(index: u64, level: u32) -> usize {
    usize::from(((index >> (level * BITS)) % SLOTS as u64).to_le_bytes()[0])
}

#[inline]
fn fits(index: u64, levels: u32) -> bool {
    levels * BITS >= u64::BITS || index >> (levels * BITS) == 0
}

fn levels_for(index: u64) -> u32 {
    (u64::BITS - index.leading_zeros()).div_ceil(BITS).max(1)
}

/// The nodes from the root to a leaf.
struct Path {
    steps: [(u32, usize); LEVELS_MAX],
    len: usize,
}

impl Path {
    /// From the leaf up.
    fn up(&self) -> impl Iterator<Item = (u32, usize)> {
        self.steps[..self.len].iter().rev().copied()
    }
}

/// The pages of one mapping. Whoever has `&mut` holds the mapping lock.
pub(crate) struct PageTree {
    reader: TreeReader,
}

impl PageTree {
    /// An empty tree over `nodes`.
    pub(crate) fn new(nodes: Arc<NodePool>) -> PageTree {
        PageTree { reader: TreeReader { nodes, root: Arc::new(AtomicU64::new(0)) } }
    }

    /// The lock-free side.
    pub(crate) fn reader(&self) -> TreeReader {
        self.reader.clone()
    }

    /// The page at `index`.
    pub(crate) fn get(&self, index: PageIndex) -> Option<PageId> {
        self.reader.lookup(index)
    }

    /// Puts `page` at `index`, which is empty, marked Present.
    pub(crate) fn insert(&mut self, index: PageIndex, page: PageId) -> Result<(), NoNodes> {
        let missing = self.missing_levels(index.0);
        let mut spare = self.nodes().take(missing)?;
        self.grow(index.0, &mut spare);
        let (mut at, levels) = self.root().expect("grown");
        for level in (1..levels).rev() {
            let here = slot(index.0, level);
            at = match self.node(at).child(here) {
                Some(child) => child,
                None => {
                    let fresh = spare.pop().expect("counted by missing_levels");
                    self.node(at).slots[here].store(fresh + 1, Ordering::Release);
                    fresh
                }
            };
        }
        assert!(spare.is_empty(), "every node taken has its place");
        let leaf = &self.node(at).slots[slot(index.0, 0)];
        assert!(leaf.load(Ordering::Relaxed) == 0, "the index is empty");
        leaf.store(page.0 + 1, Ordering::Release);
        let _new: bool = self.set_mark(index, Mark::Present);
        Ok(())
    }

    /// Takes the page at `index`, which is there, out of the tree with all its marks.
    pub(crate) fn remove(&mut self, index: PageIndex) {
        for mark in [Mark::Dirty, Mark::ToWrite, Mark::ToSync, Mark::Writeback] {
            let _had: bool = self.clear_mark(index, mark);
        }
        let path = self.path(index.0).expect("the page is in the tree");
        let had = self.clear_mark(index, Mark::Present);
        assert!(had, "a page in the tree is marked Present");
        let mut freed = 0;
        for (node, at) in path.up() {
            self.node(node).slots[at].store(0, Ordering::Release);
            if self.node(node).marks[Mark::Present as usize].load(Ordering::Relaxed) != 0 {
                break;
            }
            freed += 1;
        }
        if freed == path.len {
            self.reader.root.store(0, Ordering::Release);
        }
        path.up().take(freed).for_each(|(node, _)| self.nodes().give_back(node));
    }

    /// Marks the page at `index`; true when it was not marked.
    pub(crate) fn set_mark(&mut self, index: PageIndex, mark: Mark) -> bool {
        let path = self.path(index.0).expect("only pages in the tree are marked");
        for (level, (node, at)) in path.up().enumerate() {
            let marks = &self.node(node).marks[mark as usize];
            let old = marks.load(Ordering::Relaxed);
            marks.store(old | (1 << at), Ordering::Relaxed);
            if old != 0 {
                return level > 0 || old & (1 << at) == 0;
            }
        }
        true
    }

    /// Takes the mark from the page at `index`; true when it was marked.
    pub(crate) fn clear_mark(&mut self, index: PageIndex, mark: Mark) -> bool {
        let Some(path) = self.path(index.0) else { return false };
        for (level, (node, at)) in path.up().enumerate() {
            let marks = &self.node(node).marks[mark as usize];
            let old = marks.load(Ordering::Relaxed);
            if old & (1 << at) == 0 {
                assert!(level == 0, "invariant 1");
                return false;
            }
            marks.store(old & !(1 << at), Ordering::Relaxed);
            if old & !(1 << at) != 0 {
                break;
            }
        }
        true
    }

    /// True when the page at `index` has one of `marks`.
    pub(crate) fn has_mark(&self, index: PageIndex, marks: impl Into<Marks>) -> bool {
        let leaf = self.path(index.0).map(|path| path.steps[path.len - 1]);
        leaf.is_some_and(|(node, at)| self.node(node).marked(marks.into()) & (1 << at) != 0)
    }

    /// The first page of `range` with one of `marks`.
    pub(crate) fn next(
        &self,
        range: Range<u64>,
        marks: impl Into<Marks>,
    ) -> Option<(PageIndex, PageId)> {
        let (root, levels) = self.root()?;
        let last = range.end.checked_sub(1).filter(|last| range.start <= *last)?;
        if !fits(range.start, levels) {
            return None;
        }
        self.find(root, levels - 1, 0, (range.start, last), marks.into())
    }

    /// Gives `to` to every page of `range` that has `from`; returns how many got it that had not.
    /// Linux: `tag_pages_for_writeback()`.
    pub(crate) fn copy_mark(&mut self, range: Range<u64>, from: Mark, to: Mark) -> usize {
        let Some((root, levels)) = self.root() else { return 0 };
        let Some(last) = range.end.checked_sub(1).filter(|last| range.start <= *last) else {
            return 0;
        };
        if !fits(range.start, levels) {
            return 0;
        }
        self.copy_below(root, levels - 1, 0, (range.start, last), (from, to))
    }

    /// How many pages of `range` have one of `marks` and none of `unless`.
    pub(crate) fn count(&self, range: Range<u64>, marks: Marks, unless: Option<Marks>) -> usize {
        let mut found = 0;
        let mut from = range.start;
        while let Some((index, _)) = self.next(from..range.end, marks) {
            found += usize::from(unless.is_none_or(|u| !self.has_mark(index, u)));
            from = index.0 + 1;
        }
        found
    }

    fn nodes(&self) -> &NodePool {
        &self.reader.nodes
    }

    fn node(&self, id: u32) -> &Node {
        self.nodes().node(id)
    }

    fn root(&self) -> Option<(u32, u32)> {
        split(self.reader.root.load(Ordering::Acquire))
    }

    fn path(&self, index: u64) -> Option<Path> {
        let (mut at, levels) = self.root()?;
        if !fits(index, levels) {
            return None;
        }
        let mut path = Path { steps: [(0, 0); LEVELS_MAX], len: levels as usize };
        for level in (0..levels).rev() {
            let here = slot(index, level);
            path.steps[(levels - 1 - level) as usize] = (at, here);
            at = self.node(at).child(here)?;
        }
        Some(path)
    }

    /// How many nodes an insertion at `index` adds.
    fn missing_levels(&self, index: u64) -> usize {
        let Some((mut at, levels)) = self.root() else { return levels_for(index) as usize };
        if !fits(index, levels) {
            // The new root has the old tree in slot 0; the index goes another way at every level.
            let wanted = levels_for(index);
            return ((wanted - levels) + (wanted - 1)) as usize;
        }
        for level in (1..levels).rev() {
            match self.node(at).child(slot(index, level)) {
                Some(child) => at = child,
                None => return level as usize,
            }
        }
        0
    }

    /// Adds levels above the root until `index` fits.
    fn grow(&mut self, index: u64, spare: &mut Vec<u32>) {
        let Some((mut root, mut levels)) = self.root() else {
            let root = spare.pop().expect("counted by missing_levels");
            self.reader.root.store(join(root, levels_for(index)), Ordering::Release);
            return;
        };
        while !fits(index, levels) {
            let above = spare.pop().expect("counted by missing_levels");
            let node = self.node(above);
            for mark in 0..MARKS {
                let below = self.node(root).marks[mark].load(Ordering::Relaxed) != 0;
                node.marks[mark].store(u64::from(below), Ordering::Relaxed);
            }
            node.slots[0].store(root + 1, Ordering::Release);
            (root, levels) = (above, levels + 1);
        }
        self.reader.root.store(join(root, levels), Ordering::Release);
    }

    fn find(
        &self,
        node: u32,
        level: u32,
        base: u64,
        (first, last): (u64, u64),
        marks: Marks,
    ) -> Option<(PageIndex, PageId)> {
        let mut bits = self.node(node).marked(marks) & within(base, level, first, last);
        while bits != 0 {
            let at = bits.trailing_zeros();
            bits &= bits - 1;
            let child = self.node(node).child(at as usize).expect("invariant 1");
            let index = base | (u64::from(at) << (level * BITS));
            if level == 0 {
                return Some((PageIndex(index), PageId(child)));
            }
            let found = self.find(child, level - 1, index, (first, last), marks);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn copy_below(
        &mut self,
        node: u32,
        level: u32,
        base: u64,
        (first, last): (u64, u64),
        (from, to): (Mark, Mark),
    ) -> usize {
        let bits = self.node(node).marked(from.into()) & within(base, level, first, last);
        let old = self.node(node).marks[to as usize].load(Ordering::Relaxed);
        if level == 0 {
            self.node(node).marks[to as usize].store(old | bits, Ordering::Relaxed);
            return (bits & !old).count_ones() as usize;
        }
        let mut copied = 0;
        for at in (0..BITS_OF_WORD).filter(|at| bits & (1 << at) != 0) {
            let child = self.node(node).child(at as usize).expect("invariant 1");
            let index = base | (u64::from(at) << (level * BITS));
            copied += self.copy_below(child, level - 1, index, (first, last), (from, to));
            if self.node(child).marks[to as usize].load(Ordering::Relaxed) != 0 {
                let marks = &self.node(node).marks[to as usize];
                marks.store(marks.load(Ordering::Relaxed) | (1 << at), Ordering::Relaxed);
            }
        }
        copied
    }
}

const BITS_OF_WORD: u32 = 1 << BITS;

/// The slots of a node at `level`, whose first index is `base`, that can hold indices first..=last.
fn within(base: u64, level: u32, first: u64, last: u64) -> u64 {
    let shift = level * BITS;
    let top = u64::try_from(SLOTS - 1).expect("small");
    let place = |index: u64| (index >> shift).saturating_sub(base >> shift);
    let (low, high) = (place(first), place(last).min(top));
    if low > top || last < base {
        return 0;
    }
    (u64::MAX << low) & (u64::MAX >> (u64::from(u64::BITS - 1) - high))
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;

#[cfg(all(test, mpage_loom))]
mod loom_tests;
